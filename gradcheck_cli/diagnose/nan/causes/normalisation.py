"""Statistics and normalisation layers."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import BACKWARD, FORWARD, Cause
from gradcheck_cli.diagnose.nan.evidence import HALF, Evidence
from gradcheck_cli.diagnose.nan.rewriting import rewrite, snippet
from gradcheck_cli.diagnose.nan.wording import largest, result, share, span

DEVIATIONS = ("std", "var", "std_mean", "var_mean")
NORMALISATIONS = (
    *("native_layer_norm", "native_group_norm", "native_batch_norm", "cudnn_batch_norm", "instance_norm"),
    *("native_batch_norm_legit", "native_batch_norm_legit_functional", "batch_norm_with_update", "fused_rms_norm"),
)
WEIGHT_NORMS = ("weight_norm_interface", "weight_norm")
EVERYWHERE = (*FORWARD, *BACKWARD)


def has_negative_variance(evidence: Evidence) -> bool:
    """In evaluation, where the running variance is what divides."""
    state = evidence.state("running_var")
    training = dict(evidence.forward.constants).get("training") if evidence.forward else None
    return evidence.kind == "nan" and state is not None and state.negatives > 0 and training != "True"


def overflows_squared(evidence: Evidence) -> bool:
    end = 65504.0 if evidence.input.dtype in HALF else 3.4e38
    ends = [abs(v) for v in (evidence.input.low, evidence.input.high) if v == v]
    return max(ends, default=0.0) ** 2 * max(evidence.input.numel, 1) > end


def has_no_eps(evidence: Evidence) -> bool:
    """An eps of 0, or one that half precision rounds to 0."""
    eps = evidence.constant("eps")
    return eps is not None and eps < (6e-8 if evidence.half else 1e-30)


STD_OF_ONE = Cause(
    id="std-of-one",
    title="Standard deviation or variance of one element",
    phases=FORWARD,
    ops=DEVIATIONS,
    applies_if=lambda e: e.kind == "nan" and e.input.finite,
    what_happens=(
        "`std` and `var` divide by n - 1, which is 0 for one element (the last batch of an epoch, one frame, one"
        " legal move), and give NaN."
    ),
    how_to_fix="Use `correction=0`, or leave incomplete batches out with `drop_last=True`.",
    because=lambda e: f"{e.op} over one element divides by n - 1 = 0; its input has the shape {list(e.input.shape)}",
    repair=rewrite(
        *DEVIATIONS,
        to="torch.{name}({x}{rest}, correction=0)",
        instead="torch.std(x, dim=0, correction=0)",
    ),
)

NEGATIVE_VARIANCE = Cause(
    id="running-variance-negative",
    title="A running variance below 0",
    phases=EVERYWHERE,
    ops=NORMALISATIONS,
    applies_if=has_negative_variance,
    what_happens=(
        "In evaluation a batch norm divides by the root of its running variance. No batch makes that negative, but"
        " arithmetic on checkpoints does: extrapolation, a difference of weights, an average with a negative factor."
    ),
    how_to_fix="Estimate the statistics anew on some batches, or clamp them.",
    because=lambda e: f"{share(e, 'negatives', 'running_var', 'running variances')}, and its root is NaN",
    repair=snippet("norm.running_var.clamp_(min=0)  # or reset_running_stats() and some batches in training mode"),
)

NORM_WITHOUT_EPS = Cause(
    id="norm-without-eps",
    title="Normalisation without eps",
    phases=EVERYWHERE,
    ops=NORMALISATIONS,
    applies_if=has_no_eps,
    what_happens="A normalisation divides by the standard deviation, which is 0 for a constant row or channel.",
    how_to_fix="Give the layer its eps back: 1e-5, or 1e-3 in half precision.",
    because=lambda e: f"eps is {e.constant('eps'):g}, and the variance of a row or channel is 0: {result(e)}",
    repair=snippet("nn.LayerNorm(width, eps=1e-5)"),
)

VARIANCE_OVERFLOW = Cause(
    id="variance-overflow",
    title="A variance that overflows inside a normalisation",
    phases=EVERYWHERE,
    ops=(*NORMALISATIONS, *DEVIATIONS),
    applies_if=overflows_squared,
    what_happens=(
        "The variance squares the input, and squares of 1e20 are beyond float32. The output may be finite, but the"
        " running statistics are Inf from then on."
    ),
    how_to_fix="Scale or clamp the input; look for the sample that is out of range.",
    because=lambda e: f"the inputs reach {largest(e.input)}, and their square is beyond {e.dtype}: {result(e)}",
    repair=snippet("x = x.clamp(-1e4, 1e4)  # before the normalisation"),
)

WEIGHT_NORM = Cause(
    id="weight-norm-of-zero",
    title="Weight normalisation of a vector of zeros",
    phases=EVERYWHERE,
    ops=WEIGHT_NORMS,
    applies_if=lambda e: bool(e.input.zeros),
    what_happens="weight_norm divides each row of the weight by its norm, and a row of zeros gives 0 / 0.",
    how_to_fix="Initialise the direction with random numbers; to start at 0, set the magnitude `g` to 0 instead.",
    because=lambda e: f"{share(e, 'zeros', noun='weights')}; the norm of a row of zeros is 0, and 0 / 0 is NaN",
    repair=snippet(
        "nn.init.normal_(layer.parametrizations.weight.original1)\n"
        "nn.init.zeros_(layer.parametrizations.weight.original0)  # starts at 0 all the same"
    ),
)

NORM_OVERFLOW = Cause(
    id="norm-overflow",
    title="A norm that overflows",
    phases=EVERYWHERE,
    ops=("linalg_vector_norm", "norm", "linalg_norm"),
    applies_if=lambda e: e.kind == "inf",
    what_happens="A norm squares its input, and squares of 1e20 are beyond float32 (of 256 beyond float16).",
    how_to_fix="Compute it in float32 or float64, or divide by the largest element first.",
    because=lambda e: f"the inputs of {e.op} are {span(e.input)}, and their squares overflow {e.dtype}",
    repair=rewrite("norm", "vector_norm", to="torch.linalg.vector_norm({X}.double(){rest})"),
)

NORMALISATION = (STD_OF_ONE, NEGATIVE_VARIANCE, NORM_WITHOUT_EPS, WEIGHT_NORM, VARIANCE_OVERFLOW, NORM_OVERFLOW)
