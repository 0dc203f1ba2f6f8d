"""Divisions by 0, each by where the divisor came from."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import BACKWARD, FORWARD, Cause
from gradcheck_cli.diagnose.nan.divisors import (
    DIVISIONS,
    divisor_argument,
    divisor_zero,
    explain,
    keep_from_zero,
    maker_of_divisor,
    name_divisors,
)
from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.nan.naming import short_name
from gradcheck_cli.diagnose.nan.neighbours import is_mask
from gradcheck_cli.diagnose.nan.rewriting import rewrite, snippet
from gradcheck_cli.diagnose.nan.wording import result, share
from gradcheck_cli.tape import Operand

NORMS = ("linalg_vector_norm", "norm", "linalg_norm", "abs", "sqrt", "frobenius_norm")
ABOVE_ZERO = ("pow", "exp", "exp2", "softmax", "sigmoid")
DEVIATIONS = ("std", "std_mean", "var", "var_mean")


def is_normalised(evidence: Evidence) -> bool:
    """x / norm(x), by hand or by functional.normalize."""
    maker = maker_of_divisor(evidence, *NORMS)
    complex_modulus = maker is not None and short_name(maker.name) == "abs"
    return divisor_zero(evidence) and maker is not None and not complex_modulus


def is_masked_mean(evidence: Evidence) -> bool:
    maker = maker_of_divisor(evidence, "sum", "count_nonzero")
    if maker is None or not divisor_zero(evidence):
        return False
    if is_underflowed(evidence):
        return False
    return short_name(maker.name) == "count_nonzero" or any(counts(operand) for operand in maker.inputs)


def is_underflowed(evidence: Evidence) -> bool:
    """A sum of numbers that are above 0 by their formula, all of which underflowed."""
    total = maker_of_divisor(evidence, "sum")
    terms = next(evidence.makers_of(total), None)
    if terms is None or short_name(terms.name) not in ABOVE_ZERO or not divisor_zero(evidence):
        return False
    return all(operand.state.finite and not operand.state.zeros for operand in terms.inputs[:1])


def counts(operand: Operand) -> bool:
    """Whether it is a mask: booleans, integers, or 0 and 1."""
    return not operand.state.dtype.removeprefix("torch.").startswith(("float", "bfloat")) or is_mask(operand.state)


def is_spectral_norm(evidence: Evidence) -> bool:
    weight = evidence.inputs[0] if evidence.inputs else None
    if weight is None or not weight.source.startswith("parameter:") or weight.state.zeros < weight.state.numel:
        return False
    return divisor_zero(evidence) and maker_of_divisor(evidence, "vdot", "dot") is not None


def divides_by_buffer(evidence: Evidence) -> bool:
    operands = evidence.operands(divisor_argument(evidence))
    return divisor_zero(evidence) and any(operand.source.startswith("buffer:") for operand in operands)


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
    repair=keep_from_zero("F.normalize(x, dim=-1, eps=1e-6)"),
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

UNDERFLOWED_TOTAL = Cause(
    id="underflowed-total",
    title="Division by a sum whose terms all underflowed",
    phases=FORWARD,
    ops=DIVISIONS,
    applies_if=is_underflowed,
    what_happens=(
        "Powers and exponentials are above 0 on paper. In float32 they are exactly 0 below 1e-45, and p ** (1 / T) with"
        " a small temperature T gets there: 0 / 0."
    ),
    how_to_fix="Normalise in logarithms, `torch.softmax(log_p / T, dim)`, or clamp the sum to the smallest number.",
    because=lambda e: f"{explain(e)}: sums of numbers that underflowed to 0",
    repair=rewrite(
        "div",
        to="{X} / {Y}.clamp(min=torch.finfo({X}.dtype).tiny)",
        instead="p / p.sum(1, keepdim=True).clamp(min=torch.finfo(p.dtype).tiny)",
    ),
)

SPECTRAL_NORM = Cause(
    id="spectral-norm-of-zero",
    title="Spectral normalisation of a weight of zeros",
    phases=FORWARD,
    ops=DIVISIONS,
    applies_if=is_spectral_norm,
    what_happens="spectral_norm divides the weight by its largest singular value, which is 0 for a weight of zeros.",
    how_to_fix="Initialise the weight with random numbers before `spectral_norm` is applied.",
    because=lambda e: f"the largest singular value of {e.inputs[0].source.partition(':')[2]} is 0: all its weights are",
    repair=snippet("nn.init.orthogonal_(layer.weight)  # before spectral_norm(layer)"),
)


def is_negative_power(evidence: Evidence) -> bool:
    exponent = evidence.constant("exponent")
    return exponent is not None and exponent < 0


def explain_negative_power(evidence: Evidence) -> str:
    exponent = -0.5 if evidence.op == "rsqrt" else evidence.constant("exponent")
    return f"{share(evidence, 'zeros')}, and 0 to the power of {exponent:g} is infinite"


def repair_negative_power(evidence: Evidence) -> str:
    if evidence.op == "rsqrt":
        return rewrite("rsqrt", to="torch.rsqrt({x} + 1e-6)")(evidence)
    return rewrite("pow", to="{X}.clamp(min=1e-6) ** {Y}", instead="x.clamp(min=1e-6) ** e")(evidence)


RSQRT_AT_ZERO = Cause(
    id="rsqrt-at-zero",
    title="1 / sqrt(x) at 0",
    phases=(*FORWARD, *BACKWARD),
    ops=("rsqrt", "pow"),
    applies_if=lambda e: e.kind == "inf" and bool(e.input.zeros) and (e.op == "rsqrt" or is_negative_power(e)),
    what_happens="1 / sqrt(0) and 0 to a negative power are infinite: the normalisation of a vector of zeros.",
    how_to_fix="Add a small number before the root.",
    because=explain_negative_power,
    repair=repair_negative_power,
)

ZERO_BY_ZERO = Cause(
    id="zero-divided-by-zero",
    title="0 divided by 0",
    phases=FORWARD,
    ops=DIVISIONS,
    applies_if=lambda e: divisor_zero(e) and e.kind == "nan",
    what_happens="0 / 0 has no value: a share of an empty total, a ratio of two counts that are both 0.",
    how_to_fix="Say what it should be: clamp the divisor, which gives 0.",
    because=lambda e: f"{explain(e)}, and what is divided is 0 too",
    repair=keep_from_zero("x / y.clamp(min=1e-6)"),
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
    repair=keep_from_zero("1 / x.clamp(min=1e-6)"),
)

QUOTIENT_OVERFLOW = Cause(
    id="quotient-overflow",
    title="Division by a tiny number",
    phases=FORWARD,
    ops=DIVISIONS,
    applies_if=lambda e: e.kind == "inf",
    what_happens="A quotient overflows by a tiny divisor: 1 / 1e-39 is beyond float32, 1 / 1e-5 beyond float16.",
    how_to_fix="Clamp the divisor.",
    because=lambda e: f"{result(e)}: {name_divisors(e)}",
    repair=keep_from_zero("x / y.clamp(min=1e-6)"),
)


DIVISION_CAUSES = (
    DIVIDE_BY_BUFFER,
    SPECTRAL_NORM,
    STANDARDISE_CONSTANT,
    NORMALISE_ZERO,
    UNDERFLOWED_TOTAL,
    MASKED_MEAN,
)
DIVISIONS_AT_LAST = (ZERO_BY_ZERO, DIVISION_BY_ZERO, QUOTIENT_OVERFLOW)
