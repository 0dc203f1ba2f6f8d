"""Masks: everything masked, masked too late, or with numbers that the format does not hold."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import BACKWARD, FORWARD, Cause
from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.nan.rewriting import rewrite, snippet
from gradcheck_cli.diagnose.nan.wording import largest, result, span
from gradcheck_cli.tape import TensorState

LARGEST = {"float16": 65504.0, "bfloat16": 3.38e38, "float32": 3.4e38, "float64": 1.79e308}
ATTENTION = (
    *(
        "scaled_dot_product_flash_attention_for_cpu",
        "scaled_dot_product_flash_attention",
        "scaled_dot_product_attention",
    ),
    *("scaled_dot_product_efficient_attention", "scaled_dot_product_cudnn_attention"),
    *("scaled_dot_product_attention_math", "scaled_dot_product_fused_attention_overrideable"),
)
SOFTMAXES = ("softmax", "log_softmax", "safe_softmax", "logsumexp")


def reads_minus_infinity(evidence: Evidence) -> bool:
    return evidence.kind == "nan" and any(operand.state.negative_inf for operand in evidence.inputs)


def reads_only_masks(evidence: Evidence) -> bool:
    return reads_minus_infinity(evidence) and not any(operand.state.positive_inf for operand in evidence.inputs)


def limit(evidence: Evidence) -> float:
    return LARGEST.get(evidence.dtype, float("inf"))


def is_mask_in_half(evidence: Evidence) -> bool:
    """A large negative number for masked places: only -inf comes out, from numbers that are 0 or very negative."""
    output, given = evidence.output, evidence.input
    one_sided = output.negative_inf > 0 and not output.positive_inf
    return one_sided and (evidence.largest_constant > limit(evidence) or (given.high <= 0 and given.low <= -1e4))


def is_sum_of_masks(evidence: Evidence) -> bool:
    end, states = limit(evidence), [operand.state for operand in evidence.inputs]
    return len(states) > 1 and all(state.low <= -end / 2 and state.high < end / 100 for state in states)


def is_zero_times_inf(evidence: Evidence) -> bool:
    """The product itself, of an Inf that was written on purpose."""
    states: list[TensorState] = [operand.state for operand in evidence.inputs]
    product = evidence.op in ("mul", "addcmul", "bmm", "mm", "addmm", "matmul", "baddbmm")
    return (
        product
        and evidence.kind == "nan"
        and any(s.zeros for s in states)
        and (any(s.inf for s in states) or evidence.largest_constant == float("inf"))
    )


def smooths(evidence: Evidence) -> bool:
    """Whether it meets the -inf of a log_softmax."""
    operands = [operand for operand in evidence.inputs if operand.state.negative_inf]
    made = [evidence.made_by("log_softmax", argument=operand.argument) for operand in operands]
    return "smoothing" in evidence.text or any(made)


def repair_sum(evidence: Evidence) -> str:
    clamped = f"({{x}} + {{y}}).clamp(min=torch.finfo(torch.{evidence.dtype}).min)"
    return rewrite("add", to=clamped, instead="allowed = allowed & ~padding  # and one additive mask of it")(evidence)


SOFTMAX_MASKED = Cause(
    id="softmax-fully-masked",
    title="Softmax or attention over a row in which everything is masked",
    phases=(*FORWARD, *BACKWARD),
    ops=(*SOFTMAXES, *ATTENTION),
    applies_if=reads_only_masks,
    what_happens=(
        "A softmax over nothing but -inf is 0 / 0: an empty sequence, a padded query, a mask that is turned around."
        " One such row makes the loss, and through it every gradient, NaN."
    ),
    how_to_fix=(
        "Leave at least one place open in every row, or fill with the smallest finite number in place of -inf and"
        " multiply the result by the mask."
    ),
    because=lambda e: f"a row holds nothing but -inf: {result(e)}",
    repair=rewrite(
        "softmax",
        to="torch.softmax({X}.clamp(min=-1e4){rest})",
        instead="mask = mask | ~mask.any(-1, keepdim=True)  # True: may be attended to; open the empty rows",
    ),
)

CATEGORICAL_MASKED = Cause(
    id="categorical-fully-masked",
    title="Categorical distribution in which every class is masked",
    phases=FORWARD,
    ops=("sub",),
    applies_if=lambda e: reads_minus_infinity(e) and e.made_by("logsumexp", argument=1) is not None,
    what_happens="The logits are normalised by subtracting their logsumexp: -inf - (-inf) is NaN where all are masked.",
    how_to_fix="Leave at least one class open in every row, for instance where an episode is over.",
    because=lambda e: f"a row of logits holds nothing but -inf: {result(e)}",
    repair=snippet("legal = legal | ~legal.any(-1, keepdim=True)  # open the rows in which nothing is legal"),
)

LABEL_SMOOTHING = Cause(
    id="label-smoothing-over-inf",
    title="Label smoothing, or soft targets, over a masked logit",
    phases=FORWARD,
    ops=("mul", "sum", "mean", "log_softmax", "masked_fill", "neg", "add", "nll_loss_forward", "gather"),
    applies_if=smooths,
    what_happens=(
        "Smoothing gives every class a share of the target. The log-probability of a class masked with -inf is -inf,"
        " so the loss is infinite; with a share of 0 it is 0 · (-inf) = NaN."
    ),
    how_to_fix="Mask with a finite number, leave smoothing away, or smooth over the open classes only.",
    because=lambda e: f"log-probabilities of masked classes are -inf, and the loss takes a share of each: {result(e)}",
    repair=rewrite("masked_fill", to="{X}.masked_fill({y}, -1e4)", instead="logits.masked_fill(mask, -1e4)"),
)

ZERO_TIMES_INF = Cause(
    id="zero-times-inf",
    title="A mask applied after the infinity",
    phases=FORWARD,
    ops=(),
    applies_if=lambda e: (e.kind == "inf" and e.mask_product is not None) or is_zero_times_inf(e),
    what_happens="0 · inf is NaN: multiplying by a mask of 0 and 1 does not remove an Inf that is already there.",
    how_to_fix="Make the input harmless before the operator, or select with `torch.where` in place of a product.",
    because=lambda e: f"{result(e)}: a mask multiplies {'Inf' if e.kind == 'nan' else 'them'} by 0 (0 · inf = NaN)",
    repair=rewrite(
        *("log", "log2", "log10", "sqrt", "exp"),
        to="torch.{name}(torch.where(mask > 0, {x}, 1.0)) * mask",
        instead="torch.where(mask > 0, x, 0.0)  # in place of x * mask",
    ),
)

MASK_OVERFLOW = Cause(
    id="mask-overflow",
    title="A mask value that half precision does not hold",
    phases=FORWARD,
    ops=("to_copy", "mul", "masked_fill", "add", "full", "full_like", "where", "scalar_tensor", "rsub", "sub", "fill"),
    applies_if=lambda e: e.half and is_mask_in_half(e),
    refusal=r"masked_fill",
    what_happens="-1e9 is beyond float16, which ends at ±65504: it becomes -inf, and a fully masked row NaN.",
    how_to_fix="Use `torch.finfo(scores.dtype).min`, or a boolean mask with `scaled_dot_product_attention`.",
    because=lambda e: f"the mask value overflows {e.dtype or 'float16'}, which ends at ±65504",
    repair=rewrite(
        "masked_fill",
        to="{X}.masked_fill({y}, torch.finfo({X}.dtype).min)",
        instead="scores.masked_fill(mask == 0, torch.finfo(scores.dtype).min)",
    ),
)

MASK_SUM = Cause(
    id="mask-sum-overflow",
    title="Two masks of the smallest number added",
    phases=FORWARD,
    ops=("add", "sub", "baddbmm", "addmm"),
    applies_if=lambda e: e.kind == "inf" and is_sum_of_masks(e),
    what_happens="finfo.min + finfo.min is -inf: two additive masks that are fine alone overflow where both apply.",
    how_to_fix="Combine boolean masks with & and make one additive mask, or clamp the sum.",
    because=lambda e: f"both terms reach {largest(*(o.state for o in e.inputs))}, the end of {e.dtype}: {result(e)}",
    repair=repair_sum,
)

ATTENTION_OVERFLOW = Cause(
    id="attention-overflow",
    title="Attention scores that overflow",
    phases=(*FORWARD, *BACKWARD),
    ops=ATTENTION,
    what_happens="Products of queries and keys overflow inside the kernel, and inf - inf in its softmax is NaN.",
    how_to_fix="Normalise queries and keys (QK norm), or run attention in float32 or bfloat16.",
    because=lambda e: f"queries are {span(e.state(0))} and keys {span(e.state(1))}: their products overflow",
    repair=snippet("q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)  # with a learned scale"),
)


MASKS = (
    SOFTMAX_MASKED,
    CATEGORICAL_MASKED,
    LABEL_SMOOTHING,
    MASK_SUM,
    MASK_OVERFLOW,
    ATTENTION_OVERFLOW,
    ZERO_TIMES_INF,
)
