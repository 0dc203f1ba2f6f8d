"""nan-trace, from the target to the report."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from gradcheck_cli.config import Settings
from gradcheck_cli.drive.adapters import is_adapted
from gradcheck_cli.drive.loop import LoopSettings, make_scaler
from gradcheck_cli.drive.ranks.group import ALONE, Group
from gradcheck_cli.drive.workload import Workload
from gradcheck_cli.errors import ConfigError, GradcheckError, OutputError, TargetError
from gradcheck_cli.judgement import check_selection, make_trace_report
from gradcheck_cli.observe.naming import parameters_of
from gradcheck_cli.observe.nan.births import Births
from gradcheck_cli.observe.nan.sinks import bad_from_the_start
from gradcheck_cli.observe.nan.watch import Watch
from gradcheck_cli.pipeline.preparation import Built, Progress, Watcher, ignore, prepare
from gradcheck_cli.records import Report
from gradcheck_cli.report.formats import render
from gradcheck_cli.report.repro_readme import headline, render_readme
from gradcheck_cli.report.view import View
from gradcheck_cli.tracing.ranks import Ranks, together
from gradcheck_cli.tracing.repro import check_is_empty, nothing_to_save, write_repro
from gradcheck_cli.tracing.repro_state import attributes_of, save_state
from gradcheck_cli.tracing.repro_steps import Traits
from gradcheck_cli.tracing.run import Hunt
from gradcheck_cli.tracing.session import Session

PROGRESS_SECONDS = 0.1


def nan_trace(
    target: str | Built,
    settings: Settings,
    watch: Watcher = ignore,
    save_repro: Path | None = None,
    group: Group = ALONE,
) -> tuple[Report, GradcheckError | None]:
    """Train the target until something is not finite, and report where it came from.

    `save_repro` is a folder for what reproduces it; OutputError is raised before the run when it is not empty. The
    error is the user's own that ended the run, if any did, or says why the folder could not be written.
    """
    check_selection(settings)
    if save_repro and not group.is_alone:
        raise ConfigError("--save-repro saves the step of one process", "trace it on one process, or without it")
    root = Path.cwd()  # before a chdir of theirs
    if save_repro:
        check_is_empty(save_repro)
    births = Births()
    with births.noted():
        workload, device, described, settings, team = prepare(target, settings, group)
    ranks = Ranks(group, team.strategy)
    check_traceable(workload, ranks, save_repro)
    loop = LoopSettings(device, settings.precision, settings.steps, settings.clip)
    known_bad = bad_from_the_start(workload.model)
    session = Session(workload, loop, make_scaler(loop), known_bad, births, ranks)
    at_start = attributes_of(session) if save_repro else {}
    with ExitStack() as stack:
        source = stack.enter_context(closing(workload.windows(settings.accumulate)))
        first_epoch = itertools.takewhile(lambda window: not window[0].epoch, source)
        windows = first_epoch if settings.one_epoch else source
        shared = windows if group.is_alone else together(windows, group)
        hunt = Hunt(session, shared, progress_of(watch, settings.steps))
        ending = hunt.run()
    short = "data-exhausted" if ending.trace.steps < settings.steps and not settings.one_epoch else "completed"
    run_info = replace(described, ended=ending.ended or short)
    parameters = [info for info, _ in parameters_of(workload.model, workload.optimizer)]
    report = make_trace_report(run_info, hunt.series(), ending.trace, settings, ending.error, parameters)
    if not group.is_alone:
        return of_rank(report, max(ending.trace.rank, 0), group), None
    if not save_repro:
        return report, ending.error
    if not ending.fault:
        return with_note(report, nothing_to_save(ending.trace)), ending.error
    saved = save_state(ending.fault, ending.trace, settings, at_start)
    return save(report, Traits(ending.fault.session, settings, saved, described.target, root), save_repro, ending.error)


def check_traceable(workload: Workload, ranks: Ranks, save_repro: Path | None) -> None:
    """Raise ConfigError or TargetError, before anything is trained, for what can't be followed or written down."""
    if save_repro and is_adapted(workload.training_step):
        raise ConfigError(
            "--save-repro can't write down the step of a Trainer or a LightningModule: it is the framework's",
            "trace it without, or return the model, its batches and a training_step(model, batch) of your own",
        )
    if ranks.splits_tensors:
        raise TargetError(
            "nan-trace can't follow values through ranks that split tensors among them",
            "trace the model on one process, or with --strategy ddp or fsdp2; profile says when it turns non-finite",
        )


def save(
    report: Report, traits: Traits, folder: Path, error: GradcheckError | None
) -> tuple[Report, GradcheckError | None]:
    """Write what reproduces a failing step, and say in the report what of it could not be saved."""
    finding = str(render(report, "table", View(width=100)))
    readme = render_readme(report, finding, traits.saved.contents, traits.saved.lost)
    try:
        write_repro(folder, traits, headline(report), readme)
    except OutputError as failure:  # the finding must not be lost with it
        return replace(report, exit_code=2), error or failure
    return with_note(report, f"{folder.name}/repro.py runs the step again", *traits.saved.lost), error


def of_rank(report: Report, rank: int, group: Group) -> Report:
    """The report of one rank, on all of them."""
    told: list[tuple[Report, str] | None] = group.gather((report, group.host) if group.rank == rank else None)
    chosen, host = next(one for one in told if one is not None)
    return with_note(chosen, f"batches and values are those of rank {rank} of {group.size}, on {host}")


def with_note(report: Report, *notes: str) -> Report:
    """The report with more to say of the run."""
    return replace(report, run=replace(report.run, notes=(*report.run.notes, *notes)))


def progress_of(watch: Watcher, steps: int) -> Callable[[int, Watch], None]:
    """Tell a watcher of a run how far a hunt is, ten times a second: the norm is put together for it."""
    told = 0.0

    def tell(done: int, seen: Watch) -> None:
        nonlocal told
        if perf_counter() - told > PROGRESS_SECONDS:
            told = perf_counter()
            watch(Progress(done, steps, seen.loss, seen.grad_norm))

    return tell
