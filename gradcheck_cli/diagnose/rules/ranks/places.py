"""Ranks, and where in its own data one was, in words and as evidence."""

from __future__ import annotations

from collections.abc import Sequence

from gradcheck_cli.diagnose.wording import list_names
from gradcheck_cli.ranks import Ranks

ONE_RANK = "there is only one rank"


def name_rank(ranks: Ranks, rank: int) -> str:
    """`rank 3 (node-7)`; without the host where it is not known."""
    return f"rank {rank}" + (f" ({ranks.hosts[rank]})" if ranks.hosts[rank] else "")


def list_ranks(numbers: Sequence[int]) -> str:
    """`rank 3`, `ranks 1, 3`."""
    return f"rank{'s' if len(numbers) != 1 else ''} {list_names(numbers)}"


def describe_batch(ranks: Ranks, step: int, rank: int) -> str:
    """`step 12 (epoch 1, batch 3)`, the batch being the rank's own; `step 12` where it is not known."""
    batch = int(ranks.batch[step, rank])
    return f"step {step}" + (f" (epoch {int(ranks.epoch[step, rank])}, batch {batch})" if batch >= 0 else "")


def locate_batch(ranks: Ranks, step: int, rank: int) -> dict[str, int | str]:
    """A rank and its batch at a step as evidence."""
    return {
        "rank": int(rank),
        "host": ranks.hosts[rank],
        "step": int(step),
        "epoch": int(ranks.epoch[step, rank]),
        "batch": int(ranks.batch[step, rank]),
        "ranks": ranks.size,
    }
