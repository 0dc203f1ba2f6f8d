"""Watch whatever trains: a recorder for each optimizer and the model that it trains.

The recorders hear of torch's events from here: a loss goes to those whose gradients its backward changed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from gradcheck_cli.observe.deliveries import Deliveries
from gradcheck_cli.observe.hand_updates import HandUpdates
from gradcheck_cli.observe.hooks import observed, patched
from gradcheck_cli.observe.loss_scales import LossScales
from gradcheck_cli.observe.peers import ALONE, Peers
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.observe.search import Search, all_gradients, modules_with_new_gradients, name_of, parameter_ids
from gradcheck_cli.observe.watched import Watched

ATTEMPTS = 3
"""After so many backward calls without an optimizer, nobody is looked for who updates by hand."""


class Session:
    """While the context is open, `watched` grows by every model that trains; `stepped` is called after each step.

    `peers_of` tells who else trains a model.
    """

    def __init__(
        self,
        settings: RecorderSettings,
        stepped: Callable[[Watched], None],
        peers_of: Callable[[nn.Module], Peers] = lambda model: ALONE,
    ) -> None:
        self._settings, self._stepped, self._peers_of = settings, stepped, peers_of
        self._search = Search(self._watch)
        self._deliveries = Deliveries()
        self._reached: list[tuple[Watched, list[tuple[int, int]]]] = []
        self._attempts = 0
        self._sees_sharded_clips = False
        self._gradients: set[tuple[int, int]] = set()
        self._in_closure: Optimizer | None = None
        self._process = os.getpid()
        self._stack = ExitStack()
        self.scales = LossScales()
        self.watched: list[Watched] = []

    def __enter__(self) -> Session:
        with ExitStack() as stack:
            stack.callback(self._stop)
            stack.enter_context(observed(self))
            stack.enter_context(patched(GradScaler, "scale", self.scales.noting))
            stack.enter_context(self._deliveries.noted())
            for name in ("__init__", "__setstate__"):  # the latter makes a copy
                stack.enter_context(patched(Optimizer, name, self._after(self._note_optimizer)))
            stack.enter_context(patched(Optimizer, "zero_grad", self._after(self._forget_gradients_of)))
            stack.enter_context(patched(nn.Module, "zero_grad", self._after(self._forget_gradients_in)))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def before_backward(self, loss: Tensor) -> None:
        if torch._C._current_graph_task_id() == -1:
            if self._search.waiting:
                self._search.settle()
            self._reached = [(one, one.stamps()) for one in self.watched] if len(self.watched) > 1 else []
            if self._attempts < ATTEMPTS and not self.watched:
                self._gradients = all_gradients()

    def after_backward(self, loss: Tensor) -> None:
        if torch._C._current_graph_task_id() != -1:
            return
        loss, scale = self.scales.undo(loss)
        if not self.watched:
            self._find_hand_updates()
        if len(self.watched) == len(self._reached):
            reached = [one for one, before in self._reached if one.stamps() != before]
        else:
            reached = self.watched
        for one in reached:
            one.after_backward(loss)
            self.scales.after_backward(one, scale)

    def after_scale(self, loss: Tensor, scaled: Tensor) -> None:
        """`scales` hears of it itself, and of the GradScaler."""

    def after_unscale(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        for one in self.watched:
            if one.optimizer is optimizer:
                one.scaled = True
                self.scales.after_unscale(one)
            one.recorder.after_unscale(scaler, optimizer)

    def before_clip(self, parameters: Sequence[Tensor], max_norm: float | None) -> None:
        clipped = {id(parameter) for parameter in parameters}
        for one in self.watched:
            if one.holds(clipped):
                one.recorder.before_clip(parameters, max_norm)
                self.scales.after_measuring_for_clip(one)

    def before_update(self, optimizer: Optimizer, has_closure: bool) -> None:
        if has_closure:
            self._in_closure = optimizer
        elif self._search.waiting:
            self._search.settle()
        for one in self.watched:
            if one.optimizer is optimizer:
                one.before_update(has_closure)
                self.scales.after_measuring_for_update(one)

    def after_update(self, optimizer: Optimizer) -> None:
        self._in_closure = None
        for one in self.watched:
            if one.optimizer is optimizer:
                one.after_update()
                self._tell(one)

    def after_scaler_step(self, optimizer: Optimizer) -> None:
        for one in self.watched:
            one.recorder.after_scaler_step(optimizer)
            self._tell(one)

    def _tell(self, one: Watched) -> None:
        if one.has_stepped() and os.getpid() == self._process:  # nobody waits for the steps of a fork
            self._stepped(one)

    def _watch(self, model: nn.Module, optimizer: Optimizer, roots: Sequence[nn.Module]) -> None:
        for one in [one for one in self.watched if one.by_hand and one.holds(parameter_ids(optimizer))]:
            one.stop()  # its optimizer came late
            self.watched.remove(one)
        if any(parameter.requires_grad for group in optimizer.param_groups for parameter in group["params"]):
            name = name_of(model, {one.name for one in self.watched}, optimizer.param_groups[0]["params"])
            peers = self._peers_of(model)
            settings = replace(self._settings, without=self._search.others(optimizer), model=name, peers=peers)
            bare = model.module if isinstance(model, DistributedDataParallel) else model
            self.watched.append(Watched(name, bare, roots, optimizer, settings, self._deliveries))
            self._stack.enter_context(peers.watching())
            if self._in_closure is optimizer:
                self.watched[-1].before_update(True)

    def _find_hand_updates(self) -> None:
        if self._attempts >= ATTEMPTS:
            return
        self._attempts += 1
        for model in modules_with_new_gradients(self._gradients):
            self._watch(model, HandUpdates(model), [model])
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
            self._watch_sharded_clips()
            self._search.add(optimizer)

    def _watch_sharded_clips(self) -> None:
        """FSDP1 clips by a method of its own; a script with an optimizer for it has imported it."""
        fsdp = sys.modules.get("torch.distributed.fsdp")
        if fsdp and not self._sees_sharded_clips:
            self._sees_sharded_clips = True
            home = fsdp.FullyShardedDataParallel
            self._stack.enter_context(patched(home, "clip_grad_norm_", self._reporting_sharded_clip))

    def _reporting_sharded_clip(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def clip_grad_norm_(module: nn.Module, max_norm: Any, *args: Any, **kwargs: Any) -> Any:
            limit = float(max_norm) if isinstance(max_norm, (int, float)) else None  # a tensor's would be waited for
            self.before_clip(list(module.parameters()), limit)
            return call(module, max_norm, *args, **kwargs)

        return clip_grad_norm_

    def _forget_gradients_of(self, optimizer: Any) -> None:
        for one in self.watched:
            if one.optimizer is optimizer:
                one.forget_gradients()

    def _forget_gradients_in(self, module: Any) -> None:
        thrown_away = {id(parameter) for parameter in module.parameters()}
        for one in self.watched:
            if one.holds(thrown_away):
                one.forget_gradients()

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
