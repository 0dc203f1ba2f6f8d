"""Watch whatever trains: a recorder for each optimizer and the model that it trains.

The recorders hear of torch's events from here: a loss goes to those whose gradients its backward changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from gradcheck_cli.observe.deliveries import Deliveries
from gradcheck_cli.observe.hand_updates import HandUpdates
from gradcheck_cli.observe.hooks import observed, patched
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.observe.search import Search, modules_with_gradients
from gradcheck_cli.observe.watched import Watched

ATTEMPTS = 3
"""After so many backward calls without an optimizer, nobody is looked for who updates by hand."""


class Session:
    """While the context is open, `watched` grows by every model that trains; `stepped` is called after each step."""

    def __init__(self, settings: RecorderSettings, stepped: Callable[[Watched], None]) -> None:
        self._settings, self._stepped = settings, stepped
        self._search = Search(self._watch)
        self._deliveries = Deliveries()
        self._unscaled: dict[int, tuple[Tensor, Tensor]] = {}
        self._reached: list[tuple[Watched, list[tuple[int, int]]]] = []
        self._attempts = 0
        self._stack = ExitStack()
        self.watched: list[Watched] = []

    def __enter__(self) -> Session:
        with ExitStack() as stack:
            stack.callback(self._stop)
            stack.enter_context(observed(self))
            stack.enter_context(self._deliveries.noted())
            stack.enter_context(patched(Optimizer, "__init__", self._after(self._note_optimizer)))
            stack.enter_context(patched(Optimizer, "zero_grad", self._after(self._forget_losses_of)))
            stack.enter_context(patched(nn.Module, "zero_grad", self._after(self._forget_losses_in)))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def before_backward(self, loss: Tensor) -> None:
        if torch._C._current_graph_task_id() == -1:
            self._search.settle()
            self._reached = [(one, one.stamps()) for one in self.watched] if len(self.watched) > 1 else []

    def after_backward(self, loss: Tensor) -> None:
        if torch._C._current_graph_task_id() != -1:
            return
        _, loss = self._unscaled.pop(id(loss), (loss, loss))
        self._find_hand_updates()
        if len(self.watched) == len(self._reached):
            reached = [one for one, before in self._reached if one.stamps() != before]
        else:
            reached = self.watched
        for one in reached:
            one.after_backward(loss)

    def after_scale(self, loss: Tensor, scaled: Tensor) -> None:
        self._unscaled[id(scaled)] = (scaled, loss)

    def after_unscale(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        for one in self.watched:
            one.scaled |= one.optimizer is optimizer
            one.recorder.after_unscale(scaler, optimizer)

    def before_clip(self, parameters: Sequence[Tensor], max_norm: float | None) -> None:
        clipped = {id(parameter) for parameter in parameters}
        for one in self.watched:
            if one.holds(clipped):
                one.recorder.before_clip(parameters, max_norm)

    def before_update(self, optimizer: Optimizer, has_closure: bool) -> None:
        self._search.settle_for(optimizer)
        for one in self.watched:
            one.recorder.before_update(optimizer, has_closure)

    def after_update(self, optimizer: Optimizer) -> None:
        for one in self.watched:
            one.recorder.after_update(optimizer)
            self._tell(one)

    def after_scaler_step(self, optimizer: Optimizer) -> None:
        for one in self.watched:
            one.recorder.after_scaler_step(optimizer)
            self._tell(one)

    def _tell(self, one: Watched) -> None:
        if one.has_stepped():
            self._stepped(one)

    def _watch(self, model: nn.Module, optimizer: Optimizer) -> None:
        for one in [one for one in self.watched if one.by_hand and one.model is model]:  # its optimizer came late
            one.stop()
            self.watched.remove(one)
        if any(parameter.requires_grad for parameter in model.parameters()):
            self.watched.append(Watched(model, optimizer, self._settings, self._deliveries))

    def _find_hand_updates(self) -> None:
        if self.watched or self._search.waiting or self._attempts >= ATTEMPTS:
            return
        self._attempts += 1
        for model in modules_with_gradients():
            self._watch(model, HandUpdates(model))
        if self.watched:
            self._stack.enter_context(patched(nn.Module, "__call__", self._end_steps_by_hand))

    def _end_steps_by_hand(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def look_and_call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            for one in self.watched:
                if one.by_hand and any(module is root for root in one.roots) and torch.is_grad_enabled():
                    one.end_step_by_hand()
                    self._tell(one)
            return call(module, *args, **kwargs)

        return look_and_call

    def _note_optimizer(self, optimizer: Any) -> None:
        if not isinstance(optimizer, HandUpdates):
            self._search.add(optimizer)

    def _forget_losses_of(self, optimizer: Any) -> None:
        for one in self.watched:
            if one.optimizer is optimizer:
                one.forget_losses()

    def _forget_losses_in(self, module: Any) -> None:
        inner = {id(child) for child in module.modules()} if len(self.watched) > 1 else set()
        for one in self.watched:
            if id(one.model) in inner:
                one.forget_losses()

    @staticmethod
    def _after(event: Callable[[Any], None]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
            def report(subject: Any, *args: Any, **kwargs: Any) -> Any:
                result = call(subject, *args, **kwargs)
                event(subject)
                return result

            return report

        return wrap

    def _stop(self) -> None:
        self._search.close()
        for one in self.watched:
            one.stop()
