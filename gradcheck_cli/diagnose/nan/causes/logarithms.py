"""Logarithms of 0, each where it came from."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import BACKWARD, FORWARD, Cause
from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.nan.neighbours import reached
from gradcheck_cli.diagnose.nan.rewriting import rewrite, snippet
from gradcheck_cli.diagnose.nan.wording import result, share, span

LOGS = ("log", "log2", "log10", "log1p")
SOFTMAXES = ("softmax", "safe_softmax")
EVERYWHERE = (*FORWARD, *BACKWARD)


def is_one_minus_sigmoid(evidence: Evidence) -> bool:
    difference = evidence.made_by("rsub", "sub")
    names = [maker.name for maker in evidence.makers_of(difference)]
    return "aten::sigmoid" in names or "aten::sigmoid_" in names


def is_sum_of_exponentials(evidence: Evidence) -> bool:
    total = evidence.made_by("sum")
    return any(maker.name in ("aten::exp", "aten::exp_") for maker in evidence.makers_of(total))


def is_logsumexp(evidence: Evidence) -> bool:
    if evidence.op == "exp":
        return evidence.phase != "backward" and evidence.kind == "inf" and is_total_logged(evidence)
    return is_sum_of_exponentials(evidence)


def is_total_logged(evidence: Evidence) -> bool:
    total = evidence.reached(("sum",))
    return total is not None and reached(evidence.tape, total, LOGS, ()) is not None


def explain_logsumexp(evidence: Evidence) -> str:
    if evidence.op == "exp":
        return f"{result(evidence)}: exp overflows {evidence.dtype}; its inputs are {span(evidence.input)}"
    return f"{share(evidence, 'zeros')}: every exponential in the sum underflowed"


def is_inverse_softplus(evidence: Evidence) -> bool:
    made = evidence.made_by("expm1", "sub", "neg")
    names = [maker.name for maker in evidence.makers_of(made)]
    return made is not None and (made.name.startswith("aten::expm1") or "aten::expm1" in names or "aten::exp" in names)


def is_gumbel(evidence: Evidence) -> bool:
    if evidence.reached(LOGS, ("neg", "add", "clamp")):
        return True
    made = evidence.made_by("neg", "mul")
    return any(maker.name in ("aten::log", "aten::log_") for maker in evidence.makers_of(made))


def explain_divergence(evidence: Evidence) -> str:
    zeros = share(evidence, "zeros", 1, "divisors") if evidence.op == "div" else share(evidence, "zeros")
    return f"{zeros}, and the divergence takes their logarithm"


def is_divergence(evidence: Evidence) -> bool:
    if evidence.op == "div" and not evidence.reached(LOGS):
        return False
    by_hand = evidence.multiplied_by_input("sub", "neg", "log", "add")
    return by_hand is not None or "kl_div(" in evidence.text


LOG_OF_SOFTMAX = Cause(
    id="log-of-softmax",
    title="Logarithm of a softmax",
    phases=EVERYWHERE,
    ops=LOGS,
    applies_if=lambda e: e.made_by(*SOFTMAXES) is not None,
    what_happens="A softmax is exactly 0 where a logit is about 104 below the largest one; its logarithm is -inf.",
    how_to_fix="Use `log_softmax`, which never leaves the logarithms, or `cross_entropy` on the logits.",
    because=lambda e: f"{share(e, 'zeros')}: probabilities of a softmax that underflowed",
    repair=rewrite("log", inner="softmax", to="F.log_softmax({x}{rest})", instead="F.log_softmax(logits, dim=-1)"),
)

LOG_OF_ONE_MINUS_SIGMOID = Cause(
    id="log-of-one-minus-sigmoid",
    title="Logarithm of 1 - sigmoid",
    phases=EVERYWHERE,
    ops=LOGS,
    applies_if=is_one_minus_sigmoid,
    what_happens="In float32 a sigmoid is exactly 1 from 17 on, so that 1 - sigmoid(x) is 0 and its logarithm -inf.",
    how_to_fix="1 - sigmoid(x) is sigmoid(-x): use `F.logsigmoid(-x)` or `binary_cross_entropy_with_logits`.",
    because=lambda e: f"{share(e, 'zeros')}: the sigmoid before it rounded to 1",
    repair=rewrite("log", inner="sigmoid", to="F.logsigmoid(-{X})", instead="F.logsigmoid(-logits)"),
)

LOG_OF_SIGMOID = Cause(
    id="log-of-sigmoid",
    title="Logarithm of a sigmoid",
    phases=EVERYWHERE,
    ops=LOGS,
    applies_if=lambda e: e.made_by("sigmoid") is not None,
    what_happens="A sigmoid underflows to 0 for large negative inputs (-104 in float32, -17 in float16).",
    how_to_fix="Use `F.logsigmoid(x)` or `binary_cross_entropy_with_logits`.",
    because=lambda e: f"{share(e, 'zeros')}: the sigmoid before it underflowed",
    repair=rewrite("log", inner="sigmoid", to="F.logsigmoid({x})", instead="F.logsigmoid(logits)"),
)

ENTROPY_AT_ZERO = Cause(
    id="entropy-at-zero",
    title="p · log(p) at 0",
    phases=EVERYWHERE,
    ops=LOGS,
    applies_if=lambda e: e.multiplied_by_input("neg") is not None,
    what_happens="The limit of p · log(p) at 0 is 0, but computed it is 0 · (-inf) = NaN.",
    how_to_fix=(
        "Use `log_softmax` if the probabilities come from logits; else `torch.special.entr(p)` for the value and a"
        " clamp for the gradient."
    ),
    because=lambda e: f"{share(e, 'zeros')}; multiplied by the same p this is 0 · inf = NaN",
    repair=rewrite("log", to="torch.log({X}.clamp(min=1e-12))", instead="torch.special.entr(p)"),
)

KL_AT_ZERO = Cause(
    id="kl-at-zero",
    title="Kullback-Leibler divergence at a probability of 0",
    phases=EVERYWHERE,
    ops=(*LOGS, "div"),
    applies_if=is_divergence,
    what_happens="p · (log p - log q) needs log(0) where p or q is exactly 0; with p = 0 the product is NaN.",
    how_to_fix="Work with log-probabilities: `F.kl_div(log_q, log_p, log_target=True)`; at p = 0 use `torch.xlogy`.",
    because=explain_divergence,
    repair=snippet("F.kl_div(log_q, p, reduction='batchmean')  # log_q = F.log_softmax(logits, dim=-1)"),
)

NAIVE_LOGSUMEXP = Cause(
    id="naive-logsumexp",
    title="Logarithm of a sum of exponentials, written by hand",
    phases=EVERYWHERE,
    ops=(*LOGS, "exp"),
    applies_if=is_logsumexp,
    what_happens=(
        "exp overflows from 88.7 on in float32 (11.1 in float16) and is 0 below -104, although the logarithm of the"
        " sum is an ordinary number."
    ),
    how_to_fix="Use `torch.logsumexp`, which subtracts the largest element first.",
    because=explain_logsumexp,
    repair=rewrite(
        "log", "exp", inner="exp", to="torch.logsumexp({x}, dim)  # as in the sum", instead="torch.logsumexp(x, dim)"
    ),
)

GUMBEL = Cause(
    id="gumbel-at-bound",
    title="Gumbel noise of a uniform number that is 0 or 1",
    phases=EVERYWHERE,
    ops=LOGS,
    applies_if=is_gumbel,
    what_happens="-log(-log(u)) is infinite for u = 0 and u = 1; `torch.rand` draws 0 once in 16 million times.",
    how_to_fix="Clamp u, or draw with `-torch.empty_like(x).exponential_().log()` as `F.gumbel_softmax` does.",
    because=lambda e: f"{share(e, 'zeros')}: the uniform number is 0 or 1",
    repair=rewrite(
        "log",
        inner="log",
        to="torch.log(-torch.log({X}.clamp(1e-7, 1 - 1e-7)))",
        instead="-torch.log(-torch.log(u.clamp(1e-7, 1 - 1e-7)))",
    ),
)

INVERSE_SOFTPLUS = Cause(
    id="inverse-softplus-at-zero",
    title="Inverse softplus at 0",
    phases=EVERYWHERE,
    ops=LOGS,
    applies_if=is_inverse_softplus,
    what_happens="log(exp(x) - 1) is -inf at 0, a value that softplus itself never takes.",
    how_to_fix="Clamp x to a small positive number.",
    because=lambda e: f"{share(e, 'zeros')}: exp(x) - 1 for x = 0",
    repair=rewrite(
        "log", inner="expm1", to="torch.log(torch.expm1({X}.clamp(min=1e-6)))", instead="x = x.clamp(min=1e-6)"
    ),
)

LOG_OF_NEGATIVE = Cause(
    id="log-of-negative",
    title="Logarithm of a negative number",
    phases=EVERYWHERE,
    ops=LOGS,
    applies_if=lambda e: e.kind == "nan" and bool(e.input.negatives) and not e.derivative,
    what_happens="The logarithm of a negative number is NaN.",
    how_to_fix="Make the input positive: softplus, exp, or a clamp where rounding made it negative.",
    because=lambda e: f"{share(e, 'negatives')}",
    repair=rewrite(*LOGS, to="torch.{name}({X}.clamp(min=1e-6))"),
)

LOG_OF_ZERO = Cause(
    id="log-of-zero",
    title="Logarithm of 0",
    phases=EVERYWHERE,
    ops=LOGS,
    applies_if=lambda e: e.kind == "inf" or e.derivative,
    what_happens="log(0) is -inf, and the slope of log at 0 is infinite: silence, empty counts, underflowed densities.",
    how_to_fix="Add a small number or clamp before the logarithm, or stay in logarithms from the start.",
    because=lambda e: share(e, "negatives" if e.op == "log1p" else "zeros"),
    repair=rewrite(*LOGS, to="torch.{name}({X}.clamp(min=1e-6))"),
)

LOGARITHMS = (
    ENTROPY_AT_ZERO,
    LOG_OF_SOFTMAX,
    LOG_OF_ONE_MINUS_SIGMOID,
    LOG_OF_SIGMOID,
    KL_AT_ZERO,
    NAIVE_LOGSUMEXP,
    GUMBEL,
    INVERSE_SOFTPLUS,
)
LOGARITHMS_AT_LAST = (LOG_OF_NEGATIVE, LOG_OF_ZERO)
