"""What looks into a model on probed steps: probes for its layers, a listener for what they call."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from gradcheck_cli.observe.draft import Draft, Probed
from gradcheck_cli.observe.naming import bears_weights
from gradcheck_cli.observe.probes import Probes
from gradcheck_cli.observe.signals.frames import Frames
from gradcheck_cli.observe.signals.listener import Listener
from gradcheck_cli.observe.signals.tables import Columns
from gradcheck_cli.observe.signals.tallies import Tallies
from gradcheck_cli.records import ModuleInfo


class Instruments:
    """Both together; `probed[i]` is the index in `modules` of probe i."""

    def __init__(self, modules: Sequence[tuple[ModuleInfo, nn.Module]]) -> None:
        self.probed = [i for i, (info, m) in enumerate(modules) if bears_weights(m) and not info.compiled]
        self._tallies = Tallies()
        compiled = any(info.compiled for info, _ in modules)
        # What compiled code calls can't be listened to, and hooks and modes around it would compile it again.
        heard = [] if compiled else [(info.name, module) for info, module in modules]
        frames = Frames()
        self._probes = Probes([modules[i][1] for i in self.probed], self._tallies, frames.is_open)
        self._listener = Listener(heard, self._tallies, frames, self._probes.told)

    def attach(self) -> None:
        """Look from now on."""
        self._probes.attach(self._listener.listens())
        self._listener.attach()

    def detach(self) -> None:
        """Leave nothing behind."""
        self._probes.detach()
        self._listener.detach()

    def end_first_pass(self) -> None:
        """A backward begins."""
        self._listener.end_first_pass()

    def hand_over(self, draft: Draft) -> float:
        """Put what was seen into the draft; returns the seconds that it took to see it."""
        values, layout = self._tallies.take()
        draft.values.update(values)
        draft.probed = Probed(layout, self._probes.output_numel, self._probes.gradient_numel)
        return self._probes.seconds + self._listener.seconds

    def columns(self) -> Columns:
        """Which column of which table is what."""
        return self._listener.columns()
