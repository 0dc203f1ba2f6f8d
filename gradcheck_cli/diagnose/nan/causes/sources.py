"""Values that came from outside the step, and those that torch refused."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import ANY, Cause
from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.nan.rewriting import snippet
from gradcheck_cli.diagnose.nan.wording import WHAT
from gradcheck_cli.tape import TensorState

OUTSIDE = (*ANY, "data", "parameter", "buffer")
RUNNING = ("running_mean", "running_var")


def read_value(evidence: Evidence) -> TensorState | None:
    """The bad value, as it was first read; else as it ended."""
    read = (o.state for operation in evidence.tape.operations for o in operation.inputs if o.source == evidence.source)
    ended = (sink.state for sink in evidence.tape.sinks if sink.source == evidence.source)
    return next((state for state in (*read, *ended) if not state.finite), None)


def describe(evidence: Evidence) -> str:
    """Such as: 3 of 32 elements of batch[0]['x'] are NaN, in rows 1, 4."""
    kind, _, name = evidence.source.partition(":")
    where_from = f"{kind}{'' if kind == 'batch' else ' '}{name}" if name else "a tensor from outside the step"
    state = read_value(evidence)
    if state is None:
        return f"{where_from} holds elements that are not finite"
    number = state.nan if evidence.kind == "nan" and state.nan else state.inf
    what = WHAT["nan" if evidence.kind == "nan" and state.nan else "inf"]
    rows = ", ".join(str(row) for row in state.bad_rows[:8]) + (", …" if len(state.bad_rows) > 8 else "")
    where = f", in row{'s' if len(state.bad_rows) > 1 else ''} {rows}" if state.bad_rows and state.numel > 1 else ""
    return f"{number} of {state.numel} elements of {where_from} {'is' if number == 1 else 'are'} {what}{where}"


def repair_buffer(evidence: Evidence) -> str:
    if evidence.kind == "inf":
        return "table = table.clamp(min=1e-20)  # before the logarithm or the division that makes the buffer"
    return "self.register_buffer('mean', torch.nanmean(table, dim=0))"


def is_whole_column(evidence: Evidence) -> bool:
    """Whether every sample has it: as where a constant column was divided by its standard deviation of 0."""
    state = read_value(evidence)
    return bool(state and len(state.shape) > 1 and state.shape[0] > 1 and len(state.bad_rows) == state.shape[0])


def explain_batch(evidence: Evidence) -> str:
    why = "; every sample has it, as where a constant column is divided by its standard deviation of 0"
    return describe(evidence) + (why if is_whole_column(evidence) else "")


def repair_batch(evidence: Evidence) -> str:
    if is_whole_column(evidence):
        return "x = (x - x.mean(0)) / x.std(0).clamp(min=1e-6)"
    return "keep = torch.isfinite(x).flatten(1).all(1)  # in the dataset: find and drop or fill these samples"


BATCH = Cause(
    id="batch-nonfinite",
    title="NaN or Inf in the batch",
    phases=("data",),
    ops=(),
    applies_if=lambda e: e.source.startswith("batch:"),
    what_happens=(
        "A missing value, a division by 0 in the preprocessing (a constant column that is standardised), or a corrupt"
        " file. One such element makes the loss and every gradient NaN."
    ),
    how_to_fix="Check the dataset with `torch.isfinite`; fill, drop or clip at the place where it arises.",
    because=explain_batch,
    repair=repair_batch,
)

PARAMETER = Cause(
    id="parameter-nonfinite",
    title="NaN or Inf in a parameter before the step",
    phases=("parameter",),
    ops=(),
    what_happens=(
        "The parameter was not finite when the step began: memory from `torch.empty` that nothing was written to, a"
        " checkpoint of a run that had diverged, or an initialisation that divides by 0."
    ),
    how_to_fix="Initialise the parameter, or load an earlier checkpoint.",
    because=lambda e: f"{describe(e)} before the step",
    repair=snippet("self.weight = nn.Parameter(torch.zeros(shape))  # torch.empty holds whatever was in memory"),
)

RUNNING_STATISTICS = Cause(
    id="running-statistics-nonfinite",
    title="Running statistics of a normalisation that are poisoned",
    phases=("buffer",),
    ops=(),
    applies_if=lambda e: e.source.endswith(RUNNING),
    what_happens="A batch norm keeps averages for ever: one batch with an Inf makes them NaN from that step on.",
    how_to_fix="Reset them with `reset_running_stats()` and remove the batch that did it.",
    because=lambda e: f"{describe(e)}; an earlier batch put it there and no later one removes it",
    repair=snippet("norm.reset_running_stats()"),
)

BUFFER = Cause(
    id="buffer-nonfinite",
    title="NaN or Inf in a buffer before the step",
    phases=("buffer",),
    ops=(),
    what_happens="Statistics computed from data with a gap, a scale of 1 / 0, memory that nothing was written to.",
    how_to_fix="Check the buffer where it is registered.",
    because=lambda e: f"{describe(e)} before the step",
    repair=repair_buffer,
)

STATE = Cause(
    id="optimizer-state-nonfinite",
    title="NaN or Inf in the optimizer's state before the step",
    phases=OUTSIDE,
    ops=(),
    applies_if=lambda e: e.source.startswith("state:"),
    what_happens="A momentum or an average of squares became Inf in an earlier step, or was loaded so.",
    how_to_fix="Make the optimizer anew, and clip gradients.",
    because=lambda e: f"{describe(e)} before the step",
    repair=snippet("optimizer.state.clear()"),
)

GRADIENT = Cause(
    id="gradient-nonfinite",
    title="NaN or Inf in a gradient from before",
    phases=OUTSIDE,
    ops=(),
    applies_if=lambda e: e.source.startswith("gradient:"),
    what_happens="The gradient of an earlier micro-batch or step was not finite and was added to.",
    how_to_fix="Find where that one came from; call `optimizer.zero_grad()` after a step that is skipped.",
    because=lambda e: f"{describe(e)} before this micro-batch",
    repair=snippet("optimizer.zero_grad(set_to_none=True)"),
)

CONSTANT = Cause(
    id="constant-nonfinite",
    title="NaN or Inf in a tensor from outside the step",
    phases=OUTSIDE,
    ops=(),
    applies_if=lambda e: bool(e.source),
    what_happens="A tensor that is neither batch nor parameter nor buffer was not finite when the step began.",
    how_to_fix="Check it where it is made.",
    because=lambda e: f"{describe(e)} before the step",
    repair=snippet("assert torch.isfinite(x).all()  # where the tensor is made"),
)

REFUSED = Cause(
    id="refused-value",
    title="A value that torch refused",
    phases=OUTSIDE,
    ops=(),
    refusal="",
    what_happens=(
        "Some operators check their input and raise in place of making a NaN: distributions, `binary_cross_entropy`"
        " outside [0, 1], `multinomial` of a NaN, a mask value that half precision does not hold."
    ),
    how_to_fix="Keep the input in the range that the message names.",
    because=lambda e: "torch refused the values: they are outside of what the operator takes",
    repair=snippet("x = x.clamp(1e-6, 1 - 1e-6)  # to the range that the message names"),
)

SOURCES = (BATCH, PARAMETER, RUNNING_STATISTICS, BUFFER, STATE, GRADIENT, CONSTANT)
REFUSALS = (REFUSED,)
