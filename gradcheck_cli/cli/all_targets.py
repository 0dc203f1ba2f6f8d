"""gradcheck profile --all: every target that the configuration names, each in a process of its own.

What one target imports, seeds or leaves behind would change the next one.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gradcheck_cli.cli.gate import keep, prepare_gate
from gradcheck_cli.cli.messages import notify, show_error
from gradcheck_cli.cli.output import check_outputs, publish, save
from gradcheck_cli.cli.ranks import check_ranks, find_place, run
from gradcheck_cli.cli.streams import reserve_stdout
from gradcheck_cli.config import Settings, load_script_settings, load_settings
from gradcheck_cli.config_flags import as_flag
from gradcheck_cli.config_targets import NamedTarget, read_targets
from gradcheck_cli.errors import ConfigError, GradcheckError
from gradcheck_cli.judgement import join_reports
from gradcheck_cli.report.view import View
from gradcheck_cli.targets import Script, check_flags

if TYPE_CHECKING:
    from gradcheck_cli.records import Report

Outcome = tuple["Report | None", GradcheckError | None]
OF_ONE = ("baseline", "write_baseline", "accept")
"""Flags that name a file of one target."""


def profile_all(flags: Mapping[str, Any], config: Path | None) -> None:
    """Profile all, print one report after the other, and exit with the worst code.

    Raises ConfigError where there are no names, and for flags that make sense for one target only.
    """
    named = read_targets(config)
    check_all(named, flags)
    settings = load_settings(flags, config)
    choices = {name: choose_settings(one, flags, config) for name, one in named.items()}
    outputs = check_outputs(settings)
    own = {name: check_outputs(choice) for name, choice in choices.items()}
    stdout = reserve_stdout()
    view = View.of(stdout)
    reports, failed = [], False
    for name, (report, error) in run_each(named, choices):
        failed |= error is not None
        if error:
            notify(f"{name}:")
            show_error(error)
        if report:
            reports.append(report)
            for path in own[name]:
                save(report, choices[name], path, replace(view, width=100, color=False, unicode=True))
    if reports:
        publish(join_reports(flatten(reports)), settings, outputs, stdout, view)
    raise typer.Exit(2 if failed else max(report.exit_code for report in reports))


def check_all(named: Mapping[str, NamedTarget], flags: Mapping[str, Any]) -> None:
    """Raise ConfigError where there are no targets, or for flags that they cannot be given."""
    if not named:
        raise ConfigError("no TARGET is given, and no configuration names any", "gradcheck init writes one")
    if refused := [as_flag(name) for name in OF_ONE if name in flags]:
        raise ConfigError(f"{', '.join(refused)} is for one target", "set it below the target's name, or name a TARGET")
    if find_place():
        raise ConfigError("a launcher's ranks run one target together, not all", "name a TARGET, or use --nproc")
    for one in named.values():
        check_flags(one.target, flags, ("check_scale",))
        check_ranks(one.target, flags)


def choose_settings(one: NamedTarget, flags: Mapping[str, Any], config: Path | None) -> Settings:
    """Its own settings; the files asked for in general are for all reports together, and not for its own."""
    load = load_script_settings if isinstance(one.target, Script) else load_settings
    return replace(load(flags, config, one.own), output=one.own.get("output", ()))


def run_each(named: Mapping[str, NamedTarget], choices: Mapping[str, Settings]) -> Iterator[tuple[str, Outcome]]:
    """One after the other, until Ctrl-C ends one."""
    for name, settings in choices.items():
        outcome = run_alone(named[name], settings)
        yield name, outcome
        if outcome[0] and outcome[0].run.ended == "interrupted":
            return


def run_alone(one: NamedTarget, settings: Settings) -> Outcome:
    """Its report, and the error that ended it, in a process that is gone afterwards."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool, interrupts_left_to_children():
        try:
            return pool.submit(run_here, one, settings).result()
        except BrokenProcessPool:
            return None, GradcheckError(f"{one.name}: its process ended without a report", "profile it by its name")


def run_here(one: NamedTarget, settings: Settings) -> Outcome:
    """The same in this process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        gate = prepare_gate("profile", settings)
        report, error = run("profile", one.target, settings)
        report = gate.judge(report)
        keep(gate, report, settings)
        return report, error
    except GradcheckError as error:
        return None, error


@contextmanager
def interrupts_left_to_children() -> Iterator[None]:
    """Ctrl-C reaches this process and its child: the child ends its step and reports."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def flatten(reports: list[Report]) -> list[Report]:
    """All models of all targets, one after the other."""
    return [part for report in reports for part in (replace(report, others=()), *report.others)]
