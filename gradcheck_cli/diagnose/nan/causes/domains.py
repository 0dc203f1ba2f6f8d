"""Functions outside of where they are defined, and exponentials that overflow."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import FORWARD, Cause
from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.nan.rewriting import rewrite, snippet
from gradcheck_cli.diagnose.nan.wording import result, share, span

ROUNDING = 1e-3
EXPS = ("exp", "expm1", "exp2", "sinh", "cosh")


def explain_negative_root(evidence: Evidence) -> str:
    why = ""
    if difference := evidence.made_by("sub", "rsub"):
        terms = max((abs(v) for o in difference.inputs for v in (o.state.low, o.state.high) if v == v), default=0.0)
        rounded = -evidence.input.low <= ROUNDING * terms
        why = f": a difference such as E[x²] - E[x]² that {'rounding took' if rounded else 'is'} below 0"
    return f"{share(evidence, 'negatives')} (down to {evidence.input.low:.4g}){why}"


def repair_inverse(evidence: Evidence) -> str:
    if "logit" in evidence.op:
        return rewrite("logit", to="torch.logit({x}, eps=1e-6)")(evidence)
    return rewrite("atanh", "arctanh", "erfinv", to="torch.{name}({X}.clamp(-1 + 1e-6, 1 - 1e-6))")(evidence)


NAIVE_SOFTMAX = Cause(
    id="naive-softmax",
    title="Softmax written by hand",
    phases=FORWARD,
    ops=EXPS,
    applies_if=lambda e: e.kind == "inf" and e.reached(("sum",)) is not None and e.reached(("div",)) is not None,
    what_happens="exp(x) / exp(x).sum() is inf / inf where exp overflows, from 88.7 on in float32.",
    how_to_fix="Use `torch.softmax`, which subtracts the largest element first.",
    because=lambda e: f"{result(e)}: {e.op} overflows {e.dtype}; its inputs are {span(e.input)}",
    repair=rewrite("exp", to="torch.softmax({x}, dim)  # over the dimension of the sum"),
)

EXP_OVERFLOW = Cause(
    id="exp-overflow",
    title="Exponential of a large number",
    phases=FORWARD,
    ops=EXPS,
    applies_if=lambda e: e.kind == "inf",
    what_happens=(
        "exp overflows from 88.7 on in float32 and from 11.1 on in float16. A network that predicts a log-variance or"
        " a log-rate reaches that early in training."
    ),
    how_to_fix="Clamp the input, use `softplus` in place of exp, or keep the predictions small at initialisation.",
    because=lambda e: f"{result(e)}: {e.op} overflows {e.dtype}; its inputs are {span(e.input)}",
    repair=rewrite("exp", to="torch.exp({X}.clamp(max=20))"),
)

SQRT_OF_NEGATIVE = Cause(
    id="sqrt-of-negative",
    title="Square root of a negative number",
    phases=FORWARD,
    ops=("sqrt", "rsqrt"),
    applies_if=lambda e: e.kind == "nan",
    what_happens=(
        "The root of a negative number is NaN. Often the number should be 0 or more and rounding made it negative:"
        " a variance as E[x²] - E[x]² loses all digits where the mean is large."
    ),
    how_to_fix="Use `x.var(unbiased=False)`, which is never negative, or clamp before the root.",
    because=explain_negative_root,
    repair=rewrite("sqrt", "rsqrt", to="torch.{name}({X}.clamp(min=1e-6))"),
)

POWER_OF_NEGATIVE = Cause(
    id="power-of-negative",
    title="Fractional power of a negative number",
    phases=FORWARD,
    ops=("pow", "float_power"),
    applies_if=lambda e: e.kind == "nan" and bool(e.input.negatives),
    what_happens="A negative number to a power that is no integer is NaN.",
    how_to_fix="Clamp the base, or keep its sign apart: `x.sign() * x.abs() ** e`.",
    because=lambda e: f"{share(e, 'negatives', noun='bases')} (down to {e.input.low:.4g})",
    repair=rewrite("pow", to="{X}.clamp(min=1e-6) ** {Y}", instead="x.clamp(min=1e-6) ** e"),
)

ACOS_OUTSIDE = Cause(
    id="acos-outside-domain",
    title="Arc cosine or arc sine of more than 1",
    phases=FORWARD,
    ops=("acos", "asin", "arccos", "arcsin"),
    what_happens="A cosine computed from rounded unit vectors can be 1.0000001, and its arc cosine is NaN.",
    how_to_fix="Clamp to a little inside (-1, 1): at 1 itself the derivative is infinite.",
    because=lambda e: f"the inputs of {e.op} reach {max(-e.input.low, e.input.high):.9g} in magnitude, beyond 1",
    repair=rewrite("acos", "asin", "arccos", "arcsin", to="torch.{name}({X}.clamp(-1 + 1e-6, 1 - 1e-6))"),
)

ATANH_AT_ONE = Cause(
    id="atanh-at-one",
    title="Inverse of a saturating function at its bound",
    phases=(*FORWARD, "backward"),
    ops=("atanh", "arctanh", "erfinv", "logit", "special_logit"),
    what_happens="atanh, erfinv and logit are infinite at the bounds of what tanh, erf and sigmoid reach by rounding.",
    how_to_fix="Clamp a little inside the bounds, or keep the value from before the squashing.",
    because=lambda e: share(e, "ones") if e.input.ones else share(e, "zeros"),
    repair=repair_inverse,
)

UNINITIALISED = Cause(
    id="uninitialised-memory",
    title="Memory that nothing was written to",
    phases=(*FORWARD, "backward", "optimizer"),
    ops=("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "resize"),
    what_happens="`torch.empty` gives whatever was in memory, which may be NaN in one run and fine in the next.",
    how_to_fix="Use `torch.zeros`, or write every element before it is read.",
    because=lambda e: f"{result(e)} of a tensor that was allocated and not filled",
    repair=snippet("torch.zeros(shape)  # not torch.empty"),
)

EXPONENTIALS = (NAIVE_SOFTMAX, EXP_OVERFLOW)
DOMAINS = (SQRT_OF_NEGATIVE, POWER_OF_NEGATIVE, ACOS_OUTSIDE, ATANH_AT_ONE, UNINITIALISED)
