"""What a replayed step did, operation by operation, and what was concluded from it: frozen, plain, without torch."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from gradcheck_cli.records import Location

PHASES = ("forward", "loss", "backward", "clip", "optimizer")
SOURCES = ("batch", "parameter", "buffer", "gradient", "state", "constant")


@dataclass(frozen=True)
class Frame:
    """A line of source. `code` is the line, stripped; `expression` the part of it that was running, where Python
    tells (3.11 on), over several lines if need be, else "". `called_from` is the user's line where this one is a
    library's.
    """

    location: Location
    function: str
    code: str
    expression: str = ""
    called_from: Location | None = None


@dataclass(frozen=True)
class TensorState:
    """The values of one tensor at one moment, as counts of elements; `low` and `high` over the finite ones.

    `ones` counts |x| = 1. `bad_rows` are the first indices along the first dimension that hold a NaN or an Inf, at
    most 64. Complex tensors: counts of elements, a part of which is so; ranges over both parts.
    """

    shape: tuple[int, ...]
    dtype: str
    numel: int
    nan: int = 0
    positive_inf: int = 0
    negative_inf: int = 0
    zeros: int = 0
    negatives: int = 0
    ones: int = 0
    low: float = float("nan")
    high: float = float("nan")
    bad_rows: tuple[int, ...] = ()

    @property
    def inf(self) -> int:
        """How many elements are infinite."""
        return self.positive_inf + self.negative_inf

    @property
    def finite(self) -> bool:
        """Whether every element is."""
        return not (self.nan or self.inf)

    @property
    def kind(self) -> str:
        """nan, inf or finite: the worst that is in it."""
        return "nan" if self.nan else "inf" if self.inf else "finite"


@dataclass(frozen=True)
class Operand:
    """A tensor that an operation read. `argument` is the schema's name for it ("self", "weight").

    `producer` is the index of the operation that wrote it last, or -1: then it came from outside the step, and
    `source` says from where: "parameter:encoder.weight", "buffer:norm.running_var", "batch:[0]['x']",
    "gradient:encoder.weight" (of earlier micro-batches), "state:exp_avg of encoder.weight", "constant:".
    `nan_from` and `inf_from` are the operations that wrote those NaN and infinite elements of it that the
    operation's non-finite outputs can have come from; -1 among them stands for `source`. Empty for finite outputs.
    """

    argument: str
    state: TensorState
    producer: int = -1
    source: str = ""
    nan_from: tuple[int, ...] = ()
    inf_from: tuple[int, ...] = ()


@dataclass(frozen=True)
class Operation:
    """One call of an operator of torch.

    `name` is "aten::sqrt", `overload` "default". `phase` is one of PHASES. `module` is the innermost module's name
    ("" for the root or none), `module_type` its class. `node` is the autograd node that ran it ("SqrtBackward0"), or
    "", and `forward` the index of the operation whose derivative that is, or -1. `recomputed`: run again inside
    backward by gradient checkpointing. `constants` are the other arguments by their schema names, plain values as
    text. `writes_constant`: a non-finite value was among its arguments as a number (a -inf mask).
    """

    index: int
    name: str
    overload: str
    phase: str
    micro_batch: int
    inputs: tuple[Operand, ...]
    outputs: tuple[TensorState, ...]
    module: str = ""
    module_type: str = ""
    node: str = ""
    forward: int = -1
    frame: Frame | None = None
    recomputed: bool = False
    constants: tuple[tuple[str, str], ...] = ()
    writes_constant: bool = False

    @property
    def state(self) -> TensorState:
        """The worst of its outputs."""
        return max(self.outputs, key=lambda state: (state.nan > 0, state.inf), default=TensorState((), "", 0))


@dataclass(frozen=True)
class Sink:
    """A value that matters and is not finite: `what` is loss, gradient, parameter, buffer or error, `name` whose.

    `nan_from` and `inf_from` are as in `Operand`, for the elements of the value.
    """

    what: str
    name: str
    state: TensorState
    nan_from: tuple[int, ...] = ()
    inf_from: tuple[int, ...] = ()
    source: str = ""
    micro_batch: int = 0


@dataclass(frozen=True)
class Tape:
    """All operations of one replayed step, in order, and the sinks that it ended in."""

    step: int
    operations: tuple[Operation, ...]
    sinks: tuple[Sink, ...]


@dataclass(frozen=True)
class NanOrigin:
    """Where the first harmful non-finite value of a step came from.

    `phase` is one of PHASES, or data, parameter or buffer for a value that came from outside the step. `operation`
    is its index on the tape, or -1. `op` is the forward operator even for a fault in its derivative, whose
    `autograd_node` is then set. `source` names the batch field, parameter or buffer. `cause` is an identifier of the
    catalogue, or "". `fix` is code where there is one. `samples` of the `batch_size` in the micro-batch make it
    alone; `samples_left` that may were not tried. `sink` is in words, `spread` how many parameters of how many ended
    up non-finite. `path` leads from the origin to the sink, by operator names. `contributors` are in words.
    `input_stats` are by argument.
    """

    step: int
    micro_batch: int
    phase: str
    kind: str
    op: str
    operation: int = -1
    autograd_node: str = ""
    module: str = ""
    module_type: str = ""
    frame: Frame | None = None
    source: str = ""
    cause: str = ""
    explanation: str = ""
    fix: str = ""
    verified: bool = False
    samples: tuple[int, ...] = ()
    samples_left: int = 0
    batch_size: int = 0
    sink: str = ""
    sink_kind: str = ""
    spread: tuple[int, int] = (0, 0)
    path: tuple[str, ...] = ()
    contributors: tuple[str, ...] = ()
    input_stats: tuple[tuple[str, TensorState], ...] = ()

    def __str__(self) -> str:
        where = f"{self.frame.location.file}:{self.frame.location.line}" if self.frame else self.source
        return f"{self.phase} {self.op or self.source} at {where}"


@dataclass(frozen=True)
class NanTrace:
    """What nan-trace found in a run.

    `steps` is how many steps were watched, `step` the one that failed, or -1 for a clean run. `sinks` are what was
    seen to be non-finite; `origins` are empty when the replay did not show it again: then `notes` say what differed.
    `error` is the first line of the exception that torch raised instead of a NaN. `skipped` counts steps that a
    GradScaler skipped. `operations` is the whole tape of the step. `rank` is the one of several on which it began,
    whose batches and values these are; -1 for a run of one process.
    """

    steps: int
    step: int = -1
    sinks: tuple[Sink, ...] = ()
    origins: tuple[NanOrigin, ...] = ()
    reproduced: bool = True
    notes: tuple[str, ...] = ()
    error: str = ""
    skipped: int = 0
    operations: tuple[Operation, ...] = ()
    rank: int = -1

    @property
    def clean(self) -> bool:
        """Whether everything stayed finite."""
        return self.step < 0


COMPILED = "_orig_mod"
"""What torch.compile inserts into names."""


def name_plainly(value: Any) -> Any:
    """A trace, or a part of one, with the names that the user's own code has for modules and parameters."""
    if isinstance(value, str):
        return "" if value == COMPILED else value.replace(f"{COMPILED}.", "")
    if isinstance(value, tuple):
        return tuple(map(name_plainly, value))
    if not is_dataclass(value) or isinstance(value, (type, Frame, TensorState)):
        return value
    return replace(value, **{field.name: name_plainly(getattr(value, field.name)) for field in fields(value)})
