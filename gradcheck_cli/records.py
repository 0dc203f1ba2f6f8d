"""The values that cross borders: frozen, plain, JSON round-trippable, without torch.

FORMAT_VERSION counts the layouts of saved recordings and JSON reports:
1  first release
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # these are made of records
    from gradcheck_cli.audit import LoopAudit
    from gradcheck_cli.clip_advice import ClipAdvice
    from gradcheck_cli.comparison import Comparison
    from gradcheck_cli.examination import Examination
    from gradcheck_cli.ranks import Ranks
    from gradcheck_cli.signals import Signals
    from gradcheck_cli.tape import NanTrace

FORMAT_VERSION = 1

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Severity(str, Enum):
    """How bad a finding is: `error` is certain and harmful, `warning` probably harmful, `info` worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        """0 for info, 1 for warning, 2 for error."""
        return {"info": 0, "warning": 1, "error": 2}[self.value]


@dataclass(frozen=True)
class Location:
    """A line of the user's source."""

    file: str
    line: int

    @classmethod
    def of(cls, file: str, line: int) -> Location:
        """Seen from the working directory, where the file is inside it."""
        try:
            return cls(str(Path(file).resolve().relative_to(Path.cwd())), line)
        except ValueError:
            return cls(file, line)


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter tensor. A tied parameter appears once; its other names are `aliases`.

    `group` is the index of its optimizer parameter group; None where it has none, or where that was not recorded.
    """

    name: str
    module: str
    shape: tuple[int, ...]
    numel: int
    dtype: str
    requires_grad: bool
    in_optimizer: bool
    aliases: tuple[str, ...] = ()
    group: int | None = None


@dataclass(frozen=True)
class ModuleInfo:
    """One module of the model, in registration order; `name` is "" for the root.

    `probe` is its column in the probe arrays, or None: it holds no parameters of its own, or was never called.
    Columns are numbered in the order of execution. `source` is where a user-defined class stands.
    """

    name: str
    type: str
    probe: int | None = None
    compiled: bool = False
    source: Location | None = None


@dataclass(frozen=True)
class RunInfo:
    """What was run, where and how."""

    target: str
    device: str
    precision: str
    seed: int | None
    accumulate: int = 1
    max_norm: float | None = None
    steps_requested: int = 0
    training: bool = True
    has_optimizer: bool = True
    optimizer: str = ""
    checkpoint: str = ""
    uses_scaler: bool = False
    ended: str = "completed"
    """completed | data-exhausted | interrupted | stop-above | nonfinite-loss | failed"""
    notes: tuple[str, ...] = ()
    location: Location | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    model: str = ""
    """Which one of several that a script trains."""
    sees_loss: bool = True
    """Whether the loss is known: that of a script which makes its gradients without `backward` is not."""


@dataclass(frozen=True)
class Series:
    """One value per optimizer step, every step of the run; arrays of shape (steps,), `lr` (steps, groups).

    Norms are L2 over all parameters, after unscaling; `grad_norm` before clipping, `grad_norm_clipped` after it
    (equal where nothing was clipped). `loss` is the mean over the accumulation window. `batch` is the index of
    the window's first batch within its epoch. `loss_scale` is NaN without a GradScaler. `seconds` is the whole
    step, `overhead` the part of it that gradcheck took. `nonfinite_inputs` counts elements of the batches, `examples`
    what they hold along their first dimension, over all calls of the model; 0 where that is not known.
    """

    loss: Floats
    grad_norm: Floats
    grad_norm_clipped: Floats
    lr: Floats
    seconds: Floats
    overhead: Floats
    skipped: Bools
    loss_scale: Floats
    batch: Ints
    epoch: Ints
    nonfinite_inputs: Ints
    examples: Ints

    def __len__(self) -> int:
        return len(self.loss)


@dataclass(frozen=True)
class ParameterStatistics:
    """Statistics of each parameter's gradient; arrays of shape (rows, parameters), one row per step in `steps`.

    Before clipping, after unscaling. Where the gradient was None, `has_gradient` is False and the values are NaN.
    Complex gradients are measured by their magnitude. `nonfinite` counts elements. `parameter_norm` is the
    parameter's own L2 norm, as it was in the forward pass of that step.
    """

    steps: Ints
    norm: Floats
    mean: Floats
    std: Floats
    max_abs: Floats
    zero_fraction: Floats
    nonfinite: Floats
    parameter_norm: Floats
    has_gradient: Bools


@dataclass(frozen=True)
class Probes:
    """What is measured on sampled steps only; one row per step in `steps`.

    `update_ratio` (rows, parameters): RMS of the update over RMS of the parameter; NaN without an update.
    `parameter_max` (rows, parameters): max |p| after the step.
    `output_rms`, `output_grad_rms` (rows, probed modules): RMS of each module's output, and of the loss gradient
    with respect to it, over all its calls in the step; NaN where it was not called or got no gradient.
    """

    steps: Ints
    update_ratio: Floats
    parameter_max: Floats
    output_rms: Floats
    output_grad_rms: Floats


@dataclass(frozen=True)
class Recording:
    """Everything that was measured in one run; the input of every diagnosis.

    `final_parameter_norm` (parameters,): L2 norm of each parameter after the last step.
    `nonfinite_inputs` says where in a batch the first non-finite values were, in words.
    `examination` is what `profile` measured after the run, `audit` what was seen of a script's own loop, `ranks` what
    each rank of a distributed run saw by itself.
    """

    run: RunInfo
    parameters: tuple[ParameterInfo, ...]
    modules: tuple[ModuleInfo, ...]
    series: Series
    statistics: ParameterStatistics
    probes: Probes
    final_parameter_norm: Floats
    nonfinite_input: str = ""
    signals: Signals | None = None
    examination: Examination | None = None
    audit: LoopAudit | None = None
    ranks: Ranks | None = None

    @property
    def steps(self) -> int:
        """How many optimizer steps were recorded."""
        return len(self.series)

    @property
    def probed(self) -> tuple[ModuleInfo, ...]:
        """The probed modules in the order of execution: column i of the probe arrays is `probed[i]`."""
        called = [module for module in self.modules if module.probe is not None]
        return tuple(sorted(called, key=lambda module: module.probe or 0))

    @property
    def trainable(self) -> tuple[ParameterInfo, ...]:
        """The parameters that required a gradient when the recording began, or were released and got one later."""
        there = self.statistics.has_gradient
        late = there.max(axis=0, initial=False) > there[:1].max(axis=0, initial=False)
        return tuple(one for one, has in zip(self.parameters, late, strict=True) if one.requires_grad or has)


@dataclass(frozen=True)
class Finding:
    """One thing that a rule found. `layer` and `step` are None where the finding is of the whole run.

    `because` are the fingerprints of findings that explain this one, `explains` of those that it explains.
    """

    code: str
    name: str
    severity: Severity
    message: str
    hint: str
    layer: str | None = None
    step: int | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    location: Location | None = None
    because: tuple[str, ...] = ()
    explains: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """What makes two findings the same one in two runs."""
        return f"{self.code}:{self.layer or ''}"


@dataclass(frozen=True)
class NotEvaluated:
    """A rule that could not judge this recording, or a part of it, and why."""

    code: str
    name: str
    reason: str


@dataclass(frozen=True)
class RuleInfo:
    """A rule's metadata; `documentation` is Markdown."""

    code: str
    name: str
    severity: Severity
    documentation: str

    @property
    def summary(self) -> str:
        """The first paragraph of "What it detects", on one line."""
        text = self.documentation.partition("## What it detects")[2].strip()
        return " ".join(text.partition("\n\n")[0].split())


@dataclass(frozen=True)
class Diagnosis:
    """What all rules say of one recording: findings, most severe first, and what was not evaluated."""

    findings: tuple[Finding, ...]
    not_evaluated: tuple[NotEvaluated, ...]


@dataclass(frozen=True)
class LayerSummary:
    """One module's own parameters together, medians over the recorded steps; NaN where there is nothing.

    `grad_rms` is sqrt(sum norm^2 / sum numel) per step; `grad_to_parameter` gradient norm over parameter norm;
    `update_ratio` update RMS over parameter RMS; `status` the worst severity of a finding that names the layer,
    or "ok", "frozen", "no gradient", "not recorded".
    """

    name: str
    type: str
    parameters: tuple[str, ...]
    numel: int
    grad_rms: float
    grad_to_parameter: float
    update_ratio: float
    zero_fraction: float
    output_rms: float
    output_grad_rms: float
    status: str
    codes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """Everything a renderer needs. `fail_on` is what made the exit code 1, if it is: error, warning or never.

    `ranks` are those of the recording; a trace has none, and brings them itself.
    """

    command: str
    run: RunInfo
    series: Series
    layers: tuple[LayerSummary, ...]
    diagnosis: Diagnosis
    rules: tuple[RuleInfo, ...]
    parameter_count: int
    trainable_count: int
    exit_code: int
    error: str = ""
    recording: Recording | None = None
    trace: NanTrace | None = None
    clip: ClipAdvice | None = None
    others: tuple[Report, ...] = ()
    comparison: Comparison | None = None
    fail_on: str = "error"
    ranks: Ranks | None = None
