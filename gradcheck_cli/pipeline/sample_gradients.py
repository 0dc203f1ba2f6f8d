"""The gradient of each sample of a step: all at once with torch.func, or one backward after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from gradcheck_cli.drive.batches import Batch, batch_size, take
from gradcheck_cli.examination import SampleGradients
from gradcheck_cli.pipeline.kept_batches import KeptStep
from gradcheck_cli.pipeline.kept_weights import KeptWeights
from gradcheck_cli.pipeline.rerun import Rerun, widened
from gradcheck_cli.pipeline.vectorised import Deadline, Products, TooSlowError, all_at_once

MOST_SAMPLES = 512
MOST_SECONDS = 20.0
NORMALISED_BY_BATCH = nn.modules.batchnorm._BatchNorm


def measure_samples(rerun: Rerun, step: KeptStep, weights: KeptWeights) -> SampleGradients:
    """The samples' gradients without autocast, with the weights of the step if those were kept.

    Leaves a state behind. Raises what the step raises.
    """
    if reason := why_not(rerun.workload.model, step):
        return SampleGradients(step.number, reason=reason)
    at_step = weights.put_back(step.number)
    whole = rerun.gradients(step.window)
    square = product(whole, whole)
    if not square or not math.isfinite(square):
        return SampleGradients(step.number, reason=f"run again, its gradient's norm is {square**0.5:g}")
    deadline = Deadline(MOST_SECONDS)
    try:
        products = all_at_once(rerun, step.window, whole, deadline)
    except TooSlowError:
        raise
    except Exception:  # torch.func refuses much, and so may the user's code when it is given tensors without values
        rerun.restore()
        weights.put_back(step.number)
        products = one_by_one(rerun, step.window, whole, deadline)
    return replace(summarise(step, products, square), at_step=at_step)


def why_not(model: nn.Module, step: KeptStep) -> str:
    """Why the samples can't be looked at one by one, if so."""
    sizes = [batch_size(batch.data) for batch in step.window]
    if not all(sizes):
        return "a batch holds no tensor with a row for each sample"
    if sum(sizes) > MOST_SAMPLES:
        return f"its {sum(sizes)} samples are more than {MOST_SAMPLES}"
    if not step.is_intact:
        return "its batches were written to since"
    for name, module in model.named_modules():
        if isinstance(module, NORMALISED_BY_BATCH) and (module.training or module.running_mean is None):
            return f"{name or type(module).__name__} normalises over the batch: no sample has a gradient of its own"
    return ""


def summarise(step: KeptStep, products: Products, square: float) -> SampleGradients:
    """Shares of the step's gradient. A loss may be the mean over the samples or, up to accumulation, their sum."""
    total = sum(along for _, along in products) / square
    divisors = (len(products), len(step.window))
    agreement = min((total / divisor for divisor in divisors), key=lambda value: abs(value - 1))
    places = [(batch.index, row) for batch in step.window for row in range(batch_size(batch.data))]
    return SampleGradients(
        step=step.number,
        batches=tuple(index for index, _ in places),
        rows=tuple(row for _, row in places),
        norms=tuple(math.sqrt(one) for one, _ in products),
        shares=tuple(along / square / total if total else 0.0 for _, along in products),
        agreement=agreement,
    )


def one_by_one(rerun: Rerun, window: Sequence[Batch], whole: Sequence[Tensor], deadline: Deadline) -> Products:
    """A step for each sample. Raises TooSlowError at the deadline, else what the step raises."""
    products: Products = []
    for batch in window:
        for row in range(batch_size(batch.data)):
            deadline.check(len(products))
            own = rerun.gradients([replace(batch, data=take(batch.data, [row]))])
            products.append((product(own, own), product(own, whole)))
    return products


def product(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The sum of the products of their elements, in float64."""
    return sum(float((widened(a) * widened(b)).sum()) for a, b in zip(one, other, strict=True))
