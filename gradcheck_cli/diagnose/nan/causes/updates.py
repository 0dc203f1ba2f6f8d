"""Faults in the optimizer's step and in clipping."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import Cause
from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.nan.rewriting import snippet
from gradcheck_cli.diagnose.nan.wording import largest, result, share, span

OPTIMIZER = ("optimizer",)
FUSED = ("fused_adam", "fused_adamw", "fused_adagrad")
NORMS = ("norm", "linalg_vector_norm", "stack")


def divides_by_zero(evidence: Evidence) -> bool:
    if evidence.op in FUSED:
        return is_underflow(evidence) or (evidence.constant("eps") or 0.0) < 1e-30
    divisor = evidence.state("tensor2") or evidence.state("other")
    return bool(divisor and divisor.zeros)


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
    applies_if=lambda e: divides_by_zero(e) and is_underflow(e),
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
    applies_if=divides_by_zero,
    what_happens="Adam divides by sqrt(v) + eps. A parameter whose gradients were all 0 has v = 0: 0 / 0.",
    how_to_fix="Leave eps at its default of 1e-8.",
    because=lambda e: f"{explain_division(e)}, and eps is 0",
    repair=snippet("torch.optim.Adam(model.parameters(), eps=1e-8)"),
)

UPDATE_OVERFLOW = Cause(
    id="update-overflow",
    title="A learning rate that throws the weights out of the format",
    phases=OPTIMIZER,
    ops=(),
    applies_if=lambda e: e.kind == "inf",
    what_happens="The step is learning rate times gradient; their product, or the weight after it, overflows.",
    how_to_fix="Lower the learning rate; check the schedule, and its sign.",
    because=lambda e: (
        f"{result(e)} of the optimizer's step: weights up to {largest(e.input)}, step factor {e.largest_constant:.4g},"
        f" gradients {span(e.state(1) or e.input)}"
    ),
    repair=snippet("optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)"),
)

UPDATE_NAN = Cause(
    id="update-undefined",
    title="An update that is not a number",
    phases=OPTIMIZER,
    ops=(),
    what_happens="The optimizer's arithmetic has no value there: 0 / 0, inf - inf or the root of a negative state.",
    how_to_fix="Check eps, betas and the state that was loaded from a checkpoint.",
    because=lambda e: f"{result(e)} of {e.op} in the optimizer's step; its inputs are {span(e.input)}",
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

UPDATES = (EPS_UNDERFLOW, EPS_ZERO, UPDATE_OVERFLOW, UPDATE_NAN, GRADIENT_NORM)
