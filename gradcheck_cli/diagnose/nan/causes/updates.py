"""Faults in the optimizer's step and in clipping."""

from __future__ import annotations

import re

from gradcheck_cli.diagnose.nan.cause import Cause
from gradcheck_cli.diagnose.nan.divisors import divisor_zero, explain
from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.nan.naming import short_name
from gradcheck_cli.diagnose.nan.rewriting import rewrite, snippet
from gradcheck_cli.diagnose.nan.wording import largest, result, share, span

OPTIMIZER = ("optimizer",)
ADAPTIVE = r"\b(Adam|AdamW|Adamax|NAdam|RAdam|SparseAdam|Adagrad|Adadelta|RMSprop)\("
FACTORS = ("lr", "alpha", "value", "scalar", "scalars", "other", "weight")
FUSED = ("fused_adam", "fused_adamw", "fused_adagrad")
NORMS = ("norm", "linalg_vector_norm", "stack")


def divides_by_zero(evidence: Evidence) -> bool:
    if evidence.op in FUSED:
        return is_underflow(evidence) or (evidence.constant("eps") or 0.0) < 1e-30
    divisor = evidence.state("tensor2") or evidence.state("other")
    return bool(divisor and divisor.zeros)


def is_root_and_eps(evidence: Evidence) -> bool:
    """sqrt(v) + eps as the divisor, or the name of one of torch's optimizers that have it."""
    if evidence.op in FUSED or re.search(ADAPTIVE, evidence.text):
        return True
    root = evidence.made_by("add", argument="tensor2" if evidence.state("tensor2") else "other")
    return any(short_name(maker.name) in ("sqrt", "div") for maker in evidence.makers_of(root))


def repair_eps(evidence: Evidence) -> str:
    """With the optimizer that the user's line names."""
    found = re.search(ADAPTIVE, evidence.text)
    return f"torch.optim.{found.group(1) if found else 'Adam'}(model.parameters(), eps=1e-8)"


def bad_number(evidence: Evidence) -> tuple[str, str] | None:
    """The name and text of a NaN or Inf among the plain numbers of an operation."""
    constants = evidence.operation.constants if evidence.operation else ()
    return next((pair for pair in constants if pair[0] in FACTORS and re.search(r"\b(nan|inf)\b", pair[1])), None)


def explain_number(evidence: Evidence) -> str:
    name, text = bad_number(evidence) or ("", "")
    what = "NaN" if "nan" in text else "infinite"
    steps = evidence.inputs and evidence.inputs[0].source.startswith("parameter:")
    if name == "lr" or (steps and name in ("alpha", "value", "scalar", "scalars")):
        return f"the learning rate is {what}: {result(evidence, evidence.op)}"
    return f"a number that the optimizer works with is {what} ({name} of {evidence.op}): a learning rate or a decay"


def writes_weight(evidence: Evidence) -> bool:
    """Whether what overflowed is a weight, and no average that the optimizer keeps."""
    sources = [operand.source for operand in evidence.inputs[:1]]
    sources += [operand.source for maker in evidence.makers() for operand in maker.inputs[:1]]
    return any(source.startswith("parameter:") for source in sources)


def is_centered(evidence: Evidence) -> bool:
    return evidence.kind == "nan" and bool(evidence.input.negatives) and evidence.made_by("addcmul") is not None


def is_underflow(evidence: Evidence) -> bool:
    """An eps above 0 that float16 rounds to 0."""
    given = evidence.made_by("add", argument="tensor2")
    eps = evidence.constant("eps") if evidence.op in FUSED else added(given.constants if given else ())
    return evidence.half and eps != 0


def added(constants: tuple[tuple[str, str], ...]) -> float | None:
    """The number that was added, where it is known."""
    values = dict(constants)
    try:
        return float(values.get("scalar", values.get("other", "")))
    except ValueError:
        return None


def explain_division(evidence: Evidence) -> str:
    if evidence.op in FUSED:
        return f"the running mean of squared gradients is 0: {result(evidence)}"
    return share(evidence, "zeros", "tensor2" if evidence.state("tensor2") else "other", "roots of squared gradients")


EPS_UNDERFLOW = Cause(
    id="adam-eps-underflow",
    title="An eps that float16 rounds to 0",
    phases=OPTIMIZER,
    ops=("addcdiv", "div", *FUSED),
    applies_if=lambda e: divides_by_zero(e) and is_underflow(e) and is_root_and_eps(e),
    what_happens=(
        "With parameters in float16 the optimizer's state is float16 too: eps = 1e-8 is 0 there, and squares of"
        " gradients below 2e-4 are 0. The update is then 0 / 0 or m / 0."
    ),
    how_to_fix="Keep the parameters in float32 and use autocast, or set eps to at least 1e-4.",
    because=lambda e: f"{explain_division(e)}, and eps is 0 in float16",
    repair=snippet("torch.optim.Adam(model.float().parameters(), eps=1e-8)  # and autocast for float16"),
)

EPS_ZERO = Cause(
    id="adam-eps-zero",
    title="An optimizer without eps",
    phases=OPTIMIZER,
    ops=("addcdiv", "div", *FUSED),
    applies_if=lambda e: divides_by_zero(e) and is_root_and_eps(e),
    what_happens="Adam divides by sqrt(v) + eps. A parameter whose gradients were all 0 has v = 0: 0 / 0.",
    how_to_fix="Leave eps at its default of 1e-8.",
    because=lambda e: f"{explain_division(e)}, and eps is 0",
    repair=repair_eps,
)

LEARNING_RATE = Cause(
    id="learning-rate-nonfinite",
    title="A learning rate that is NaN or infinite",
    phases=OPTIMIZER,
    ops=(),
    applies_if=lambda e: bad_number(e) is not None,
    what_happens=(
        "The gradients are fine, but the number they are multiplied by is not: a schedule that divides by a number of"
        " steps of 0, or takes the root or cosine of what is not finite."
    ),
    how_to_fix="Look at what the schedule gives at this step, and at its lengths (warm-up, total, period).",
    because=explain_number,
    repair=snippet("print(step, scheduler.get_last_lr())  # look at the schedule: it divides by 0 at this step"),
)

CENTERED = Cause(
    id="centered-variance-negative",
    title="A centered RMSprop whose variance is negative",
    phases=OPTIMIZER,
    ops=("sqrt",),
    applies_if=is_centered,
    what_happens=(
        "Centered RMSprop takes the root of the average of squares minus the square of the average. Where these are"
        " nearly equal, rounding makes the difference negative, and its root NaN; eps is added only after the root."
    ),
    how_to_fix="Use `centered=False`; a larger alpha makes it less likely.",
    because=lambda e: (
        f"{share(e, 'negatives', noun='variances')} (down to {e.input.low:.4g}): the average of squares minus the"
        " square of the average rounds below 0"
    ),
    repair=snippet("torch.optim.RMSprop(model.parameters(), lr=1e-3, centered=False)"),
)

OWN_DIVISION = Cause(
    id="update-division-by-zero",
    title="A division by 0 in the optimizer's step",
    phases=OPTIMIZER,
    ops=("div", "addcdiv", "reciprocal"),
    applies_if=lambda e: divisor_zero(e) or divides_by_zero(e),
    what_happens="An optimizer or a hook of its step divides by a norm or an average that is 0.",
    how_to_fix="Add a small number to the divisor.",
    because=lambda e: f"{explain(e)} in the optimizer's step",
    repair=rewrite("div", to="{X} / ({y} + 1e-8)", instead="update = gradient / (divisor + 1e-8)  # in the optimizer"),
)

UPDATE_OVERFLOW = Cause(
    id="update-overflow",
    title="A learning rate that throws the weights out of the format",
    phases=OPTIMIZER,
    ops=(),
    applies_if=lambda e: e.kind == "inf" and writes_weight(e),
    what_happens="The step is learning rate times gradient; their product, or the weight after it, overflows.",
    how_to_fix="Lower the learning rate; check the schedule, and its sign.",
    because=lambda e: (
        f"{result(e, e.op)} in the optimizer's step: weights up to {largest(e.input)}, step factor"
        f" {e.largest_constant:.4g}, gradients {span(e.state(1) or e.input)}"
    ),
    repair=snippet("optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)"),
)

STATE_OVERFLOW = Cause(
    id="optimizer-state-overflow",
    title="A number in the optimizer's step that overflows",
    phases=OPTIMIZER,
    ops=(),
    applies_if=lambda e: e.kind == "inf",
    what_happens="The optimizer squares and averages gradients; squares of 1e20 are beyond float32.",
    how_to_fix="Clip the gradients before the step, and look for what makes them that large.",
    because=lambda e: (
        f"{result(e, e.op)} in the optimizer's step: its inputs reach {largest(*(o.state for o in e.inputs))}"
    ),
    repair=snippet("torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # before optimizer.step()"),
)

UPDATE_NAN = Cause(
    id="update-undefined",
    title="An update that is not a number",
    phases=OPTIMIZER,
    ops=(),
    what_happens="The optimizer's arithmetic has no value there: 0 / 0, inf - inf or the root of a negative state.",
    how_to_fix="Check eps, betas and the state that was loaded from a checkpoint.",
    because=lambda e: f"{result(e, e.op)} in the optimizer's step; its first input is {span(e.input)}",
    repair=snippet("torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)"),
)

GRADIENT_NORM = Cause(
    id="gradient-norm-overflow",
    title="Finite gradients whose norm overflows",
    phases=("clip",),
    ops=NORMS,
    applies_if=lambda e: e.kind == "inf",
    what_happens=(
        "The norm squares the gradients, and squares of 1e20 are beyond float32. Clipping by an infinite norm sets"
        " finite gradients to 0 and infinite ones to NaN."
    ),
    how_to_fix="Scale the loss down; gradients that large mean that something before it is out of range.",
    because=lambda e: f"the gradients reach {largest(*(o.state for o in e.inputs))}, and their squares overflow",
    repair=snippet("loss = loss / 1e3  # and look for what makes the gradients that large"),
)

UPDATES = (
    LEARNING_RATE,
    CENTERED,
    EPS_UNDERFLOW,
    EPS_ZERO,
    OWN_DIVISION,
    UPDATE_OVERFLOW,
    STATE_OVERFLOW,
    UPDATE_NAN,
    GRADIENT_NORM,
)
