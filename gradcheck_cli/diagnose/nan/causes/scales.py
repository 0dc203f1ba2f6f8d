"""Densities with a scale of 0."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import FORWARD, Cause
from gradcheck_cli.diagnose.nan.divisors import DIVISIONS, divisor_argument, divisor_zero, explain
from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.nan.neighbours import same_value
from gradcheck_cli.diagnose.nan.rewriting import snippet
from gradcheck_cli.diagnose.nan.wording import share

DISTRIBUTION = ("log_prob", "kl_divergence", "Normal(", "rsample", "gaussian_nll")


def is_scale_zero(evidence: Evidence) -> bool:
    """The density of a normal distribution, by torch or by hand: (x - mean) / scale beside log(scale)."""
    if not any(word in evidence.text for word in DISTRIBUTION):
        standardised = evidence.op == "div" and evidence.made_by("sub", "rsub", argument=0) is not None
        return standardised and divisor_zero(evidence) and is_logged(evidence)
    if evidence.op in DIVISIONS:
        return divisor_zero(evidence)
    return bool(evidence.input.zeros) and (is_variance_ratio(evidence) or is_squared(evidence))


def is_variance_ratio(evidence: Evidence) -> bool:
    """(scale / scale) ** 2, of which the divergence of two normal distributions takes the logarithm."""
    square = evidence.made_by("pow")
    return "kl_divergence" in evidence.text and any(maker.name == "aten::div" for maker in evidence.makers_of(square))


def is_squared(evidence: Evidence) -> bool:
    """Whether the same number is squared or divides elsewhere, as a scale or a variance is."""
    own = evidence.inputs[0]
    readers = (other for other in evidence.tape.operations if other.name in ("aten::pow", "aten::div"))
    return any(same_value(reader.inputs[-1], own) for reader in readers if reader.inputs and not reader.node)


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


def explain_scale(evidence: Evidence) -> str:
    if evidence.refused:
        return "torch refused the scale of a distribution, which must be above 0"
    if evidence.op == "log" and is_variance_ratio(evidence):
        return f"{share(evidence, 'zeros', noun='ratios of scales')}: a distribution whose scale collapsed to 0"
    zeros = share(evidence, "zeros", noun="scales") if evidence.op == "log" else explain(evidence)
    return f"{zeros}: the scale of a density"


SCALE_ZERO = Cause(
    id="normal-scale-zero",
    title="Normal distribution with a scale of 0",
    phases=FORWARD,
    ops=(*DIVISIONS, "log"),
    refusal=r"\b(Normal|LogNormal|HalfNormal|Laplace|Cauchy|Gumbel|StudentT)\(",
    applies_if=lambda e: is_scale_zero(e) or (e.op == "log" and bool(e.input.zeros) and divides_itself_in_log(e)),
    what_happens=(
        "The density divides by the scale and takes its logarithm. A scale from relu, or from exp or softplus that"
        " underflowed, is exactly 0."
    ),
    how_to_fix="Give the scale a floor: `F.softplus(raw) + 1e-4`.",
    because=explain_scale,
    repair=snippet("scale = F.softplus(raw_scale) + 1e-4"),
)
