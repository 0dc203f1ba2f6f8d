"""One observer of torch for all recorders that are open: they may be opened and closed in any order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from gradcheck_cli.observe.hooks import observed
from gradcheck_cli.observe.recorder import Recorder


class Relay:
    """Passes each event on to every recorder; hooks into torch while there is one."""

    def __init__(self) -> None:
        self._recorders: tuple[Recorder, ...] = ()
        self._hooks = ExitStack()

    def attach(self, recorder: Recorder) -> None:
        """Begin to report to a recorder."""
        if not self._recorders:
            self._hooks.enter_context(observed(self))
        self._recorders += (recorder,)
        recorder.start()

    def detach(self, recorder: Recorder) -> None:
        """Report to it no more."""
        self._recorders = tuple(one for one in self._recorders if one is not recorder)
        recorder.stop()
        if not self._recorders:
            self._hooks.close()

    def before_backward(self, loss: Tensor) -> None:
        for recorder in self._recorders:
            recorder.before_backward(loss)

    def after_backward(self, loss: Tensor) -> None:
        for recorder in self._recorders:
            recorder.after_backward(loss)

    def after_scale(self, loss: Tensor, scaled: Tensor) -> None:
        for recorder in self._recorders:
            recorder.after_scale(loss, scaled)

    def after_unscale(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        for recorder in self._recorders:
            recorder.after_unscale(scaler, optimizer)

    def before_clip(self, parameters: Sequence[Tensor], max_norm: float | None) -> None:
        for recorder in self._recorders:
            recorder.before_clip(parameters, max_norm)

    def before_update(self, optimizer: Optimizer, has_closure: bool) -> None:
        for recorder in self._recorders:
            recorder.before_update(optimizer, has_closure)

    def after_update(self, optimizer: Optimizer) -> None:
        for recorder in self._recorders:
            recorder.after_update(optimizer)

    def after_scaler_step(self, optimizer: Optimizer) -> None:
        for recorder in self._recorders:
            recorder.after_scaler_step(optimizer)


RELAY = Relay()
