"""Phrases that the rules share."""

from __future__ import annotations

from collections.abc import Sequence

from gradcheck_cli.records import Series


def list_names(names: Sequence[object], longest: int = 5) -> str:
    """`a, b, c and 4 more`."""
    shown = ", ".join(str(name) for name in names[:longest])
    return shown if len(names) <= longest else f"{shown} and {len(names) - longest} more"


def count(number: int, noun: str) -> str:
    """`1 step`, `3 steps`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def describe_step(series: Series, step: int) -> str:
    """`step 12 (epoch 1, batch 3)`; `step 12` where the batch is not known."""
    batch = int(series.batch[step])
    return f"step {step}" + (f" (epoch {int(series.epoch[step])}, batch {batch})" if batch >= 0 else "")


def locate_step(series: Series, step: int) -> dict[str, int]:
    """A step as evidence."""
    return {"step": int(step), "epoch": int(series.epoch[step]), "batch": int(series.batch[step])}
