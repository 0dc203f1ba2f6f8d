"""Faults in a derivative: the forward pass is finite, the slope is not."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import BACKWARD, Cause
from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.nan.naming import short_name
from gradcheck_cli.diagnose.nan.rewriting import rewrite
from gradcheck_cli.diagnose.nan.wording import result, share, slope, span
from gradcheck_cli.tape import TensorState

TINY = 1e-6
SAFE_INPUT = "safe = torch.where(ok, x, torch.ones_like(x))\ny = torch.where(ok, {call}, torch.zeros_like(x))"


def name_selection(evidence: Evidence) -> str:
    return short_name(evidence.selection.name) if evidence.selection else "where"


def repair_double_where(evidence: Evidence) -> str:
    calls = {"div": "n / safe", "pow": "safe ** e", "reciprocal": "1 / safe"}
    code = SAFE_INPUT.format(call=calls.get(evidence.op, f"torch.{evidence.op}(safe)"))
    return code.replace("x", "d") if evidence.op == "div" else code


def explain_double_where(evidence: Evidence) -> str:
    if not evidence.derivative:
        return (
            f"{result(evidence, evidence.op)}; {name_selection(evidence)} hides them in the forward pass, but the"
            f" derivative multiplies them by the gradient of 0 (0 · inf = NaN)"
        )
    argument = 1 if evidence.op == "div" else 0
    noun = "divisors" if evidence.op == "div" else ""
    return (
        f"{share(evidence, 'zeros', argument, noun)}; {name_selection(evidence)} hides them in the forward pass, but"
        f" their gradient of 0 still meets the infinite slope of {evidence.op} (0 · inf = NaN)"
    )


def is_root(evidence: Evidence) -> bool:
    """Whether a power meets a 0: below 1 its slope is infinite there, below 2 that of a second derivative."""
    exponent = evidence.constant("exponent")
    return evidence.input.zeros > 0 and (exponent is None or 0 < exponent < 2)


def name_exponent(evidence: Evidence) -> str:
    exponent = evidence.constant("exponent")
    if exponent is None:
        return "an exponent below 1"
    return f"the exponent {exponent:g}" + (" in a second derivative" if exponent >= 1 else "")


def is_focal(evidence: Evidence) -> bool:
    return is_root(evidence) and evidence.made_by("rsub", "sub", "clamp", "clamp_min") is not None


def divisor(evidence: Evidence) -> TensorState | None:
    return evidence.state(len(evidence.inputs) - 1 if evidence.op in ("div", "true_divide", "addcdiv") else 0)


def divides_by_tiny(evidence: Evidence) -> bool:
    """Whether some divisor is or may be tiny: only the ends of their range are known."""
    state, exponent = divisor(evidence), evidence.constant("exponent")
    if state is None or (evidence.op == "pow" and (exponent is None or exponent >= 0)):
        return False
    return state.zeros > 0 or state.low * state.high <= 0 or min(abs(state.low), abs(state.high)) < TINY


def is_product_of_logs(evidence: Evidence) -> bool:
    through = ("sum", "cumsum", "neg", "mul", "add")
    return evidence.input.zeros > 0 and evidence.reached(("exp",), through) is not None


DOUBLE_WHERE = Cause(
    id="double-where",
    title="A bad result that is masked away still has a bad gradient",
    phases=("forward", "loss", "backward"),
    ops=(),
    applies_if=lambda e: e.behind_where and not e.custom,
    what_happens=(
        "`torch.where(ok, log(x), 0)` computes `log(x)` for all elements and throws some away. In backward these get a"
        " gradient of 0, which is multiplied by the slope of the logarithm: 0 · inf is NaN. The loss is finite, the"
        " gradient is not. The same holds for `masked_fill`, `clamp` after the fact and products with a mask."
    ),
    how_to_fix="Make the input harmless before the operator, not the result after it: a `where` on both sides.",
    because=explain_double_where,
    repair=repair_double_where,
)

SQRT_AT_ZERO = Cause(
    id="sqrt-at-zero",
    title="Square root at 0",
    phases=BACKWARD,
    ops=("sqrt",),
    applies_if=lambda e: bool(e.input.zeros) or e.input.low < TINY,
    what_happens=(
        "The slope of sqrt at x is 1 / (2 sqrt(x)), which is infinite at 0. Norms, distances and standard deviations"
        " that are written by hand meet it as soon as a vector is 0, two points are equal or a channel is constant."
    ),
    how_to_fix="Add a small number under the root, or use `torch.linalg.vector_norm`, whose gradient at 0 is 0.",
    because=lambda e: f"{share(e, 'zeros')}, where {slope(e)}",
    repair=rewrite("sqrt", to="torch.sqrt({x} + 1e-6)"),
)

POWER_AT_ZERO = Cause(
    id="power-at-zero",
    title="Power below 1 at 0",
    phases=BACKWARD,
    ops=("pow", "float_power"),
    applies_if=is_root,
    what_happens="The slope of x ** e is e · x ** (e - 1), infinite at 0 for an exponent below 1.",
    how_to_fix="Keep the base away from 0: add a small number or clamp it.",
    because=lambda e: f"{share(e, 'zeros')}, where {slope(e)} for {name_exponent(e)}",
    repair=rewrite("pow", to="({x} + 1e-6) ** {Y}", instead="(x + 1e-6) ** e"),
)

FOCAL_POWER = Cause(
    id="focal-power-at-zero",
    title="Focal loss with gamma below 1 at a certain prediction",
    phases=BACKWARD,
    ops=("pow",),
    applies_if=is_focal,
    what_happens=(
        "(1 - p) ** gamma has an infinite slope where p is exactly 1 and gamma is below 1. In float32 a confident"
        " prediction rounds to 1."
    ),
    how_to_fix="Clamp 1 - p away from 0, or use gamma of at least 1.",
    because=lambda e: f"{share(e, 'zeros')} (p is exactly 1), where {slope(e)} for an exponent below 1",
    repair=rewrite("pow", to="{X}.clamp(min=1e-6) ** {Y}", instead="(1 - p).clamp(min=1e-6) ** gamma"),
)

ACOS_AT_ONE = Cause(
    id="acos-at-one",
    title="Arc cosine or arc sine at 1 or -1",
    phases=BACKWARD,
    ops=("acos", "asin", "arccos", "arcsin"),
    applies_if=lambda e: bool(e.input.ones),
    what_happens="The slope is 1 / sqrt(1 - x²) up to its sign, which is infinite at 1 and -1: angles of 0 and 180°.",
    how_to_fix="Clamp the input a little inside (-1, 1), or compute the angle with `torch.atan2`.",
    because=lambda e: f"{share(e, 'ones')}, where {slope(e)}",
    repair=rewrite("acos", "asin", to="torch.{name}({X}.clamp(-1 + 1e-6, 1 - 1e-6))"),
)

DEGENERATE_EIGENVALUES = Cause(
    id="degenerate-eigenvalues",
    title="Derivative of an eigen or singular value decomposition with equal values",
    phases=BACKWARD,
    ops=("linalg_eigh", "linalg_svd", "linalg_eig", "symeig", "svd", "linalg_qr"),
    what_happens=(
        "The derivative of eigenvectors and singular vectors divides by the differences of the eigenvalues (or of"
        " their squares). Where two are equal, as for the identity, a matrix of low rank or a symmetric shape, the"
        " vectors are not unique and the quotient is infinite."
    ),
    how_to_fix=(
        "Use only the values (`eigvalsh`, `svdvals`), break the symmetry with a small random diagonal, or compute in"
        " float64 and detach the vectors."
    ),
    because=lambda e: f"two eigenvalues or singular values are equal, and {e.op}'s derivative divides by differences",
    repair=rewrite(
        *("eigh", "svd"),
        instead="x = x + torch.diag_embed(1e-4 * torch.rand(x.shape[-1]))  # before the decomposition",
        to="jitter = torch.diag_embed(1e-4 * torch.rand({X}.shape[-1]))\ntorch.linalg.{name}({x} + jitter)",
    ),
)

PRODUCT_THROUGH_LOGS = Cause(
    id="product-through-logs",
    title="Product computed as exp of a sum of logarithms, with a factor of 0",
    phases=BACKWARD,
    ops=("log", "log1p", "log2"),
    applies_if=is_product_of_logs,
    what_happens=(
        "exp(sum(log(x))) is 0 for a factor of 0, as it should be, but its gradient is 0 (of exp) times the infinite"
        " slope of log at 0: NaN."
    ),
    how_to_fix="Use `torch.prod`, whose derivative handles zeros, or clamp the factors.",
    because=lambda e: f"{share(e, 'zeros')}; the product is 0 and so is its gradient, and {slope(e, 'slope there')}",
    repair=rewrite("log", "log1p", to="torch.{name}({X}.clamp(min=1e-12))"),
)

XLOGY_AT_ZERO = Cause(
    id="xlogy-at-zero",
    title="Derivative of xlogy at 0",
    phases=BACKWARD,
    ops=("xlogy", "special_xlogy", "special_entr", "xlog1py"),
    what_happens="xlogy(0, 0) is 0, but its derivative needs log(0) and 0 / 0. Only the value is safe at 0.",
    how_to_fix="Clamp the probabilities, or compute from logits with `log_softmax`.",
    because=lambda e: f"{share(e, 'zeros')}: the value there is defined as 0, the derivative is not",
    repair=rewrite(
        "xlogy", "entr", to="torch.xlogy({X}, {Y}.clamp(min=1e-12))", instead="torch.xlogy(p, p.clamp(min=1e-12))"
    ),
)

CUSTOM_BACKWARD = Cause(
    id="custom-backward",
    title="The derivative of a custom autograd.Function",
    phases=BACKWARD,
    ops=(),
    applies_if=lambda e: e.custom,
    what_happens="A `backward` written by hand divides, takes a root or overflows where the forward pass does not.",
    how_to_fix="Guard the operator on the reported line; test it with `torch.autograd.gradcheck` at the edges.",
    because=lambda e: (
        f"{e.op} in this custom backward made it; "
        + (share(e, "zeros", 1, "divisors") if e.op == "div" else f"its input is {span(e.input)}")
    ),
    repair=rewrite("div", "reciprocal", to="{X} / {Y}.clamp(min=1e-12)", instead="x / y.clamp(min=1e-12)"),
)

QUOTIENT_DERIVATIVE = Cause(
    id="quotient-derivative-overflow",
    title="Derivative of a quotient by a tiny number",
    phases=BACKWARD,
    ops=("div", "reciprocal", "rsqrt", "pow", "true_divide", "addcdiv"),
    applies_if=divides_by_tiny,
    what_happens=(
        "The derivative of 1 / x is -1 / x²: a divisor of 1e-20 gives a finite quotient and a slope beyond float32."
        " A divisor of 0 does so at once."
    ),
    how_to_fix="Keep the divisor away from 0: clamp it or add a small number.",
    because=lambda e: f"the divisors are {span(divisor(e))}; the slope divides by their square and overflows",
    repair=rewrite("div", to="{X} / {Y}.clamp(min=1e-6)", instead="1 / x.clamp(min=1e-6)"),
)

SLOPES = (
    SQRT_AT_ZERO,
    FOCAL_POWER,
    POWER_AT_ZERO,
    ACOS_AT_ONE,
    DEGENERATE_EIGENVALUES,
    XLOGY_AT_ZERO,
    QUOTIENT_DERIVATIVE,
)
