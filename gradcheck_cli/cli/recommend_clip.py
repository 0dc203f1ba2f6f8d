"""gradcheck recommend-clip"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gradcheck_cli.cli import options as o
from gradcheck_cli.errors import ConfigError, GradcheckError

if TYPE_CHECKING:
    from gradcheck_cli.config import Settings
    from gradcheck_cli.records import Recording, Report
    from gradcheck_cli.targets import Script

ROUNDING = 1e-6
RUNNING = (
    "steps",
    "until_stable",
    "device",
    "precision",
    "accumulate",
    "seed",
    "set",
    "optimizer",
    "lr",
    "checkpoint",
    "eval",
    "eager",
    "verify",
    "verify_against",
)


def recommend_clip(
    target: o.ClipTarget = None,
    arguments: o.Arguments = None,
    module: o.Module = None,
    steps: o.ClipSteps = None,
    until_stable: o.UntilStable = None,
    norms: o.Norms = None,
    device: o.Device = None,
    precision: o.Precision = None,
    accumulate: o.Accumulate = None,
    seed: o.Seed = None,
    set_: o.Set = None,
    optimizer: o.OptimizerName = None,
    lr: o.LearningRate = None,
    checkpoint: o.Checkpoint = None,
    eval_: o.Eval = None,
    eager: o.Eager = None,
    percentile: o.Percentile = None,
    horizon: o.Horizon = None,
    max_norm: o.JudgedNorm = None,
    verify: o.Verify = None,
    verify_against: o.VerifyAgainst = None,
    select: o.Select = None,
    ignore: o.Ignore = None,
    fail_on: o.FailOn = None,
    config: o.Config = None,
    format_: o.Format = None,
    output: o.Output = None,
    save: o.Save = None,
    quiet: o.Quiet = None,
) -> None:
    """Train without clipping, then say whether this run needs it, at which max_norm, and how sure that is."""
    flags = o.given(locals())
    from gradcheck_cli.cli.messages import show_error
    from gradcheck_cli.cli.output import check_outputs, publish
    from gradcheck_cli.cli.streams import reserve_stdout
    from gradcheck_cli.config import load_clip_settings
    from gradcheck_cli.report.view import View
    from gradcheck_cli.targets import Script, check_flags, read_target

    check_source(target or module, norms, flags)
    what = target if norms or is_recording(target) else read_target(target, module, arguments)
    check_flags(what or "", flags, ("until_stable", "verify", "verify_against"))
    settings = load_clip_settings(flags, config, isinstance(what, Script))
    outputs = check_outputs(settings)
    stdout = reserve_stdout()
    report, error = judge(what, norms, settings)
    try:
        publish(report, settings, outputs, stdout, View.of(stdout))
    finally:
        if error:
            show_error(error)
    raise typer.Exit(report.exit_code)


def check_source(target: str | None, norms: Path | None, flags: Mapping[str, Any]) -> None:
    """Raise ConfigError unless there is one thing to judge, and the options suit it."""
    if target and norms:
        raise ConfigError("both TARGET and --norms are given", "give one of them: --norms runs nothing")
    if not target and not norms:
        raise ConfigError("neither TARGET nor --norms is given", "gradcheck recommend-clip train.py:build, say")
    refused = [f"--{name.replace('_', '-')}" for name in RUNNING if name in flags]
    if refused and (norms or is_recording(target)):
        raise ConfigError(
            f"nothing is run for {norms or target}, so it can't be given {', '.join(refused)}",
            "leave that out, or give path/to/file.py:callable as TARGET",
        )


def is_recording(target: str | None) -> bool:
    """Whether TARGET is a file that `--save` made, not something to run."""
    return Path(target or "").suffix.lower() == ".npz"


def judge(target: str | Script | None, norms: Path | None, settings: Settings) -> tuple[Report, GradcheckError | None]:
    """The report on a recording, on norms from a file, or on a run, for which alone torch is loaded."""
    if norms or (isinstance(target, str) and is_recording(target)):
        from gradcheck_cli.judgement import make_clip_report

        return make_clip_report(read(str(target), norms), settings), None
    from gradcheck_cli import pipeline
    from gradcheck_cli.cli.messages import progress_bar

    with progress_bar(settings.quiet) as watch:
        return pipeline.recommend_clip(target or "", settings, watch)


def read(target: str | None, norms: Path | None) -> Recording:
    """The recording to judge; where its run was clipped, its notes say so."""
    from dataclasses import replace

    from gradcheck_cli import archive
    from gradcheck_cli.norm_list import load_norms

    if norms:
        return load_norms(norms)
    recording = archive.load(Path(target or ""))
    series = recording.series
    if not (series.grad_norm_clipped < series.grad_norm * (1 - ROUNDING)).any():
        return recording
    note = "this run was clipped: the norms are those before clipping, but without it training would take another path"
    return replace(recording, run=replace(recording.run, notes=(*recording.run.notes, note)))
