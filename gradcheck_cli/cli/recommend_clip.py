"""gradcheck recommend-clip"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradcheck_cli.cli import gate_options as g
from gradcheck_cli.cli import options as o
from gradcheck_cli.cli import rank_options as r
from gradcheck_cli.cli.format_options import Format, Output, StepSummary
from gradcheck_cli.cli.log_options import Log
from gradcheck_cli.config_flags import as_flag
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
    "nproc",
    "strategy",
    "timeout",
    "verify",
    "verify_against",
    "log",
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
    nproc: r.Nproc = None,
    strategy: r.Strategy = None,
    timeout: r.Timeout = None,
    percentile: o.Percentile = None,
    horizon: o.Horizon = None,
    max_norm: o.JudgedNorm = None,
    verify: o.Verify = None,
    verify_against: o.VerifyAgainst = None,
    select: o.Select = None,
    ignore: o.Ignore = None,
    baseline: g.Baseline = None,
    accept: g.Accept = None,
    fail_on: o.FailOn = None,
    config: o.Config = None,
    format_: Format = None,
    output: Output = None,
    log: Log = None,
    save: o.Save = None,
    step_summary: StepSummary = None,
    write_baseline: g.WriteBaseline = None,
    quiet: o.Quiet = None,
) -> None:
    """Train without clipping, then say whether this run needs it, at which max_norm, and how sure that is."""
    flags = o.given(locals())
    from gradcheck_cli.cli.gate import keep, prepare_gate
    from gradcheck_cli.cli.messages import show_error
    from gradcheck_cli.cli.output import check_outputs, publish
    from gradcheck_cli.cli.ranks import check_ranks, finish
    from gradcheck_cli.cli.streams import reserve_stdout
    from gradcheck_cli.config import load_clip_settings
    from gradcheck_cli.config_targets import find_target
    from gradcheck_cli.report.view import View
    from gradcheck_cli.targets import Script, check_flags, check_verify

    check_source(target or module, norms, flags)
    nothing_to_run = bool(norms) or is_recording(target)
    what, own = (target, {}) if nothing_to_run else find_target(target, module, arguments, config)
    check_verify(what, flags)
    check_flags(what or "", flags)
    check_ranks(what, flags)
    settings = load_clip_settings(flags, config, own, of_script=isinstance(what, Script))
    outputs = check_outputs(settings)
    gate = prepare_gate("recommend-clip", settings)
    stdout = reserve_stdout()
    report, error = judge(what, norms, settings)
    report = gate.judge(report)
    try:
        publish(report, settings, outputs, stdout, View.of(stdout))
        keep(gate, report, settings)
    finally:
        if error:
            show_error(error)
    finish(report)


def check_source(target: str | None, norms: Path | None, flags: Mapping[str, Any]) -> None:
    """Raise ConfigError unless there is one thing to judge, and the options suit it."""
    if target and norms:
        raise ConfigError("both TARGET and --norms are given", "give one of them: --norms runs nothing")
    if not target and not norms:
        raise ConfigError("neither TARGET nor --norms is given", "gradcheck recommend-clip train.py:build, say")
    refused = [as_flag(name) for name in RUNNING if name in flags]
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
        from gradcheck_cli.judgement import join_reports, make_clip_report

        return join_reports([make_clip_report(one, settings) for one in read(str(target), norms)]), None
    from gradcheck_cli.cli.ranks import run

    return run("recommend_clip", target or "", settings)


def read(target: str | None, norms: Path | None) -> list[Recording]:
    """The recordings to judge, one for each model."""
    from gradcheck_cli import archive
    from gradcheck_cli.norm_list import load_norms

    return [load_norms(norms)] if norms else [noting_clips(one) for one in archive.load_all(Path(target or ""))]


def noting_clips(recording: Recording) -> Recording:
    """The recording; where its run was clipped, its notes say so."""
    from dataclasses import replace

    series = recording.series
    if not (series.grad_norm_clipped < series.grad_norm * (1 - ROUNDING)).any():
        return recording
    note = "this run was clipped: the norms are those before clipping, but without it training would take another path"
    return replace(recording, run=replace(recording.run, notes=(*recording.run.notes, note)))
