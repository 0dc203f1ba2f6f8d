"""Losses that are a mean over nothing, or infinite by definition."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import BACKWARD, FORWARD, Cause
from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.nan.rewriting import rewrite, snippet
from gradcheck_cli.diagnose.nan.wording import result, share, span

NLL = ("nll_loss_forward", "nll_loss2d_forward", "nll_loss", "nll_loss_nd", "nll_loss2d")
MEANS = (
    *("mean", "nanmean", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy", "median"),
    *("binary_cross_entropy_with_logits", "soft_margin_loss", "multi_margin_loss", "kl_div", "poisson_nll_loss"),
)
CTC = ("ctc_loss", "cudnn_ctc_loss", "miopen_ctc_loss")


def has_weights(evidence: Evidence) -> bool:
    weight = evidence.state("weight")
    return evidence.kind == "nan" and weight is not None and weight.zeros > 0


def target_count(evidence: Evidence) -> int:
    target = evidence.state("target") or evidence.state(1)
    return target.numel if target else 0


CLASS_WEIGHTS = Cause(
    id="class-weights-zero",
    title="Every target's class has weight 0",
    phases=(*FORWARD, *BACKWARD),
    ops=NLL,
    applies_if=has_weights,
    what_happens="The weighted mean divides by the sum of the targets' weights, which is 0: 0 / 0.",
    how_to_fix="Give every class a weight above 0, or divide by the number of targets yourself.",
    because=lambda e: (
        f"{share(e, 'zeros', 'weight', 'class weights')}, those of all {target_count(e)} targets among them"
    ),
    repair=rewrite(
        *("cross_entropy", "nll_loss"),
        to="weight = weight.clamp(min=1e-6)  # before the loss",
        instead="weight = weight.clamp(min=1e-6)  # before the loss",
    ),
)

LABELS_IGNORED = Cause(
    id="every-label-ignored",
    title="Every label is ignored",
    phases=FORWARD,
    ops=NLL,
    applies_if=lambda e: e.kind == "nan" and e.input.finite,
    what_happens=(
        "With `reduction='mean'` the loss divides by the number of labels that are not `ignore_index`. Where all are,"
        " it is 0 / 0. The gradients are 0, so that the run goes on and only the loss shows it."
    ),
    how_to_fix="Skip such batches, or sum and divide by a count of at least 1.",
    because=lambda e: f"all {target_count(e)} labels are ignore_index: a mean over nothing",
    repair=rewrite(
        *("cross_entropy", "nll_loss"),
        to='F.{name}({x}{rest}, reduction="sum") / (labels != ignore_index).sum().clamp(min=1)',
        instead='F.cross_entropy(logits, labels, reduction="sum") / (labels != ignore_index).sum().clamp(min=1)',
    ),
)

MEAN_OF_EMPTY = Cause(
    id="mean-of-empty",
    title="Mean of nothing",
    phases=FORWARD,
    ops=MEANS,
    applies_if=lambda e: e.kind == "nan" and e.input.numel == 0,
    what_happens="The mean of an empty selection is 0 / 0.",
    how_to_fix="Sum and divide by a count of at least 1, or skip the term where nothing is selected.",
    because=lambda e: f"the input of {e.op} has the shape {list(e.input.shape)}: nothing was selected",
    repair=rewrite("mean", to="{X}.sum({rest}) / max({X}.numel(), 1)", instead="x.sum() / max(x.numel(), 1)"),
)

CTC_TOO_LONG = Cause(
    id="ctc-target-too-long",
    title="CTC target that is longer than its input",
    phases=(*FORWARD, *BACKWARD),
    ops=CTC,
    applies_if=lambda e: e.input.finite,
    what_happens=(
        "A target of n labels needs n frames, and one more between two equal labels. With fewer there is no"
        " alignment, its probability is 0 and the loss infinite."
    ),
    how_to_fix="Set `zero_infinity=True`, or drop such samples from the data.",
    because=lambda e: f"{result(e)}: the target has more labels (with repeats) than there are frames",
    repair=rewrite(
        "ctc_loss", to="F.ctc_loss({x}{rest}, zero_infinity=True)", instead="nn.CTCLoss(zero_infinity=True)"
    ),
)

MASKED_TARGET = Cause(
    id="masked-target",
    title="The target class is masked",
    phases=FORWARD,
    ops=(*NLL, "gather", "index", "mean", "sum"),
    applies_if=lambda e: e.kind == "inf" and any(operand.state.negative_inf for operand in e.inputs),
    what_happens="A logit of -inf has probability 0. Where it is the target's, the loss is -log(0) = inf.",
    how_to_fix="Do not mask the target's class; check that labels and mask agree.",
    because=lambda e: f"{result(e)}: the target's log-probability is -inf",
    repair=snippet("mask[torch.arange(len(labels)), labels] = False  # never mask the target"),
)

MEAN_OVERFLOW = Cause(
    id="loss-overflow",
    title="A loss that overflows",
    phases=("loss",),
    ops=(*MEANS, *NLL),
    applies_if=lambda e: e.kind == "inf",
    what_happens="The loss squares or sums numbers beyond its format: predictions or targets are out of range.",
    how_to_fix="Scale the targets to about 1, or use a loss that grows linearly (`smooth_l1_loss`).",
    because=lambda e: f"{result(e)}: the predictions are {span(e.input)}, the targets {span(e.state(1) or e.input)}",
    repair=snippet("F.smooth_l1_loss(prediction, target)"),
)

LOSSES = (CLASS_WEIGHTS, LABELS_IGNORED, MEAN_OF_EMPTY, CTC_TOO_LONG, MASKED_TARGET, MEAN_OVERFLOW)
