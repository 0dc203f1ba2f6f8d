"""Reports of made-up runs of several ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradcheck_cli.ranks import Desync, Ranks, UnusedOnSome
from gradcheck_cli.records import Recording, Report
from tests.diagnose.recordings import make_recording, ripple
from tests.report.reports import VERSIONS, make_report, rounded

STEPS = 6


def make_ranks(hosts: Sequence[str], steps: int = STEPS, **members: Any) -> Ranks:
    """Ranks that are alike but for small differences, on their hosts; `members` are what is different."""
    size = len(hosts)
    unevenness = ripple(steps * size).reshape(steps, size)
    known: dict[str, Any] = {
        "strategy": "ddp",
        "backend": "gloo",
        "loss": np.linspace(2.3, 1.6, steps)[:, None] * unevenness,
        "grad_norm": 0.8 * unevenness,
        "nonfinite": np.zeros((steps, size)),
        "seconds": np.full((steps, size), 0.05),
        "own_seconds": 0.02 * unevenness,
        "batch": size * np.arange(steps)[:, None] + np.arange(size),
        "epoch": np.zeros((steps, size), dtype=np.int64),
        "syncs": np.ones((steps, size), dtype=np.int64),
        "sync_seconds": 0.004,
        "checked": (0, steps - 1),
    }
    return rounded(Ranks(hosts=tuple(hosts), **(known | members)))


def ranks_report(ranks: Ranks, recording: Recording | None = None, **members: Any) -> Report:
    """A report of `gradcheck profile` on all of them."""
    made = recording or make_recording(steps=len(ranks.loss), grad_norm=0.4, versions=VERSIONS)
    return make_report(replace(made, ranks=ranks), ranks=ranks, **members)


def four_ranks() -> Report:
    """Rank 2 on the second machine has a bad shard, rank 3 waits for its data; they have come apart."""
    ranks = make_ranks(["node7", "node7", "node8", "node8"])
    grad_norm, own_seconds = ranks.grad_norm.copy(), ranks.own_seconds.copy()
    nonfinite = ranks.nonfinite.copy()
    grad_norm[:, 2] *= 40
    grad_norm[4, 2], nonfinite[4, 2] = float("nan"), 1290
    own_seconds[:, 3] += 0.02
    return ranks_report(
        replace(
            ranks,
            grad_norm=rounded(replace(ranks, grad_norm=grad_norm)).grad_norm,
            nonfinite=nonfinite,
            own_seconds=own_seconds,
            unused=(UnusedOnSome("fc2.bias", 1, 2, (0, 3)),),
            desyncs=(Desync("norm.running_mean", True, 5, (1, 2, 3)),),
        )
    )


def many_ranks() -> Report:
    """Sixty-four of them, on eight machines with long names; nothing was measured of their gradients on some."""
    hosts = [f"trainer-worker-{rank // 8}.training.svc.cluster.local" for rank in range(64)]
    ranks = make_ranks(hosts, strategy="fsdp2", backend="nccl", sync_seconds=float("nan"), finds_unused=False)
    grad_norm = ranks.grad_norm.copy()
    grad_norm[:, 41] *= 3
    grad_norm[:, 8:16] = float("nan")
    return ranks_report(replace(ranks, grad_norm=grad_norm))


def hostile_ranks() -> Report:
    """Hosts whose names try to act."""
    return ranks_report(make_ranks(["[red]node[/red]", "evil\x1b[2Jhost\x07", "a|b`c`\n# d", "x" * 100]))


RANKS: Mapping[str, Report] = {"ranks": four_ranks(), "ranks-many": many_ranks(), "ranks-hostile": hostile_ranks()}
