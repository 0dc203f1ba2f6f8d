"""Watch a training loop's calls, whoever wrote it: torch tells of each, and what it did to the gradients is measured.

Entered before the loop, and left after it; nothing that is watched is changed. Values of gradients are looked at in a
sample, and on an accelerator they stay there until `audit` is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from math import nan
from operator import attrgetter
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from gradcheck_cli.audit import LoopAudit, OptimizerSeen
from gradcheck_cli.observe.audit.gradients import Gradients, address, are_new, is_same
from gradcheck_cli.observe.audit.journal import Journal
from gradcheck_cli.observe.audit.losses import describe, mark_scaled
from gradcheck_cli.observe.audit.measures import cosine_of_clamp, count_nonfinite, number_in
from gradcheck_cli.observe.audit.modes import Modes
from gradcheck_cli.observe.audit.patches import audited
from gradcheck_cli.observe.audit.sites import Line, Sites, is_within, location_of
from gradcheck_cli.observe.audit.stale import Suspect, find_stale, find_suspects

Run = Callable[[], Any]
SUSPECT_AT = 0
MOST_COSINES = 50
CHANGING = frozenset({"backward", "zero", "clip-norm", "clip-value", "unscale", "step"})
NUMBER = attrgetter("number")


class Auditor:
    """`audit()` gives what was seen so far."""

    def __init__(self) -> None:
        self._journal, self._sites, self._modes = Journal(), Sites(), Modes()
        self._all: list[Gradients] = []  # of each optimizer that there is; never changed, but replaced
        self._of: dict[int, Gradients] = {}  # the same by the optimizer's identity
        self._made: list[tuple[str, Line | None, int]] = []
        self._suspects: dict[int, list[Suspect]] = {}
        self._stale: dict[int, tuple[str, ...]] = {}
        self._steps: dict[int, int] = {}
        self._schedulers: WeakKeyDictionary[LRScheduler, int] = WeakKeyDictionary()
        self._scale: Tensor | float = nan
        self._replaced: dict[int, dict[str, Any]] = {}
        self._memory: dict[int | None, Gradients] | None = None
        self._cosines = 0
        self._in_scaler = self._in_scheduler = self._in_mode = False
        self._undo = ExitStack()

    def __enter__(self) -> Auditor:
        self._undo.enter_context(audited(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def audit(self, ended: bool = True) -> LoopAudit:
        """What was seen so far, as plain values; waits for the device. `ended`: the loop came to its own end."""
        optimizers = tuple(
            OptimizerSeen(kind, location_of(line), size, self._stale.get(number, ()))
            for number, (kind, line, size) in enumerate(self._made)
        )
        return LoopAudit(self._journal.events(), optimizers, self._modes.seen(), ended)

    # What torch tells of.

    def on_made(self, optimizer: Optimizer) -> None:
        self._known(optimizer)

    def on_backward(self, run: Run, losses: Any, gradient: Any, retains: bool) -> Any:
        self._look(self._all)
        before = [(one, one.marks()) for one in self._all]
        values = describe(losses, gradient is not None)
        result = run()
        self._memory = None
        reached = []
        for one, marks in before:
            one.choose()
            if one.marks() != marks:
                reached.append(one)
                one.hold_weights()
        values["retains"], values["inactive"] = retains, self._modes.inactive(reached)
        self._note("backward", reached, values)
        return result

    def on_zero(self, run: Run) -> Any:
        before = [(one, one.marks()) for one in self._all]
        result = run()
        self._memory = None
        for one, marks in before:
            if any(marks) and are_new(one.marks(), marks):
                self._note("zero", [one], {"moved": one.moved})
        return result

    def on_clip(self, run: Run, kind: str, parameters: list[Tensor], limit: float | Tensor) -> Any:
        ids = set(map(id, parameters))
        clipped = [one for one in self._all if not ids.isdisjoint(one.ids)]
        self._look(clipped)
        values: dict[str, Any] = {"limit": number_in(limit), "scale": self._scale}
        if kind == "clip-value" and self._journal.measuring and self._cosines < MOST_COSINES:
            values["cosine"] = cosine_of_clamp(parameters, limit)
            self._cosines += 1
        result = run()
        self._note(kind, clipped, {"norm": number_in(result), **values})
        return result

    def on_scale(self, scaler: GradScaler, scaled: Any) -> None:
        every = scaled if isinstance(scaled, (list, tuple)) else [scaled]  # a map is used up by whoever reads it
        for tensor in every:
            if isinstance(tensor, Tensor):
                mark_scaled(tensor)
        self._scale = number_in(scaler._scale)

    def on_unscale(self, run: Run, scaler: GradScaler, optimizer: Optimizer) -> Any:
        own = self._known(optimizer)
        self._look([own])
        try:
            result = run()
        except RuntimeError:
            self._note("unscale", [own], {"scale": number_in(scaler._scale), "failed": True})
            raise
        self._note("unscale", [own], {"scale": number_in(scaler._scale)})
        return result

    def on_scaler_step(self, run: Run, scaler: GradScaler, optimizer: Optimizer) -> Any:
        own = self._known(optimizer)
        before = self._steps.get(own.number, 0)
        self._in_scaler = True
        try:
            result = run()
        finally:
            self._in_scaler = False
        if self._steps.get(own.number, 0) == before:
            self._note("skipped", [own], {"scaled": True, "scale": self._scale})
            self._end_window()
        return result

    def before_step(self, optimizer: Optimizer, *_: Any) -> None:
        own = self._known(optimizer)
        self._look([own])
        steps = self._steps.get(own.number, 0)
        if steps == SUSPECT_AT:
            optimized = {number for one in self._all for number in one.ids}
            self._suspects[own.number] = find_suspects(own.parameters, optimized)
        elif suspects := self._suspects.pop(own.number, None):
            self._stale[own.number] = find_stale(own.parameters, suspects)

    def after_step(self, optimizer: Optimizer, *_: Any) -> None:
        own = self._known(optimizer)
        self._steps[own.number] = self._steps.get(own.number, 0) + 1
        self._note("step", [own], {"scaled": self._in_scaler, "scale": self._scale})
        self._end_window()

    def on_scheduler(self, run: Run, scheduler: LRScheduler) -> Any:
        if self._in_scheduler or is_within("__init__", "lr_scheduler.py"):
            return run()
        number = self._schedulers.setdefault(scheduler, len(self._schedulers))
        own = [one for one in self._all if one.optimizer is getattr(scheduler, "optimizer", one)]
        self._note("scheduler", own, {"scheduler": number})
        self._in_scheduler = True
        try:
            return run()
        finally:
            self._in_scheduler = False

    def on_mode(self, run: Run, module: nn.Module, training: bool) -> Any:
        if self._in_mode:
            return run()
        self._in_mode = True
        try:
            result = run()
        finally:
            self._in_mode = False
        self._modes.change(module, training, self._sites.here()[1])
        return result

    def on_nan_to_num(self, tensor: Tensor) -> None:
        if self._memory is None:
            self._memory = {at: one for one in self._all for at in one.memory()}
        owner = self._memory.get(address(tensor))
        if owner is None and torch._C._current_graph_task_id() == -1:
            return
        site, line = self._sites.here()
        values = self._replaced.get(site)
        if values is None:
            values = self._replaced[site] = {"count": 0}
            self._journal.add("replace", (owner.number,) if owner else (), site, line, values)
        values["count"] = values["count"] + count_nonfinite(tensor)

    # What is done with it.

    def _known(self, optimizer: Optimizer) -> Gradients:
        """An optimizer's gradients; one that was made before the auditor came is new when it is met."""
        if one := self._of.get(id(optimizer)):
            return one
        one = self._of[id(optimizer)] = Gradients(optimizer, len(self._made), self._forget)
        self._all = [*self._all, one]
        self._made.append((type(optimizer).__name__, self._sites.here()[1], len(one.ids)))
        return one

    def _forget(self, _: object) -> None:
        """An optimizer is gone."""
        self._of = {id(optimizer): one for one in self._all if (optimizer := one.optimizer) is not None}
        self._all = [*self._of.values()]

    def _look(self, gradients: Iterable[Gradients]) -> None:
        """Note what the gradients are now, where that is not what the last known call left."""
        for one in gradients if self._journal.measuring else ():
            before, now = one.look()
            if not is_same(before, now):
                self._note("look", [one], {"before": before, "now": now, "moved": one.moved})

    def _note(self, kind: str, gradients: Sequence[Gradients], values: dict[str, Any]) -> None:
        """Note a call; what it left in the gradients is known from here on."""
        self._journal.add(kind, tuple(map(NUMBER, gradients)), *self._sites.here(), values)
        if self._journal.measuring and kind in CHANGING:
            for one in gradients:
                one.known = one.values()

    def _end_window(self) -> None:
        if self._replaced:
            self._replaced.clear()
        self._memory = None
        self._journal.end_window()
