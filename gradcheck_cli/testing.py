"""What the pytest plugin's fixture and marker do: run a command, and fail with its report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from gradcheck_cli import pipeline
from gradcheck_cli.config import Settings, load_settings
from gradcheck_cli.config_keywords import check_keywords
from gradcheck_cli.config_targets import find_target
from gradcheck_cli.errors import ConfigError, GradcheckError, UserCodeError
from gradcheck_cli.judgement_baseline import open_gate
from gradcheck_cli.pipeline.borrowing import borrowed, same_process
from gradcheck_cli.pipeline.profiling import InterruptError
from gradcheck_cli.records import Report, Severity
from gradcheck_cli.report.formats import render
from gradcheck_cli.report.verdict import judge
from gradcheck_cli.report.view import View
from gradcheck_cli.targets import Script

COMMANDS: Mapping[str, Callable[..., pipeline.Result]] = {"profile": pipeline.profile, "nan-trace": pipeline.nan_trace}
OWN = str(Path(__file__).resolve().parent)
WIDTH = 96
"""With what pytest puts before each line, 100 columns."""


class Checks:
    """The fixture `gradcheck`; `report` is the newest report made for the test, of its marker or of a call.

    `tell_skipped` is given, after each run, the codes of rules that could not judge it.
    """

    def __init__(self, root: Path, tell_skipped: Callable[[str], None]) -> None:
        self._root, self._tell_skipped = root, tell_skipped
        self.report: Report | None = None

    def assert_healthy(
        self,
        model: Any,
        dataloader: Any = None,
        *,
        loss_fn: Any = None,
        training_step: Any = None,
        optimizer: Any = None,
        scheduler: Any = None,
        steps: int = 20,
        **settings: Any,
    ) -> Report:
        """Fail with the report of `gradcheck profile` if it has a finding at or above `fail_on`; else return it.

        `model` alone may also be all that an entrypoint may return, or a target, "train.py:build". `optimizer` may be
        a name of torch.optim. Everything is left as it was. `settings` are those of `gradcheck profile`.
        Raises what the user's code raises, and GradcheckError for what cannot be run.
        """
        __tracebackhide__ = True
        parts = parts_of(model, dataloader, loss_fn, training_step, optimizer, scheduler)
        self.report = self._run("profile", parts, named(optimizer) | {"steps": steps, **settings})
        expect_nothing(self.report)
        return self.report

    def assert_no_nan(
        self,
        model: Any,
        dataloader: Any = None,
        *,
        loss_fn: Any = None,
        training_step: Any = None,
        optimizer: Any = None,
        scheduler: Any = None,
        steps: int = 20,
        **settings: Any,
    ) -> Report:
        """As `assert_healthy`, with the report of `gradcheck nan-trace`."""
        __tracebackhide__ = True
        parts = parts_of(model, dataloader, loss_fn, training_step, optimizer, scheduler)
        self.report = self._run("nan-trace", parts, named(optimizer) | {"steps": steps, **settings})
        expect_nothing(self.report)
        return self.report

    def check_target(self, target: str, settings: Mapping[str, Any]) -> None:
        """Fail with the report of `gradcheck profile TARGET`, run in the root directory with its configuration."""
        __tracebackhide__ = True
        self.report = self._run("profile", target, settings)
        expect_nothing(self.report)

    def _run(self, command: str, parts: Any, keywords: Mapping[str, Any]) -> Report:
        __tracebackhide__ = True
        try:
            report, error = (run_target if isinstance(parts, str) else run_parts)(command, parts, keywords, self._root)
        except GradcheckError as raised:
            report, error = None, raised
        if isinstance(error, InterruptError) or (report and report.run.ended == "interrupted"):
            raise KeyboardInterrupt
        if report is None or error:
            raise_error(error or GradcheckError("nothing was run"))
        if skipped := {rule.code for rule in report.diagnosis.not_evaluated}:
            self._tell_skipped(" ".join(sorted(skipped)))
        return report


def parts_of(model: Any, dataloader: Any, loss_fn: Any, training_step: Any, optimizer: Any, scheduler: Any) -> Any:
    """What an entrypoint would return; the model as it is where it is all that was given."""
    given = {
        "dataloader": dataloader,
        "loss_fn": loss_fn,
        "training_step": training_step,
        "optimizer": None if isinstance(optimizer, str) else optimizer,
        "scheduler": scheduler,
    }
    alone = all(part is None for part in given.values())
    return model if alone and not is_mere_model(model) else {"model": model, **given}


def is_mere_model(model: Any) -> bool:
    """Whether it is a module without data: one of Lightning's may bring its own."""
    return hasattr(model, "parameters") and not hasattr(model, "train_dataloader")


def named(optimizer: Any) -> dict[str, Any]:
    """The setting for an optimizer that is given by its name."""
    return {"optimizer": optimizer} if isinstance(optimizer, str) else {}


def run_parts(command: str, parts: Any, keywords: Mapping[str, Any], root: Path) -> pipeline.Result:
    """The command's result on what is in memory, where it is; no configuration file has a say."""
    given = check_keywords(keywords)
    if given.get("set"):
        raise ConfigError("set has arguments for a callable, and the model is built already", "build it with them")
    if "baseline" in given:
        given["baseline"] = str(root / given["baseline"])
    settings = Settings(**given, given=frozenset(given))
    with borrowed(parts, settings) as built:
        device = given.get("device") or str(next(built.workload.model.parameters()).device)
        return run(command, built, replace(settings, device=device))


def run_target(command: str, target: str, keywords: Mapping[str, Any], root: Path) -> pipeline.Result:
    """The command's result on a target or its name in the configuration, as in a shell in the root directory."""
    flags = check_keywords(keywords)
    with same_process(root):
        what, own = find_target(target, None, None, None)
        if isinstance(what, Script):
            raise ConfigError(f"{what.place} is a script, which is run as it is", f"name a callable: {target}:build")
        known = set(sys.modules)
        try:
            return run(command, what, load_settings(flags, None, own))
        finally:
            forget(target.rpartition(":")[0], known)


def run(command: str, target: str | pipeline.Built, settings: Settings) -> pipeline.Result:
    """The command's result, held against its baseline if there is one."""
    gate = open_gate(command, settings)
    report, error = COMMANDS[command](target, settings)
    return (report if error else gate.judge(report)), error


def forget(file: str, known: Iterable[str]) -> None:
    """Let go of a module that was imported of a file: a test may import another one of that name."""
    path = str(Path(file).resolve())
    for name in set(sys.modules).difference(known):
        if getattr(sys.modules[name], "__file__", None) == path:
            del sys.modules[name]


def expect_nothing(report: Report) -> None:
    """Raise AssertionError with the report, if its command would exit with 1."""
    __tracebackhide__ = True
    if report.exit_code:
        table = str(render(report, "table", View(WIDTH)))
        raise AssertionError(f"{headline(report)}\n\n{table}".rstrip())


def headline(report: Report) -> str:
    """Codes and names of the worst findings, with a baseline of the new ones; the verdict where there are none."""
    new = report.comparison.new if report.comparison else {one.fingerprint for one in report.diagnosis.findings}
    counted = [finding for finding in report.diagnosis.findings if finding.fingerprint in new]
    worst = max((finding.severity.rank for finding in counted), default=0)
    names = dict.fromkeys(f"{finding.code} {finding.name}" for finding in counted if finding.severity.rank == worst)
    return ", ".join(names) if worst > Severity.INFO.rank else judge(report)[2]


def raise_error(error: GradcheckError) -> NoReturn:
    """Raise the user's own exception that is behind an error, with its traceback; else the error, with its hint."""
    __tracebackhide__ = True
    cause = error.__cause__
    if isinstance(error, UserCodeError) and cause is not None:
        raise cause.with_traceback(without_own_frames(cause.__traceback__))
    lines = (error.message, error.details, f"hint: {error.hint}" if error.hint else "")
    raise type(error)("\n".join(filter(None, lines))) from None


def without_own_frames(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without gradcheck's frames."""
    if trace is None:
        return None
    rest = without_own_frames(trace.tb_next)
    if trace.tb_frame.f_code.co_filename.startswith(OWN):
        return rest
    return TracebackType(rest, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)
