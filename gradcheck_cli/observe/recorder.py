"""Record a training loop step by step, from the events that `hooks` reports.

A step ends with `optimizer.step` (or with `GradScaler.step`, when that skips it). Its gradients are measured once:
after `unscale_`, before clipping, at the latest before the update. On an accelerator nothing waits for the device:
what a step leaves behind stays there as a `Draft`, and FLUSH_EVERY drafts come over in one transfer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from gradcheck_cli.observe.draft import Draft, value_of
from gradcheck_cli.observe.hooks import observed
from gradcheck_cli.observe.inputs import B, Inputs
from gradcheck_cli.observe.instruments import Instruments
from gradcheck_cli.observe.live_steps import LiveSteps
from gradcheck_cli.observe.naming import modules_of, parameters_of
from gradcheck_cli.observe.numerics import reducer_for
from gradcheck_cli.observe.overhead import timed
from gradcheck_cli.observe.parameters import Parameters
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.observe.signals.noise import GradientPairs
from gradcheck_cli.observe.signals.weights import measure_weights
from gradcheck_cli.observe.store import Store
from gradcheck_cli.observe.transfer import to_host
from gradcheck_cli.observe.values import Held
from gradcheck_cli.records import Floats, Recording, RunInfo, Series

FLUSH_EVERY = 16
ON_HOST = 256  # there, nobody waits for a transfer, and steps are quicker stored many at a time
FLUSH_SECONDS = 0.1


class Recorder:
    """Watches one model and one optimizer while the context is open; `recording` gives what was seen.

    `taken` counts optimizer steps, `max_norm` is the first value that gradients were clipped at.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, settings: RecorderSettings | None = None) -> None:
        self._settings = settings or RecorderSettings()
        self._optimizer = optimizer
        described = [one for one in parameters_of(model, optimizer) if id(one[1]) not in self._settings.without]
        self._parameters = [info for info, _ in described]
        self._tensors = Parameters([parameter for _, parameter in described], self._settings.peers.is_alone)
        self._before: Held = ()
        self._modules = modules_of(model, self._settings.eager)
        self.instruments, self._pairs = Instruments(self._modules), GradientPairs()
        device, self.peers = described[0][1].device, self._settings.peers
        self._reducer, self._on_host = reducer_for(device), device.type == "cpu"
        self._flush_every = ON_HOST if self._on_host and self.peers.is_alone else FLUSH_EVERY
        self.peers.prepare(self._tensors.tensors, len(self.instruments.probed))
        weights = measure_weights(described, {info.name: module for info, module in self._modules})
        norms, probed = self._norms(), [self._modules[i][0].name for i in self.instruments.probed]
        live = LiveSteps(self._settings, self._parameters, norms, probed)
        self._store = Store(norms, self._tensors.trainable, self._settings, weights, live)
        self._unscaled: dict[int, tuple[Tensor, Tensor]] = {}
        self._drafts: list[Draft] = []
        self._updating, self.taken, self.overhead = False, 0, 0.0
        self._began, self._flushed = perf_counter(), 0.0  # the first step is shown at once
        self.inputs, self._stack = Inputs(), ExitStack()
        self.max_norm: float | None = None

    def __enter__(self) -> Recorder:
        with ExitStack() as stack:
            stack.callback(self.stop)
            stack.enter_context(observed(self))
            stack.enter_context(self.peers.watching())
            self.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Begin with the first step, for somebody who reports the events; `stop` must follow."""
        self._began = perf_counter()
        self._begin_step()

    def stop(self) -> None:
        """Leave nothing in the model."""
        self.instruments.detach()

    def measure_again(self) -> None:
        """Measure the gradients as they are now, in place of what was measured before in this step."""
        self.draft.measured = False
        self._measure_before_update()

    def inspect(self, batches: Iterable[B]) -> Iterator[B]:
        """The same batches; which ones a step took and what was non-finite in them is noted."""
        return self.inputs.inspect(batches)

    @property
    def steps(self) -> int:
        """How many steps have come over."""
        return self._store.steps

    @property
    def ended(self) -> str:
        """Why one of them ended the recording, a word for `RunInfo.ended`; or nothing."""
        return self._store.ended

    def latest(self, name: str) -> float:
        """The newest known value of a series."""
        return self._store.latest(name)

    def series(self, first: int = 0) -> Series:
        """All steps so far from step `first` on; waits for those that are still on the device."""
        self.flush()
        return self._store.make_series(first)

    def recording(self, run: RunInfo) -> Recording:
        """Everything recorded so far, as plain values."""
        self.flush()
        named = self._tensors.described(self._parameters, self._optimizer), [info for info, _ in self._modules]
        return self._store.recording(run, *named, self.instruments.probed, self._norms(), self.instruments.columns())

    # Events, in the order of a training step.

    @timed
    def before_backward(self, loss: Tensor) -> None:
        reentrant = torch._C._current_graph_task_id() != -1  # gradient checkpointing, inside a backward
        if not reentrant and not (self._updating and self.draft.measured):  # a closure may be called again and again
            unscaled = self._unscaled.pop(id(loss), (loss, loss))[1] if self._unscaled else loss
            self.draft.losses.append(value_of(unscaled))
            if self.draft.probing:
                self.instruments.end_first_pass()

    def after_backward(self, loss: Tensor) -> None:
        if self._updating and torch._C._current_graph_task_id() == -1:
            self._measure_in_closure()

    @timed
    def after_scale(self, loss: Tensor, scaled: Tensor) -> None:
        self._unscaled[id(scaled)] = (scaled, loss)

    @timed
    def after_unscale(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        if optimizer is self._optimizer:
            found = scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"].values()
            self.draft.values["found_inf"] = sum(found, start=torch.zeros(()))
            self.draft.values["scale"] = scaler._scale.clone()  # type: ignore[union-attr]
            self._measure()

    @timed
    def before_clip(self, parameters: Sequence[Tensor], max_norm: float | None) -> None:
        self._measure()
        self.draft.clipping, self.max_norm = True, max_norm if self.max_norm is None else self.max_norm

    @timed
    def before_update(self, optimizer: Optimizer, has_closure: bool) -> None:
        if optimizer is self._optimizer:
            self._updating = has_closure  # which makes the gradients, and maybe clips them
            if not has_closure:
                self._measure_before_update()
                self._note_settings()

    @timed
    def after_update(self, optimizer: Optimizer) -> None:
        if optimizer is self._optimizer and self._updating:
            self._measure()
            self._note_settings()
            self._updating = False
        if optimizer is self._optimizer and self.draft.measured:  # else a step inside the step that just ended
            if self._before:
                self._measure_update()
            self._end_step()

    @timed
    def after_scaler_step(self, optimizer: Optimizer) -> None:
        if optimizer is self._optimizer and self.draft.measured:  # skipped: no update ended the step
            self._note_settings()
            self._end_step()

    def _begin_step(self) -> None:
        self.draft = Draft(probing=self._settings.probes(self.taken))
        self._before = ()
        if self.draft.probing:
            self.instruments.attach()

    def _measure(self) -> None:
        if self.draft.measured:
            return
        draft, gradients = self.draft, self._tensors.gradients()
        draft.values["statistics"] = statistics = self._reducer.measure(gradients)
        draft.present = self._tensors.find_present(gradients, len(statistics))
        draft.values["weights"] = self._reducer.norms(self._tensors.trainable_values())
        draft.trainable = self._tensors.trainable
        if self._pairs.held:
            draft.values.update(self._pairs.compare(gradients))
        if draft.probing:
            self._pairs.hold(gradients)
        draft.measured = True

    def _measure_before_update(self) -> None:
        self._measure()
        if self.draft.probing and not self._before:
            self._before = self._reducer.hold(self._tensors.trainable_values())

    _measure_in_closure = timed(_measure_before_update)

    def _measure_update(self) -> None:
        updates, largest = self._reducer.changes(self._before, self._tensors.trainable_values())
        self.draft.values.update(updates=updates, largest=largest)

    def _note_settings(self) -> None:
        if self.draft.clipping:
            self.draft.values["clipped"] = self._reducer.norms(self._tensors.gradients())
        self.draft.lr = [group["lr"] for group in self._optimizer.param_groups]

    def _end_step(self) -> None:
        draft = self.draft
        draft.add_losses()
        if draft.probing:
            self.instruments.detach()
            self.overhead += self.instruments.hand_over(draft)
        self.inputs.move_to(draft)
        self.overhead += self.peers.leave_in(draft)
        now = perf_counter()
        draft.seconds, self._began = now - self._began, now
        draft.overhead, self.overhead = self.overhead, 0.0
        self._drafts.append(draft)
        self.taken += 1
        if len(self._drafts) >= self._flush_every or (self.peers.is_alone and self.is_awaited(now)):
            self.flush()
        self._begin_step()

    def is_awaited(self, now: float) -> bool:
        """Whether somebody waits for the newest step, or the progress bar is behind."""
        if not self._on_host or not self._drafts:
            return False
        loss = self._drafts[-1].values.get("loss", 0.0)
        return now - self._flushed > FLUSH_SECONDS or self._settings.is_awaited(loss)  # type: ignore[arg-type]

    def flush(self) -> None:
        """Bring all steps over from the device; all ranks must do so after the same step."""
        self._store.take(self._drafts)
        self._drafts, self._flushed = [], perf_counter()

    def _norms(self) -> Floats:
        return self.peers.whole_norms(to_host([self._reducer.norms(self._tensors.values())])[0])
