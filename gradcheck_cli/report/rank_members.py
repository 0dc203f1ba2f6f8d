"""What the JSON report says of the ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from gradcheck_cli.ranks import PER_STEP, Ranks
from gradcheck_cli.report.rank_rows import make_rows


def rank_members(ranks: Ranks) -> dict[str, Any]:
    """The group, each rank with its own figures and series, and where the ranks differ."""
    return {
        "size": ranks.size,
        "strategy": ranks.strategy,
        "backend": ranks.backend,
        "finds_unused": ranks.finds_unused,
        "sync_seconds": ranks.sync_seconds,
        "entries": list(entries(ranks)),
        "unused": ranks.unused,
        "desyncs": ranks.desyncs,
        "checked": ranks.checked,
    }


def entries(ranks: Ranks) -> Iterator[dict[str, Any]]:
    """One a rank: its row of the table, and one value per step of each series."""
    for row in make_rows(ranks):
        yield {**asdict(row), "series": {name: getattr(ranks, name)[:, row.rank] for name in PER_STEP}}
