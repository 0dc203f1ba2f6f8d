"""What is said where nothing more specific applies: only what the numbers show."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import BACKWARD, FORWARD, Cause
from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.nan.naming import short_name
from gradcheck_cli.diagnose.nan.rewriting import snippet
from gradcheck_cli.diagnose.nan.wording import infinite_inputs, largest, result, span
from gradcheck_cli.tape import TensorState

LARGE = 1e9
GROWING = (
    *("mul", "add", "sub", "rsub", "sum", "cumsum", "prod", "cumprod", "pow", "float_power", "square", "dot", "mean"),
    *("mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "mv", "convolution", "einsum", "addcmul", "ldexp", "cosh"),
)
DIVIDING = ("div", "true_divide", "reciprocal", "rsqrt", "log")
"""Operators in derivatives that are infinite where what they divide by, or take the logarithm of, is 0."""


def reads_infinity(evidence: Evidence) -> bool:
    return evidence.kind == "nan" and any(not operand.state.finite for operand in evidence.inputs)


def repair_infinity(evidence: Evidence) -> str:
    """Log-probabilities of -inf stay very small; other numbers become 0."""
    if evidence.op.startswith(("log", "softmax")):
        return "x = x.clamp(min=-1e4)  # before this operator: a finite number in place of -inf"
    return "x = torch.where(torch.isfinite(x), x, 0.0)  # before this operator: 0 where nothing was written"


def magnitude(evidence: Evidence) -> float:
    ends = [abs(v) for o in evidence.inputs for v in (o.state.low, o.state.high) if v == v]
    return max((*ends, evidence.largest_constant))


def has_pole(evidence: Evidence) -> bool:
    """An Inf from numbers that are too small to overflow."""
    return evidence.kind == "inf" and evidence.op not in GROWING and not evidence.low_precision and is_small(evidence)


def is_small(evidence: Evidence) -> bool:
    return magnitude(evidence) < LARGE


def zero_divisor(evidence: Evidence) -> TensorState | None:
    """What the derivative divides by, where that is 0."""
    operation = evidence.operation
    if operation is None or not evidence.derivative or short_name(operation.name) not in DIVIDING:
        return None
    state = operation.inputs[-1].state if operation.inputs else None
    return state if state and state.zeros else None


def explain_slope(evidence: Evidence) -> str:
    state = zero_divisor(evidence) or TensorState((), "", 0)
    many = f"{state.zeros} of {state.numel} of them are" if state.numel > 1 else "it is"
    return f"the derivative of {evidence.op} divides by numbers that its inputs make 0 ({many}): {span(evidence.input)}"


def explain_gradient(evidence: Evidence) -> str:
    came = f"the gradient that came in is {span(evidence.gradient)}, " if evidence.gradient else ""
    return (
        f"the derivative of {evidence.op} is infinite in {evidence.dtype or 'its format'}: {came}its inputs reach"
        f" {largest(*(operand.state for operand in evidence.inputs))}"
    )


def repair_gradient(evidence: Evidence) -> str:
    if evidence.half:
        return "scaler = torch.amp.GradScaler()  # lowers the loss scale at an Inf; clipping comes too late for that"
    return "loss = loss * 1e-3  # a smaller loss scale: clipping cannot repair a gradient that is Inf already"


OVER_INFINITY = Cause(
    id="operator-over-infinity",
    title="An operator that reads Inf and makes NaN of it",
    phases=(*FORWARD, *BACKWARD, "clip"),
    ops=(),
    applies_if=reads_infinity,
    what_happens=(
        "Inf that was written on purpose (the start of a maximum, the logarithm of 0, a mask) is fine until something"
        " subtracts or multiplies it: inf - inf and 0 · inf are NaN, in the value or only in the derivative."
    ),
    how_to_fix="Put a finite number in place of the Inf before this operator, or leave such elements out.",
    because=lambda e: (
        f"{infinite_inputs(e)}, and {'the derivative of ' if e.derivative else ''}{e.op} makes NaN of them"
        " (inf - inf or 0 · inf)"
    ),
    repair=repair_infinity,
)

INFINITE_RESULT = Cause(
    id="infinite-result",
    title="An operator that is infinite at its input",
    phases=FORWARD,
    ops=(),
    applies_if=has_pole,
    what_happens="The inputs are ordinary numbers and the result is infinite: the operator has a pole there.",
    how_to_fix="Keep the input away from the pole, before the operator.",
    because=lambda e: f"{result(e, e.op)}, although its first input is {span(e.input)}",
    repair=snippet("x = x.clamp(min=1e-6)  # before this operator, away from where it is infinite"),
)

OVERFLOW = Cause(
    id="overflow",
    title="A result beyond the number format",
    phases=(*FORWARD, "clip"),
    ops=(),
    applies_if=lambda e: e.kind == "inf",
    what_happens=(
        "Finite inputs gave a result beyond the format (3.4e38 in float32). Activations that large mean that the"
        " training diverged earlier, or that an input is out of range."
    ),
    how_to_fix="Look at the inputs' range; normalise, clip gradients, lower the learning rate.",
    because=lambda e: (
        f"{result(e)}: the inputs of {e.op} reach {largest(*(o.state for o in e.inputs))}, and the result is beyond"
        f" {e.dtype or 'the format'}"
    ),
    repair=snippet("x = F.layer_norm(x, x.shape[-1:])  # before this operator"),
)

NOT_A_NUMBER = Cause(
    id="undefined-result",
    title="An operator that has no value there",
    phases=(*FORWARD, "clip"),
    ops=(),
    what_happens="The operator is not defined for these inputs, or inf - inf or 0 · inf arose inside of it.",
    how_to_fix="Look at the inputs' range, and keep them where the operator is defined.",
    because=lambda e: (
        f"{result(e, e.op)}, from inputs that are finite ({span(e.input)}): it has no value there, or overflowed inside"
    ),
    repair=snippet("x = x.clamp(min=1e-6)  # before this operator, to where it is defined"),
)

INFINITE_SLOPE = Cause(
    id="infinite-slope",
    title="A derivative that divides by 0",
    phases=BACKWARD,
    ops=(),
    applies_if=lambda e: zero_divisor(e) is not None,
    what_happens="The value is finite, but the slope at this input is infinite: its formula divides by 0 there.",
    how_to_fix="Keep the input away from the point in question, before the operator.",
    because=explain_slope,
    repair=snippet("x = x.clamp(min=1e-6)  # before the operator, away from where its slope is infinite"),
)

GRADIENT_OVERFLOW = Cause(
    id="gradient-overflow",
    title="The gradient grew beyond the number format",
    phases=BACKWARD,
    ops=(),
    applies_if=lambda e: e.kind == "inf",
    what_happens=(
        "Gradients are products along the network. With large inputs, many recurrent steps, a loss that is multiplied"
        " by much, or float16 (which ends at 65504) such a product overflows although every factor is finite."
    ),
    how_to_fix=(
        "Scale inputs and loss to about 1, lower the loss scale, use bfloat16. Clipping comes too late: the norm of an"
        " infinite gradient is infinite."
    ),
    because=explain_gradient,
    repair=repair_gradient,
)

NAN_IN_DERIVATIVE = Cause(
    id="nan-in-derivative",
    title="A derivative that is not defined",
    phases=BACKWARD,
    ops=(),
    what_happens="The value is finite, its derivative at this input is 0 / 0, inf - inf or 0 · inf.",
    how_to_fix="Keep the input away from the point in question, before the operator.",
    because=lambda e: f"the derivative of {e.op} is NaN at its inputs, the first of which is {span(e.input)}",
    repair=snippet("x = x.clamp(min=1e-6)  # before the operator"),
)

GENERALS = (
    OVER_INFINITY,
    INFINITE_SLOPE,
    GRADIENT_OVERFLOW,
    NAN_IN_DERIVATIVE,
    INFINITE_RESULT,
    OVERFLOW,
    NOT_A_NUMBER,
)
