"""Record a training loop step by step, from the events that `hooks` reports.

A step ends with `optimizer.step` (or with `GradScaler.step`, when that skips it). Its gradients are measured once:
after `unscale_`, before clipping, at the latest before the update. On an accelerator nothing waits for the device:
what a step leaves behind stays there as a `Draft`, and FLUSH_EVERY drafts come over in one transfer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from math import isfinite
from time import perf_counter
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from gradcheck_cli.observe.draft import Draft
from gradcheck_cli.observe.hooks import observed
from gradcheck_cli.observe.inputs import B, Inputs
from gradcheck_cli.observe.instruments import Instruments
from gradcheck_cli.observe.naming import modules_of, parameters_of
from gradcheck_cli.observe.numerics import reducer_for
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.observe.signals.noise import GradientPairs
from gradcheck_cli.observe.signals.weights import measure_weights
from gradcheck_cli.observe.store import Store
from gradcheck_cli.observe.transfer import to_host
from gradcheck_cli.observe.updates import Updates
from gradcheck_cli.records import Floats, Recording, RunInfo, Series

FLUSH_EVERY = 16
FLUSH_SECONDS = 0.1
ALWAYS_PROBED = 3


def timed(method: Callable[..., None]) -> Callable[..., None]:
    """Count the time that an event takes as overhead."""

    def wrapper(self: Recorder, *args: Any) -> None:
        began = perf_counter()
        method(self, *args)
        self._overhead += perf_counter() - began

    return wrapper


class Recorder:
    """Watches one model and one optimizer while the context is open; `recording` gives what was seen."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, settings: RecorderSettings | None = None) -> None:
        self._settings = settings or RecorderSettings()
        self._optimizer = optimizer
        described = parameters_of(model, optimizer)
        self._parameters = [info for info, _ in described]
        self._tensors = [parameter for _, parameter in described]
        self._trainable = [i for i, parameter in enumerate(self._tensors) if parameter.requires_grad]
        self._trainable_tensors = [self._tensors[i] for i in self._trainable]
        self._present: list[int] = []
        eager = self._settings.eager
        self._modules = [(replace(info, compiled=info.compiled and not eager), m) for info, m in modules_of(model)]
        self._instruments = Instruments(self._modules)
        self._pairs = GradientPairs()
        device = self._tensors[0].device
        self._reducer = reducer_for(device)
        self._on_host = device.type == "cpu"
        weights = measure_weights(described, {info.name: module for info, module in self._modules})
        self._store = Store(self._norms(), self._trainable, self._settings.max_rows, weights)
        self._unscaled: dict[int, tuple[Tensor, Tensor]] = {}
        self._inputs = Inputs()
        self._updates: Updates | None = None
        self._drafts: list[Draft] = []
        self._step = 0
        self._overhead = 0.0
        self._stack = ExitStack()
        self.ended = ""

    def __enter__(self) -> Recorder:
        with ExitStack() as stack:
            stack.callback(self._instruments.detach)
            stack.enter_context(observed(self))
            self._began = self._flushed = perf_counter()
            self._begin_step()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def inspect(self, batches: Iterable[B]) -> Iterator[B]:
        """The same batches; which ones a step took and what was non-finite in them is noted."""
        return self._inputs.inspect(batches)

    @property
    def steps(self) -> int:
        """How many steps have come over from the device."""
        return self._store.steps

    def latest(self, name: str) -> float:
        """The newest known value of a series ("loss", "grad_norm", ...)."""
        return self._store.latest(name)

    @property
    def series(self) -> Series:
        """All steps so far; waits for those that are still on the device."""
        self._flush()
        return self._store.make_series()

    def recording(self, run: RunInfo) -> Recording:
        """Everything recorded so far, as plain values."""
        self._flush()
        modules = [info for info, _ in self._modules]
        seen = self._instruments
        return self._store.recording(run, self._parameters, modules, seen.probed, self._norms(), seen.columns())

    # Events, in the order of a training step.

    @timed
    def before_backward(self, loss: Tensor) -> None:
        if torch._C._current_graph_task_id() == -1:  # else reentrant gradient checkpointing, inside a backward
            _, unscaled = self._unscaled.pop(id(loss), (loss, loss))
            self._draft.losses.append(unscaled.detach())
            self._instruments.end_first_pass()

    @timed
    def after_scale(self, loss: Tensor, scaled: Tensor) -> None:
        self._unscaled[id(scaled)] = (scaled, loss)

    @timed
    def after_unscale(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        if optimizer is self._optimizer:
            found = scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"].values()
            self._draft.values["found_inf"] = sum(found, start=torch.zeros(()))
            self._draft.values["scale"] = scaler._scale.clone()  # type: ignore[union-attr]
            self._measure()

    @timed
    def before_clip(self) -> None:
        self._measure()
        self._draft.clipping = True

    @timed
    def before_update(self, optimizer: Optimizer) -> None:
        if optimizer is self._optimizer:
            self._measure()
            self._note_settings()
            if self._draft.probing:
                self._updates = Updates(self._trainable_tensors, self._reducer)

    @timed
    def after_update(self, optimizer: Optimizer) -> None:
        if optimizer is self._optimizer and self._draft.measured:  # else a step inside the step that just ended
            if self._updates:
                self._draft.values.update(self._updates.measure())
            self._end_step()

    @timed
    def after_scaler_step(self, optimizer: Optimizer) -> None:
        if optimizer is self._optimizer and self._draft.measured:  # skipped: no update ended the step
            self._note_settings()
            self._end_step()

    def _begin_step(self) -> None:
        every = self._settings.probe_every
        self._draft = Draft(probing=every > 0 and (self._step < ALWAYS_PROBED or self._step % every == 0))
        self._updates = None
        if self._draft.probing:
            self._instruments.attach()

    def _measure(self) -> None:
        if self._draft.measured:
            return
        gradients = [tensor.grad for tensor in self._tensors]
        present = [i for i, gradient in enumerate(gradients) if gradient is not None]
        if present != self._present:
            self._present = present
        self._draft.present = self._present  # the same list for as long as it holds, to save memory
        with torch.no_grad():
            if present:
                self._draft.values["statistics"] = self._reducer.measure([g for g in gradients if g is not None])
            self._draft.values["weights"] = self._reducer.norms(self._trainable_tensors)
            self._draft.values.update(self._pairs.compare(gradients))
            if self._draft.probing:
                self._pairs.hold(gradients)
        self._draft.measured = True

    def _note_settings(self) -> None:
        if self._draft.clipping and self._present:
            clipped = [self._tensors[i].grad for i in self._present]
            self._draft.values["clipped"] = self._reducer.norms([g for g in clipped if g is not None])
        self._draft.lr = [group["lr"] for group in self._optimizer.param_groups]

    def _end_step(self) -> None:
        draft = self._draft
        draft.add_losses()
        if draft.probing:
            self._instruments.detach()
            self._overhead += self._instruments.hand_over(draft)
        self._inputs.move_to(draft)
        now = perf_counter()
        draft.seconds, self._began = now - self._began, now
        draft.overhead, self._overhead = self._overhead, 0.0
        self._drafts.append(draft)
        self._step += 1
        if len(self._drafts) == FLUSH_EVERY or (self._on_host and self._is_urgent(draft)):
            self._flush()
        self._begin_step()

    def _is_urgent(self, draft: Draft) -> bool:
        """Whether somebody waits for this step: it may end the run, or the progress bar is behind."""
        overdue = perf_counter() - self._flushed > FLUSH_SECONDS
        loss = draft.values.get("loss", 0.0)
        return overdue or self._settings.stop_above is not None or not isfinite(loss)  # type: ignore[arg-type]

    def _flush(self) -> None:
        arrays = iter(to_host([value for draft in self._drafts for value in draft.values.values()]))
        for draft in self._drafts:
            values = {name: next(arrays) for name in draft.values}
            if not self.ended:
                self._store.add(draft, values)
                self.ended = self._reason_to_end()
        self._drafts = []
        self._flushed = perf_counter()

    def _reason_to_end(self) -> str:
        loss, norm = self.latest("loss"), self.latest("grad_norm")
        if self._settings.stop_above is not None and norm > self._settings.stop_above:
            return "stop-above"
        nonfinite = loss != loss or abs(loss) == float("inf")
        return "nonfinite-loss" if nonfinite and not self._settings.keep_going else ""

    def _norms(self) -> Floats:
        with torch.no_grad():
            return to_host([self._reducer.norms(self._tensors)])[0]
