"""Runs of several ranks in which nothing is wrong, so that a test states only what is different."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gradcheck_cli.ranks import Ranks
from gradcheck_cli.records import Floats, Recording
from tests.diagnose.recordings import make_recording


def healthy_norms(steps: int, size: int, seed: int = 0, sigma: float = 0.2) -> Floats:
    """(steps, ranks): log-normal around a decay that all ranks have in common."""
    random = np.random.default_rng(seed)
    return np.exp(-np.arange(steps) / 100)[:, None] * random.lognormal(0, sigma, (steps, size))


def make_ranks(size: int = 4, steps: int = 40, **different: Any) -> Ranks:
    """Ranks alike, two on each host; each takes its share of 16 batches an epoch."""
    shape = (steps, size)
    batch = np.arange(steps)[:, None] * size + np.arange(size)
    plain: dict[str, Any] = {
        "loss": np.ones(shape),
        "grad_norm": healthy_norms(steps, size),
        "nonfinite": np.zeros(shape),
        "seconds": np.full(shape, 0.010),
        "own_seconds": np.full(shape, 0.004),
        "batch": batch % 16,
        "epoch": batch // 16,
        "syncs": np.ones(shape, dtype=np.int64),
        "sync_seconds": 0.002,
        "checked": tuple(range(0, steps, 10)),
        "finds_unused": False,
    }
    return Ranks("ddp", "gloo", tuple(f"node-{rank // 2}" for rank in range(size)), **(plain | different))


def run_of(ranks: Ranks | None, **about: Any) -> Recording:
    """The recording of a run of these ranks; `about` is for `make_recording`."""
    return replace(make_recording(steps=len(ranks.loss) if ranks else 40, **about), ranks=ranks)


def made(size: int = 4, steps: int = 40, **different: Any) -> Recording:
    """The recording of a run of such ranks."""
    return run_of(make_ranks(size, steps, **different))
