"""What to record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from gradcheck_cli.observe.peers import ALONE, Peers
from gradcheck_cli.step_statistics import StepStatistics

ALWAYS_PROBED = 3


@dataclass(frozen=True)
class RecorderSettings:
    """`probe_every`: probe the first three steps, then every so many; 0 never. `max_rows`: thin beyond that.

    `eager` says that compiled modules run in eager mode, so that they can be probed. The recording ends with the
    first step whose norm exceeds `stop_above` or whose loss is not finite, unless `keep_going`. `without` are the
    identities of parameters that are left out: another optimizer trains them. `tell` is given every step once it has
    come over from the device, on a CPU at once, with the name `model`. `peers` are the recorders of other ranks.
    """

    probe_every: int = 10
    max_rows: int = 10_000
    eager: bool = False
    stop_above: float | None = None
    keep_going: bool = False
    without: frozenset[int] = frozenset()
    model: str = ""
    tell: Callable[[StepStatistics], None] | None = None
    peers: Peers = ALONE

    def probes(self, step: int) -> bool:
        """Whether to look into modules in a step, counted from 0."""
        return self.probe_every > 0 and (step < ALWAYS_PROBED or step % self.probe_every == 0)

    def is_awaited(self, loss: float) -> bool:
        """Whether somebody waits for a step with this loss: it is to be told, or may end the recording."""
        return self.tell is not None or self.stop_above is not None or not isfinite(loss)

    def reason_to_end(self, loss: float, grad_norm: float) -> str:
        """Why a step with these ends the recording, a word for `RunInfo.ended`; or nothing."""
        if self.stop_above is not None and grad_norm > self.stop_above:
            return "stop-above"
        return "" if isfinite(loss) or self.keep_going else "nonfinite-loss"
