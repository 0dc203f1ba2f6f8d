"""Which of a run's norms the advice is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gradcheck_cli.diagnose.clip.warmup import cut_rate_warmup, cut_warmup
from gradcheck_cli.records import Floats, Ints, Series

FEWEST = 20


@dataclass(frozen=True)
class Kept:
    """The `norms` (n,) that were kept, finite, and the `steps` (n,) that they belong to.

    `excluded` counts the steps of the warm-up that were left out, `reason` says which warm-up. `dropped` counts
    other steps by reason. `rate_rises`: the learning rate rises to the end of the run, so that nothing is after it.
    """

    norms: Floats
    steps: Ints
    excluded: int
    reason: str
    dropped: Mapping[str, int]
    rate_rises: bool


def keep(series: Series) -> Kept:
    """Leave out what the GradScaler skipped, what is not finite, the warm-up of the learning rate, that of the norms.

    A warm-up of the learning rate that leaves fewer than FEWEST steps is not cut off.
    """
    skipped = series.skipped
    usable = ~skipped & np.isfinite(series.grad_norm)
    dropped = {"skipped": int(skipped.sum()), "nonfinite": int((~skipped & ~np.isfinite(series.grad_norm)).sum())}
    rising = cut_rate_warmup(series.lr.max(axis=1)) if series.lr.size else 0
    rate_rises = rising > 0 and int(usable[rising:].sum()) < FEWEST
    begin = 0 if rate_rises else rising
    steps = np.flatnonzero(usable)
    steps = steps[steps >= begin]
    cut = cut_warmup(series.grad_norm[steps])
    reason = describe(begin, cut)
    excluded = int(usable[: steps[cut]].sum()) if cut else int(usable[:begin].sum())
    return Kept(series.grad_norm[steps[cut:]], steps[cut:], excluded, reason, dropped, rate_rises)


def describe(rising: int, cut: int) -> str:
    """What was cut off, in words; "" for nothing."""
    parts = [f"the learning rate rises over {rising} steps"] if rising else []
    parts += [f"the norms settle in the first {cut}{' after that' if rising else ''} (MSER-5)"] if cut else []
    return ", and ".join(parts)
