"""Audits written by hand: the events of a loop by their kinds, so that a test states only what is special."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gradcheck_cli.audit import EvalSeen, LoopAudit, LoopEvent, OptimizerSeen
from gradcheck_cli.records import Location, Recording
from tests.diagnose.recordings import make_recording

LINES = {"zero": 1, "backward": 2, "unscale": 3, "edit": 4, "clip-norm": 5, "clip-value": 6, "step": 7, "skipped": 7}
LINES |= {"scheduler": 8, "replace": 9, "gap": 0}
USUAL: dict[str, dict[str, Any]] = {
    "backward": {"loss": 1.0, "reduction": "mean", "factor": 1.0},
    "clip-norm": {"limit": 1.0, "norm": 2.0},
    "clip-value": {"limit": 1.0, "cosine": 1.0},
    "unscale": {"scale": 1024.0},
    "scheduler": {"scheduler": 0},
}


def event(kind: str, line: int | None = None, optimizers: Sequence[int] = (0,), **values: Any) -> LoopEvent:
    """An event; by default each kind is called from a line of its own."""
    number = LINES[kind] if line is None else line
    return LoopEvent(
        kind,
        tuple(optimizers),
        Location("train.py", number),
        values.pop("site", number),
        **{**USUAL.get(kind, {}), **values},
    )


def scaled(kind: str, **values: Any) -> LoopEvent:
    """An event under a GradScaler."""
    return event(kind, scaled=True, scale=1024.0, **values)


def recorded(
    *events: str | LoopEvent,
    repeat: int = 1,
    optimizers: Sequence[OptimizerSeen] = (OptimizerSeen("SGD"),),
    evals: Sequence[EvalSeen] = (),
    ended: bool = True,
    recording: Recording | None = None,
) -> Recording:
    """A recording whose script did these things, `repeat` times over."""
    once = [event(one) if isinstance(one, str) else one for one in events]
    made = [replace(one) for _ in range(repeat) for one in once]  # each an event of its own
    return replace(recording or make_recording(), audit=LoopAudit(tuple(made), tuple(optimizers), tuple(evals), ended))
