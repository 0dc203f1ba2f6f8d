"""What both callbacks do: watch every optimizer of a training, and report at its end."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from gradcheck_cli.config import Settings
from gradcheck_cli.errors import ConfigError, GradcheckError, OutputError
from gradcheck_cli.integrations.watching import Watch, describe, save, show
from gradcheck_cli.judgement import check_selection
from gradcheck_cli.records import Report, RunInfo
from gradcheck_cli.report.formats import format_of
from gradcheck_cli.report.output import check

RAISE_ON = (None, "error", "warning")


def read_options(
    output: str | Path | Sequence[str | Path],
    raise_on: str | None,
    probe_every: int,
    select: Collection[str],
    ignore: Collection[str],
) -> Settings:
    """The callbacks' options as Settings, `raise_on` as `fail_on`.

    Raises ConfigError or OutputError now for what would fail after hours.
    """
    if raise_on not in RAISE_ON:
        raise ConfigError(f"raise_on must be 'error', 'warning' or None, not {raise_on!r}")
    paths = [Path(path) for path in ([output] if isinstance(output, (str, Path)) else output)]
    for path in paths:
        format_of(path)
        check(path)
    settings = Settings(
        probe_every=probe_every,
        select=tuple(select),
        ignore=tuple(ignore),
        fail_on=raise_on or "never",
        output=tuple(str(path.absolute()) for path in paths),
    )
    check_selection(settings)
    return settings


class Training:
    """The watches of one training after the other, one for each optimizer, and the last one's reports."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.watches: list[Watch] = []
        self.reports: list[Report] = []

    def begin(self, model: nn.Module, optimizers: Sequence[Optimizer], probing: bool = True, **run: Any) -> None:
        """Watch these optimizers; `run` are fields of RunInfo that the framework knows.

        Without `probing` modules get no hooks: in one that the framework has compiled they would not fire.
        """
        self.close()
        self.watches, self.reports = [], []
        for optimizer in optimizers:
            made = self._make_watch(model, optimizer, optimizers, run, probing)
            made.open()
            self.watches.append(made)

    def close(self) -> None:
        """Stop recording; what was recorded stays readable."""
        for watch in self.watches:
            watch.close()

    def report(self, ended: str = "completed") -> None:
        """Close, print the reports, and write them. Raises OutputError when a file cannot be written."""
        was_open = any(watch.is_open for watch in self.watches)
        self.close()
        if not was_open:
            return
        for number, watch in enumerate(self.watches):
            if not watch.recording.steps:
                print("gradcheck: the optimizer made no step, so there is nothing to report", file=sys.stderr)
                continue
            self.reports.append(watch.report(ended))
            show(self.reports[-1], sys.stderr)
            self._write(self.reports[-1], number)

    def report_failure(self, ended: str) -> None:
        """As `report`, in the midst of an exception, which nothing here shall hide."""
        try:
            self.report(ended)
        except OutputError as error:
            print(error, file=sys.stderr)

    def check(self) -> None:
        """Raise GradcheckError when a finding is as bad as `raise_on` says."""
        failing = [report for report in self.reports if report.exit_code]
        if failing:
            found = sorted({finding.code for report in failing for finding in report.diagnosis.findings})
            raise GradcheckError(
                f"gradcheck found in {', '.join(report.run.target for report in failing)}: {', '.join(found)}",
                "the table above says where and what to do",
            )

    def _make_watch(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        all_of_them: Sequence[Optimizer],
        run: dict[str, Any],
        probing: bool,
    ) -> Watch:
        others = {p for other in all_of_them if other is not optimizer for p in parameters_in(other)}
        name, root = root_of(model, parameters_in(optimizer), others)
        described: RunInfo = replace(describe(model, optimizer), **run)
        if name:
            described = replace(described, target=f"{described.target}.{name}")
        shared = not others.isdisjoint(root.parameters())  # what another optimizer holds is not forgotten
        ignore = (*self._settings.ignore, "GC106") if shared else self._settings.ignore
        probe_every = self._settings.probe_every if probing else 0
        settings = replace(self._settings, ignore=ignore, probe_every=probe_every)
        return Watch(root, optimizer, described, settings)

    def _write(self, report: Report, number: int) -> None:
        for path in map(Path, self._settings.output):
            several = len(self.watches) > 1
            save(report, path.with_name(f"{path.stem}-{number}{path.suffix}") if several else path)


def root_of(model: nn.Module, own: set[nn.Parameter], others: set[nn.Parameter]) -> tuple[str, nn.Module]:
    """The outermost module that has all of an optimizer's own parameters and none of others', and its name.

    Where all that have its own have others', too, the innermost.
    """
    holding = [(name, part) for name, part in model.named_modules() if own <= set(part.parameters())]
    apart = [(name, part) for name, part in holding if others.isdisjoint(part.parameters())]
    return (apart or holding[::-1] or [("", model)])[0]


def parameters_in(optimizer: Optimizer) -> set[nn.Parameter]:
    """All that it updates."""
    return {parameter for group in optimizer.param_groups for parameter in group["params"]}
