"""What the advice says in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gradcheck_cli.clip_advice import ClipQuantile
from gradcheck_cli.diagnose.clip.kept import Kept
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.records import Recording

if TYPE_CHECKING:
    from gradcheck_cli.diagnose.clip.basis import Basis

OPEN_LOOP = (
    "the replays are open loop: they count on the norms of the run as it was; clipping changes the path that the "
    "training takes, and so the norms to come"
)
ADAM = (
    "under {name}, which divides by the gradient's own size, a max_norm that clips every step alike changes almost "
    "nothing: what acts is how much more it shortens the large gradients than the others"
)
SGD = "under {name} a clipped gradient makes a smaller step: a max_norm that clips often is a cut of the learning rate"
EITHER = (
    "under Adam a max_norm that clips every step alike changes almost nothing, under SGD it is a cut of the step size"
)


def name_caveats(optimizer: str) -> tuple[str, ...]:
    """What holds for every answer, with the optimizer by its class name, "" for not known."""
    if "adam" in optimizer.lower() or optimizer in ("RMSprop", "Adagrad", "Adadelta", "Adafactor"):
        return (OPEN_LOOP, ADAM.format(name=optimizer))
    return (OPEN_LOOP, SGD.format(name=optimizer) if "SGD" in optimizer.upper() else EITHER)


def describe_shortage(quantiles: Sequence[ClipQuantile], kept: Kept) -> str:
    """Why not even the lowest percentile can be had."""
    first, n = quantiles[0], len(kept.norms)
    if first.value is not None:
        return f"p{first.percentile:g} is 0: {n - np.count_nonzero(kept.norms)} of {n} gradients are zero"
    worth = f"the {count(n, 'kept step')} {'is' if n == 1 else 'are'} worth {int(first.n_eff)}"
    return f"p{first.percentile:g} needs {first.needed} independent steps; {worth}"


def name_limits(recording: Recording, basis: Basis) -> tuple[str, ...]:
    """What the numbers cannot say."""
    return tuple(iterate_limits(recording, basis))


def iterate_limits(recording: Recording, basis: Basis) -> Iterator[str]:
    """Each limit, the gravest first."""
    choice = basis.choice
    if choice and choice.interval is None:
        yield "too few steps for an interval: the value is a rough one"
    if basis.kept.rate_rises:
        yield "the learning rate still rises at the end of the run: ask for more --steps than its warm-up has"
    if basis.drift and basis.drift.found:
        yield (
            "the norms drift, so the value ages: measure again later in training, with --checkpoint"
            if choice
            else "the norms drift, which makes the steps worth so few: more help only once the norms settle; or begin"
            " there, with --checkpoint"
        )
    if not recording.parameters:
        loss = "" if np.isfinite(recording.series.loss).any() else " and a diverging loss"
        yield f"from norms alone, exploding layers{loss} would not be seen"
    if not recording.run.has_optimizer:
        yield "there was no optimizer, so the weights stood still: in training the norms will move"
