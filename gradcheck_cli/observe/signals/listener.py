"""Listen to a model's calls on probed steps: to its modules by hooks, to the functions that they call by a mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    _global_forward_hooks_with_kwargs,
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from gradcheck_cli.observe.signals.blocks import first_tensor, is_stacked, measure_block, puts_tokens_first
from gradcheck_cli.observe.signals.frames import Frames, Role, role_of
from gradcheck_cli.observe.signals.functions import Functions, is_measurable
from gradcheck_cli.observe.signals.outputs import measure_output
from gradcheck_cli.observe.signals.recurrence import hidden_state, watch_input, with_gradient
from gradcheck_cli.observe.signals.tables import Columns
from gradcheck_cli.observe.signals.tallies import Tallies
from gradcheck_cli.signals import Site


class Listener:
    """Between `attach` and `detach` it adds to the tallies what `gradcheck_cli.signals` describes.

    Modules that gradient checkpointing calls again, within a backward, are left alone, and calls without gradients.
    `told` has, by a module's identity, who wants each call of it, with what it was given and what it returned.
    """

    def __init__(
        self,
        modules: Sequence[tuple[str, nn.Module]],
        tallies: Tallies,
        frames: Frames,
        told: Mapping[int, Callable[..., None]],
    ) -> None:
        eager = [(name, module) for name, module in modules if not isinstance(module, torch.jit.ScriptModule)]
        self._handles: list[RemovableHandle] = []
        self._frames, self._told = frames, told
        self.tallies = tallies
        self.functions = Functions(self._frames, self.tallies)
        self.lengths: dict[int, int] = {}
        self._cell_calls: dict[str, int] = {}
        self._first_pass = True
        self._heard_from = 0  # so many frames were open when it began to hear of functions; 0 while it doesn't
        self.seconds = 0.0
        self._blocks = blocks_of([module for _, module in eager])
        self._roles = {id(module): role_of(name, module, module in self._blocks) for name, module in eager}

    def attach(self) -> None:
        """Listen from now on."""
        self._first_pass, self._cell_calls, self.seconds = True, {}, 0.0
        if self._roles:  # two hooks for all modules: hundreds of handles would wake the garbage collector
            self._handles.append(register_module_forward_pre_hook(self._enter))  # type: ignore[arg-type]
            self._handles.append(register_module_forward_hook(self._leave, with_kwargs=True, always_call=True))

    def detach(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()
            _global_forward_hooks_with_kwargs.pop(handle.id, None)  # which torch's own handle forgets
        self._handles = []
        self._frames.clear()  # in the middle of a call
        self._stop_hearing()

    def listens(self) -> bool:
        """Whether it hears of every module's calls while it is attached."""
        return bool(self._roles)

    def end_first_pass(self) -> None:
        """From the first backward on, gradients at time steps are those of the first micro-batch only."""
        self._first_pass = False

    def columns(self) -> Columns:
        """Which column of which table is what, for all that was taken."""
        return Columns(self.tallies.columns, self.functions.activity, self.lengths)

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        role = self._roles.get(id(module))
        if role is None or is_recomputing() or not (self._frames.open or trains(args)):
            return None
        self._frames.enter(role)
        if not self._heard_from and not role.is_quiet:
            self._heard_from = len(self._frames.open)
            self.functions.__enter__()  # type: ignore[no-untyped-call]
        if isinstance(module, nn.RNNBase) and args and self._first_pass:
            return self._watch_recurrence(role.name, module, args)
        return None

    def _leave(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        *kwargs, output = rest  # torch leaves the keywords out where a forward raised
        if (wanted := self._told.get(id(module))) is not None:
            wanted(module, args, output)
        role = self._roles.get(id(module))
        if role is None or is_recomputing() or not self._frames.open:
            return
        began = perf_counter()
        if role.kind and not self._heard_from and is_measurable(output):
            with torch._C.DisableTorchFunction():
                self.functions.measure_activation(role.kind, output)
        self._frames.leave(role)
        if len(self._frames.open) < self._heard_from:
            self._stop_hearing()
        if role.is_whole:
            with torch._C.DisableTorchFunction():
                self._measure(role, first_tensor([*args, *kwargs]), output)
        self.seconds += perf_counter() - began + self.functions.seconds
        self.functions.seconds = 0.0

    def _stop_hearing(self) -> None:
        if self._heard_from:
            self._heard_from = 0
            self.functions.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def _measure(self, role: Role, given: Tensor | None, output: Any) -> None:
        returned, tokens_first = first_tensor(output), self._blocks.get(role.module)
        if tokens_first is not None and returned is not None and is_measurable(returned):
            self.tallies.add("block", role.name, measure_block(given, returned, tokens_first))
        if isinstance(role.module, nn.RNNCellBase) and self._first_pass:
            self._watch_cell(role.name, hidden_state(output))
        if not role.name:
            self._measure_result(given, output)

    def _measure_result(self, given: Tensor | None, output: Any) -> None:
        measured = measure_output(output, given)
        if measured:
            values, scores = measured
            self.tallies.add("result", scores, values)

    def _watch_recurrence(self, name: str, module: nn.RNNBase, args: tuple[Any, ...]) -> tuple[Any, ...]:
        site = Site(name, type(module).__name__.lower())
        if name in self._cell_calls:
            return args
        watched = with_gradient(module, args)
        handle = watch_input(module, watched[0], lambda squares, length: self._note_times(site, squares, length))
        if handle:
            self._cell_calls[name] = 1
            self._handles.append(handle)  # an input that outlives the step would keep it
        return watched

    def _note_times(self, site: Site, squares: Tensor, length: int) -> None:
        self.tallies.add_series(site, squares)
        self.lengths[self.tallies.column("time", site)] = length

    def _watch_cell(self, name: str, state: Tensor | None) -> None:
        site, call = Site(name, "cell"), self._cell_calls.get(name, 0)
        self._cell_calls[name] = call + 1
        self.lengths[self.tallies.column("time", site)] = call + 1
        if state is not None:
            state.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: self.tallies.add_call(site, call, gradient.detach().float().square().mean())
            )


def blocks_of(modules: Sequence[nn.Module]) -> dict[nn.Module, bool]:
    """The blocks of stacks, and whether their tensors have the tokens first."""
    pairs = [(parent, child) for parent in modules for child in parent.children() if is_stacked(parent, child)]
    return {child: puts_tokens_first(child) for _, child in pairs}


def trains(args: tuple[Any, ...]) -> bool:
    """Whether an outermost call is one with gradients; gradient checkpointing turns them off for a while."""
    return torch.is_grad_enabled() or any(isinstance(given, Tensor) and given.requires_grad for given in args)


def is_recomputing() -> bool:
    """Whether this runs within a backward, as gradient checkpointing does, or is being compiled."""
    return torch.compiler.is_compiling() or torch._C._current_graph_task_id() != -1
