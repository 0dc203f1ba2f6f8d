"""What to record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RecorderSettings:
    """`probe_every`: probe the first three steps, then every so many; 0 never. `max_rows`: thin beyond that.

    `eager` says that compiled modules run in eager mode, so that they can be probed. The recording ends with the
    first step whose norm exceeds `stop_above` or whose loss is not finite, unless `keep_going`.
    """

    probe_every: int = 10
    max_rows: int = 10_000
    eager: bool = False
    stop_above: float | None = None
    keep_going: bool = False
