"""Divisions by 0, each by where the divisor came from."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import BACKWARD, FORWARD, Cause
from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.nan.naming import short_name
from gradcheck_cli.diagnose.nan.neighbours import is_mask
from gradcheck_cli.diagnose.nan.rewriting import rewrite, snippet
from gradcheck_cli.diagnose.nan.wording import result, share, span
from gradcheck_cli.tape import Operand, Operation

DIVISIONS = ("div", "true_divide", "divide", "floor_divide", "remainder", "fmod", "addcdiv", "reciprocal")
NORMS = ("linalg_vector_norm", "norm", "linalg_norm", "abs", "sqrt", "frobenius_norm")
DEVIATIONS = ("std", "std_mean", "var", "var_mean")
DISTRIBUTION = ("log_prob", "kl_divergence", "Normal(", "rsample", "gaussian_nll")
CLEANING = ("clamp", "clamp_min", "clamp_min_", "add", "add_")


def divisor_argument(evidence: Evidence) -> int:
    """Which argument divides."""
    return 0 if evidence.op == "reciprocal" else len(evidence.inputs) - 1


def divisor_zero(evidence: Evidence) -> bool:
    state = evidence.state(divisor_argument(evidence))
    return bool(state and state.zeros) or evidence.constant("other") == 0


def maker_of_divisor(evidence: Evidence, *names: str) -> Operation | None:
    """The operation of one of these names that made the divisor, also before a clamp or an added eps."""
    argument = divisor_argument(evidence)
    found = evidence.made_by(*names, argument=argument)
    if found is None and (guard := evidence.made_by(*CLEANING, argument=argument)):
        found = next((maker for maker in evidence.makers_of(guard) if short_name(maker.name) in names), None)
    return found


def is_normalised(evidence: Evidence) -> bool:
    """x / norm(x), by hand or by functional.normalize."""
    maker = maker_of_divisor(evidence, *NORMS)
    complex_modulus = maker is not None and short_name(maker.name) == "abs"
    return divisor_zero(evidence) and maker is not None and not complex_modulus


def is_masked_mean(evidence: Evidence) -> bool:
    maker = maker_of_divisor(evidence, "sum", "count_nonzero")
    if maker is None or not divisor_zero(evidence):
        return False
    return short_name(maker.name) == "count_nonzero" or any(counts(operand) for operand in maker.inputs)


def counts(operand: Operand) -> bool:
    """Whether it is a mask: booleans, integers, or 0 and 1."""
    return not operand.state.dtype.removeprefix("torch.").startswith(("float", "bfloat")) or is_mask(operand.state)


def divides_by_buffer(evidence: Evidence) -> bool:
    operands = evidence.operands(divisor_argument(evidence))
    return divisor_zero(evidence) and any(operand.source.startswith("buffer:") for operand in operands)


def is_scale_zero(evidence: Evidence) -> bool:
    """The density of a normal distribution, by torch or by hand: (x - mean) / scale beside log(scale)."""
    if not any(word in evidence.text for word in DISTRIBUTION):
        standardised = evidence.op == "div" and evidence.made_by("sub", "rsub", argument=0) is not None
        return standardised and divisor_zero(evidence) and is_logged(evidence)
    return divisor_zero(evidence) if evidence.op in DIVISIONS else bool(evidence.input.zeros)


def is_logged(evidence: Evidence) -> bool:
    """Whether somebody takes the logarithm of the divisor."""
    divisors = evidence.operands(divisor_argument(evidence))
    logs = (other for other in evidence.tape.operations if other.name == "aten::log" and other.inputs)
    return any(
        log.inputs[0].producer == d.producer >= 0 or (d.source and log.inputs[0].source == d.source)
        for log in logs
        for d in divisors
    )


def divides_itself_in_log(evidence: Evidence) -> bool:
    """The logarithm of a scale of 0, found through a division by the same scale."""
    own = evidence.inputs[0] if evidence.inputs else None
    divisions = (other for other in evidence.tape.operations if other.name == "aten::div" and other.inputs)
    return own is not None and any(
        division.inputs[-1].producer == own.producer >= 0 and not division.node for division in divisions
    )


def explain(evidence: Evidence) -> str:
    if evidence.constant("other") == 0:
        return f"the divisor is the number 0: {result(evidence)}"
    return share(evidence, "zeros", divisor_argument(evidence), "divisors")


def explain_scale(evidence: Evidence) -> str:
    if evidence.refused:
        return "torch refused the scale of a distribution, which must be above 0"
    zeros = share(evidence, "zeros", noun="scales") if evidence.op == "log" else explain(evidence)
    return f"{zeros}: the scale of a density"


DIVIDE_BY_BUFFER = Cause(
    id="divide-by-unset-buffer",
    title="Division by a buffer that was never set",
    phases=FORWARD,
    ops=DIVISIONS,
    applies_if=divides_by_buffer,
    what_happens="A scale that is registered as zeros and filled later is still 0: fitting or loading was left out.",
    how_to_fix="Initialise the buffer with ones, and fit or load it before training.",
    because=lambda e: f"{explain(e)}: the buffer {e.operands(divisor_argument(e))[0].source.partition(':')[2]}",
    repair=snippet("self.register_buffer('scale', torch.ones(features))  # and fit it before training"),
)

STANDARDISE_CONSTANT = Cause(
    id="standardise-constant",
    title="Division by the standard deviation of a constant",
    phases=FORWARD,
    ops=DIVISIONS,
    applies_if=lambda e: divisor_zero(e) and maker_of_divisor(e, *DEVIATIONS) is not None,
    what_happens="A column, a batch or an episode in which all values are equal has a standard deviation of 0: 0 / 0.",
    how_to_fix="Add a small number to the standard deviation.",
    because=lambda e: f"{explain(e)}: standard deviations of constant values",
    repair=rewrite("div", to="{X} / ({y} + 1e-6)", instead="(x - x.mean(0)) / (x.std(0) + 1e-6)"),
)

NORMALISE_ZERO = Cause(
    id="normalise-zero-vector",
    title="A vector of zeros divided by its norm",
    phases=FORWARD,
    ops=DIVISIONS,
    applies_if=is_normalised,
    what_happens="The norm of a zero vector is 0, and 0 / 0 is NaN: padding, dead units, an eps lost in half.",
    how_to_fix="Use `F.normalize(x, dim=-1, eps=1e-6)`, or clamp the norm.",
    because=lambda e: f"{explain(e)}: norms of zero vectors",
    repair=rewrite("div", to="{X} / {Y}.clamp(min=1e-6)", instead="F.normalize(x, dim=-1, eps=1e-6)"),
)

MASKED_MEAN = Cause(
    id="masked-mean-of-empty",
    title="Mean over a mask that selects nothing",
    phases=FORWARD,
    ops=DIVISIONS,
    applies_if=is_masked_mean,
    what_happens="The sum over no element divided by a count of 0 is 0 / 0.",
    how_to_fix="Clamp the count to at least 1: the mean over nothing is then 0.",
    because=lambda e: f"{explain(e)}: counts of a mask that selects nothing",
    repair=rewrite("div", to="{X} / {Y}.clamp(min=1)", instead="(x * mask).sum() / mask.sum().clamp(min=1)"),
)

SCALE_ZERO = Cause(
    id="normal-scale-zero",
    title="Normal distribution with a scale of 0",
    phases=FORWARD,
    ops=(*DIVISIONS, "log"),
    refusal=r"\b(Normal|LogNormal|HalfNormal|Laplace|Cauchy|Gumbel|StudentT|MultivariateNormal)\(",
    applies_if=lambda e: is_scale_zero(e) or (e.op == "log" and bool(e.input.zeros) and divides_itself_in_log(e)),
    what_happens=(
        "The density divides by the scale and takes its logarithm. A scale from relu, or from exp or softplus that"
        " underflowed, is exactly 0."
    ),
    how_to_fix="Give the scale a floor: `F.softplus(raw) + 1e-4`.",
    because=explain_scale,
    repair=snippet("scale = F.softplus(raw_scale) + 1e-4"),
)

RSQRT_AT_ZERO = Cause(
    id="rsqrt-at-zero",
    title="1 / sqrt(x) at 0",
    phases=(*FORWARD, *BACKWARD),
    ops=("rsqrt", "pow"),
    applies_if=lambda e: e.kind == "inf" and bool(e.input.zeros) and (e.op == "rsqrt" or is_negative_power(e)),
    what_happens="1 / sqrt(0) and 0 to a negative power are infinite: the normalisation of a vector of zeros.",
    how_to_fix="Add a small number before the root.",
    because=lambda e: share(e, "zeros"),
    repair=rewrite("rsqrt", to="torch.rsqrt({x} + 1e-6)", instead="(x + 1e-6) ** e"),
)

ZERO_BY_ZERO = Cause(
    id="zero-divided-by-zero",
    title="0 divided by 0",
    phases=FORWARD,
    ops=DIVISIONS,
    applies_if=lambda e: divisor_zero(e) and e.kind == "nan",
    what_happens="0 / 0 has no value: a share of an empty total, a ratio of two counts that are both 0.",
    how_to_fix="Say what it should be: clamp the divisor, which gives 0.",
    because=lambda e: f"{explain(e)}, and so is what they divide",
    repair=rewrite("div", to="{X} / {Y}.clamp(min=1e-6)", instead="x / y.clamp(min=1e-6)"),
)

DIVISION_BY_ZERO = Cause(
    id="division-by-zero",
    title="Division by 0",
    phases=FORWARD,
    ops=DIVISIONS,
    applies_if=divisor_zero,
    what_happens="A number divided by 0 is infinite, and 0 · inf or inf - inf later makes a NaN of it.",
    how_to_fix="Clamp the divisor or add a small number to it.",
    because=explain,
    repair=rewrite("div", to="{X} / {Y}.clamp(min=1e-6)", instead="1 / x.clamp(min=1e-6)"),
)

QUOTIENT_OVERFLOW = Cause(
    id="quotient-overflow",
    title="Division by a tiny number",
    phases=FORWARD,
    ops=DIVISIONS,
    applies_if=lambda e: e.kind == "inf",
    what_happens="A quotient overflows by a tiny divisor: 1 / 1e-39 is beyond float32, 1 / 1e-5 beyond float16.",
    how_to_fix="Clamp the divisor.",
    because=lambda e: f"{result(e)}: the divisors are {span(e.state(divisor_argument(e)))}",
    repair=rewrite("div", to="{X} / {Y}.clamp(min=1e-6)", instead="x / y.clamp(min=1e-6)"),
)


def is_negative_power(evidence: Evidence) -> bool:
    exponent = evidence.constant("exponent")
    return exponent is not None and exponent < 0


DIVISION_CAUSES = (DIVIDE_BY_BUFFER, STANDARDISE_CONSTANT, NORMALISE_ZERO, MASKED_MEAN, SCALE_ZERO, RSQRT_AT_ZERO)
DIVISIONS_AT_LAST = (ZERO_BY_ZERO, DIVISION_BY_ZERO, QUOTIENT_OVERFLOW)
