"""Options that commands share, declared once. None means: not given, so the configuration or the default decides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gradcheck_cli.cli.assignments import read_assignments
from gradcheck_cli.cli.completion import complete_name

RUN, MEASURE, JUDGE, OUTPUT = "What to run", "What to measure", "What to report", "Where to"
NO_SETTINGS = ("target", "script", "arguments", "module", "run", "norms", "config", "all_ops", "save_repro")
SHOWN = ("all_layers", "depth", "depth_plot")

Target = Annotated[
    str | None,
    typer.Argument(
        help="path/to/file.py:callable or package.module:callable; a script, train.py; or a name in the configuration.",
        show_default=False,
        autocompletion=complete_name,
    ),
]
ScriptPath = Annotated[str | None, typer.Argument(help="A script, train.py.", show_default=False)]
ScriptSteps = Annotated[
    int | None, typer.Option("--steps", help="End it after so many optimizer steps.", rich_help_panel=RUN)
]
Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="-- ARGUMENTS", help="The script's own, behind --.", show_default=False)
]
Module = Annotated[
    str | None,
    typer.Option(
        "-m", "--module", metavar="NAME", help="Run a module as a script, like python -m.", rich_help_panel=RUN
    ),
]
Steps = Annotated[
    int | None, typer.Option(help="Optimizer steps to run. (default 50; a script: to its end)", rich_help_panel=RUN)
]
TraceSteps = Annotated[
    int | None,
    typer.Option(
        "--steps", help="Optimizer steps to watch. (default 1000 or one epoch, if shorter)", rich_help_panel=RUN
    ),
]
ClipTarget = Annotated[
    str | None,
    typer.Argument(
        help="path/to/file.py:callable or package.module:callable; a script, train.py; or a recording, run.npz.",
        show_default=False,
        autocompletion=complete_name,
    ),
]
ClipSteps = Annotated[
    int | None,
    typer.Option(
        "--steps", help="Optimizer steps to run. (default 300, at most 5000 until stable)", rich_help_panel=RUN
    ),
]
UntilStable = Annotated[
    bool | None,
    typer.Option(
        "--until-stable",
        help="End when the percentile is known to ±15 %, or with --steps.",
        rich_help_panel=RUN,
        show_default=False,
    ),
]
Norms = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Run nothing: a CSV or JSON file of gradient norms, in place of TARGET.",
        rich_help_panel=RUN,
        show_default=False,
    ),
]
Percentile = Annotated[
    float | None,
    typer.Option(metavar="P", help="Which percentile of the norms to clip at. (default 95)", rich_help_panel=MEASURE),
]
Horizon = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Predict the clip rate for so many further steps. (default 500)", rich_help_panel=MEASURE
    ),
]
JudgedNorm = Annotated[
    float | None,
    typer.Option("--max-norm", metavar="MAX_NORM", help="Also judge this value.", rich_help_panel=MEASURE),
]
Verify = Annotated[
    bool | None,
    typer.Option(
        "--verify",
        help="Train again from the same start with the value, and compare.",
        rich_help_panel=MEASURE,
        show_default=False,
    ),
]
VerifyAgainst = Annotated[
    list[str] | None,
    typer.Option(
        metavar="VALUES", help="Also train with these: numbers, zclip, autoclip (1.0,zclip).", rich_help_panel=MEASURE
    ),
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps. (default auto)", rich_help_panel=RUN)]
Precision = Annotated[
    str | None, typer.Option(help="fp32, bf16 or fp16, by autocast. (default fp32)", rich_help_panel=RUN)
]
Accumulate = Annotated[
    int | None, typer.Option(metavar="K", help="Micro-batches per optimizer step. (default 1)", rich_help_panel=RUN)
]
Clip = Annotated[
    float | None, typer.Option(metavar="MAX_NORM", help="Clip the global gradient norm.", rich_help_panel=RUN)
]
Seed = Annotated[int | None, typer.Option(help="Seed for Python, NumPy and torch. (default 0)", rich_help_panel=RUN)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Argument for the callable, read as YAML.", rich_help_panel=RUN),
]
OptimizerName = Annotated[
    str | None,
    typer.Option(
        "--optimizer", metavar="NAME", help="One of torch.optim, instead of the target's.", rich_help_panel=RUN
    ),
]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Its learning rate.", rich_help_panel=RUN)]
Checkpoint = Annotated[str | None, typer.Option(metavar="FILE", help="Load these weights first.", rich_help_panel=RUN)]
Eval = Annotated[
    bool | None, typer.Option("--eval", help="Keep the model in eval mode.", rich_help_panel=RUN, show_default=False)
]
Eager = Annotated[
    bool | None,
    typer.Option("--eager", help="Run compiled modules uncompiled.", rich_help_panel=RUN, show_default=False),
]
ProbeEvery = Annotated[
    int | None,
    typer.Option(metavar="N", help="Look into modules every N steps. (default 10)", rich_help_panel=MEASURE),
]
MaxRecordedSteps = Annotated[
    int | None,
    typer.Option(metavar="N", help="Thin per-layer rows beyond. (default 10000)", rich_help_panel=MEASURE),
]
StopAbove = Annotated[
    float | None, typer.Option(metavar="NORM", help="End at the first larger gradient norm.", rich_help_panel=MEASURE)
]
KeepGoing = Annotated[
    bool | None,
    typer.Option("--keep-going", help="Go on after a non-finite loss.", rich_help_panel=MEASURE, show_default=False),
]
CheckScale = Annotated[
    bool | None,
    typer.Option(
        "--check-scale",
        help="Afterwards, hold the gradient against finite differences of the loss.",
        rich_help_panel=MEASURE,
        show_default=False,
    ),
]
Large = Annotated[
    float | None, typer.Option(metavar="NORM", help="Threshold of GC107. (default 100)", rich_help_panel=JUDGE)
]
Tiny = Annotated[
    float | None, typer.Option(metavar="NORM", help="Threshold of GC108. (default 1e-8)", rich_help_panel=JUDGE)
]
Select = Annotated[
    list[str] | None, typer.Option(metavar="CODES", help="Only these rules (GC1, GC203).", rich_help_panel=JUDGE)
]
Ignore = Annotated[list[str] | None, typer.Option(metavar="CODES", help="Not these rules.", rich_help_panel=JUDGE)]
FailOn = Annotated[
    str | None,
    typer.Option(help="error, warning or never: what makes the exit code 1. (default error)", rich_help_panel=JUDGE),
]
Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Instead of gradcheck.yaml or pyproject.toml.", rich_help_panel=JUDGE),
]
Save = Annotated[
    str | None,
    typer.Option(metavar="RUN.npz", help="Keep the recording, for `gradcheck report`.", rich_help_panel=OUTPUT),
]
AllLayers = Annotated[
    bool,
    typer.Option(
        "--all",
        help="Fold no layers; without a TARGET: all that the configuration names.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
Depth = Annotated[
    int | None, typer.Option(min=1, help="Join layers by so many parts of their names.", rich_help_panel=OUTPUT)
]
DepthPlot = Annotated[
    bool | None,
    typer.Option(
        "--depth-plot/--no-depth-plot",
        help="Draw how signal and gradient change with depth. (default from 110 columns on)",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
AllOps = Annotated[
    bool,
    typer.Option(
        "--all-ops", help="Also list every operation of the replayed step.", rich_help_panel=OUTPUT, show_default=False
    ),
]
SaveRepro = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Write a folder that reproduces the step without your data.", rich_help_panel=OUTPUT
    ),
]
Quiet = Annotated[
    bool | None,
    typer.Option("-q", "--quiet", help="No progress, no notices.", rich_help_panel=OUTPUT, show_default=False),
]


def given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Of a command's arguments, as `locals()` has them, the flags that were given, under the names of `Settings`."""
    flags = {name.rstrip("_"): value for name, value in arguments.items() if name not in (*NO_SETTINGS, *SHOWN)}
    flags["set"] = read_assignments(flags.get("set"))
    saved = flags.pop("save", None)
    flags["output"] = [*(flags.get("output") or []), *([saved] if saved else [])]
    return {name: value for name, value in flags.items() if value not in (None, [], {})}
