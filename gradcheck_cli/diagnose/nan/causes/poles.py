"""Functions that are infinite at a point: the gamma function, x · log(y), the inverse hyperbolic cosine."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import BACKWARD, FORWARD, Cause
from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.nan.rewriting import rewrite
from gradcheck_cli.diagnose.nan.wording import share, slope

GAMMA = ("lgamma", "digamma", "polygamma", "mvlgamma", "special_gammaln", "special_digamma", "special_polygamma")
XLOGY = ("xlogy", "special_xlogy", "special_xlog1py")
DENSITIES = ("log_prob", "Beta(", "Gamma(", "Dirichlet(")


def explain_acosh(evidence: Evidence) -> str:
    if evidence.derivative:
        return f"{share(evidence, 'ones').replace('±', '')}, where {slope(evidence)}"
    return f"the inputs of acosh go down to {evidence.input.low:.9g}, and it is defined from 1 on"


def repair_xlogy(evidence: Evidence) -> str:
    if any(word in evidence.text for word in DENSITIES):
        return "x = x.clamp(1e-6, 1 - 1e-6)  # before log_prob: away from the ends of the distribution's range"
    return rewrite("xlogy", to="torch.xlogy({X}, {Y}.clamp(min=1e-12))", instead="torch.xlogy(x, y.clamp(min=1e-12))")(
        evidence
    )


GAMMA_POLE = Cause(
    id="gamma-function-pole",
    title="Logarithm or derivative of the gamma function at 0",
    phases=(*FORWARD, *BACKWARD),
    ops=GAMMA,
    applies_if=lambda e: bool(e.input.zeros),
    what_happens=(
        "The gamma function is infinite at 0, and so are lgamma, digamma and polygamma: a concentration, a count or a"
        " dispersion that underflowed to 0."
    ),
    how_to_fix="Give the parameter a floor: `F.softplus(raw) + 1e-6`.",
    because=lambda e: f"{share(e, 'zeros')}, a pole of the gamma function",
    repair=rewrite("lgamma", "digamma", to="torch.{name}({X}.clamp(min=1e-6))", instead="x = x.clamp(min=1e-6)"),
)

XLOGY_POLE = Cause(
    id="xlogy-of-zero",
    title="x · log(y) at y = 0",
    phases=FORWARD,
    ops=XLOGY,
    applies_if=lambda e: e.kind == "inf" and bool(e.state(1) and e.state(1).zeros),  # type: ignore[union-attr]
    what_happens=(
        "xlogy(x, 0) is 0 for x = 0 and infinite for all others. The densities of Beta, Dirichlet and Gamma compute it"
        " at the ends of their range: an action of exactly 0 or 1."
    ),
    how_to_fix="Keep y away from 0; for a density, keep its argument away from the ends of the range.",
    because=lambda e: f"{share(e, 'zeros', 1, 'second inputs of xlogy')}, and x · log(0) is infinite",
    repair=repair_xlogy,
)

ACOSH_AT_ONE = Cause(
    id="acosh-at-one",
    title="Inverse hyperbolic cosine at or below 1",
    phases=(*FORWARD, *BACKWARD),
    ops=("acosh", "arccosh"),
    applies_if=lambda e: bool(e.input.ones) if e.derivative else e.kind == "nan" and e.input.finite,
    what_happens=(
        "acosh is defined from 1 on, and its slope 1 / sqrt(x² - 1) is infinite at 1: the hyperbolic distance of a"
        " point to itself."
    ),
    how_to_fix="Clamp the input to a little more than 1.",
    because=explain_acosh,
    repair=rewrite("acosh", "arccosh", to="torch.acosh({X}.clamp(min=1 + 1e-6))"),
)

POLES = (GAMMA_POLE, XLOGY_POLE, ACOSH_AT_ONE)
