"""Find the model that an optimizer trains, in code that nobody has told us about."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from gradcheck_cli.observe.hooks import patched

Found = Callable[[nn.Module, Optimizer], None]


class Search:
    """Tells `found` of each optimizer and its model: the first module called that holds all of its parameters.

    Calls of modules are looked at only while an optimizer is without its model.
    """

    def __init__(self, found: Found) -> None:
        self._found = found
        self._called: dict[Optimizer, list[nn.Module]] = {}
        self._looking = ExitStack()

    @property
    def waiting(self) -> bool:
        """Whether there is an optimizer without a model."""
        return bool(self._called)

    def add(self, optimizer: Optimizer) -> None:
        """An optimizer was made."""
        if not self._called:
            self._looking.enter_context(patched(nn.Module, "__call__", self._watch_call))
        self._called[optimizer] = []

    def close(self) -> None:
        """Look at no more calls."""
        self._looking.close()

    def settle(self) -> None:
        """A backward begins: optimizers whose parameters are in several modules that were called get them together."""
        for optimizer in [optimizer for optimizer, called in self._called.items() if called]:
            self.settle_for(optimizer)

    def settle_for(self, optimizer: Optimizer) -> None:
        """Decide for an optimizer by what is known now, if it is still without a model."""
        if optimizer in self._called:
            called = self._called[optimizer]
            self._tell(holder_of(parameter_ids(optimizer)) or bundle(called), optimizer)

    def _watch_call(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def look_and_call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if not torch.compiler.is_compiling():
                self._look(module)
            return call(module, *args, **kwargs)

        return look_and_call

    def _look(self, module: nn.Module) -> None:
        own = {id(parameter) for parameter in module.parameters()}
        for optimizer, called in list(self._called.items()):
            wanted = parameter_ids(optimizer)
            if wanted <= own:
                self._tell(module, optimizer)
            elif wanted & own and not any(module is inner for outer in called for inner in outer.modules()):
                called.append(module)

    def _tell(self, model: nn.Module, optimizer: Optimizer) -> None:
        del self._called[optimizer]
        if not self._called:
            self._looking.close()
        self._found(model, optimizer)


def parameter_ids(optimizer: Optimizer) -> set[int]:
    """The identities of its parameters."""
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def holder_of(wanted: set[int]) -> nn.Module | None:
    """Of all modules that there are, the one with the fewest parameters that holds the wanted ones; the outermost."""
    sizes = [(len(own), -len(list(module.modules())), number, module) for number, module, own in living_modules()
             if wanted and wanted <= own]  # fmt: skip
    return min(sizes)[3] if sizes else None


def living_modules() -> Iterable[tuple[int, nn.Module, set[int]]]:
    """Every module that is not about to be collected, numbered, with the identities of its parameters."""
    modules = [thing for thing in gc.get_objects() if issubclass(type(thing), nn.Module)]  # no __class__
    for number, module in enumerate(modules):
        if "_parameters" in module.__dict__:
            yield number, module, {id(parameter) for parameter in module.parameters()}


def modules_with_gradients() -> list[nn.Module]:
    """The outermost modules with a parameter that has a gradient."""
    trained = [
        module
        for _, module, _ in living_modules()
        if any(parameter.grad is not None for parameter in module.parameters())
    ]
    inner = {id(child) for module in trained for child in module.modules() if child is not module}
    return [module for module in trained if id(module) not in inner]


def bundle(modules: Sequence[nn.Module]) -> nn.Module:
    """One module that holds them under their names; the module itself if it is only one."""
    if len(modules) == 1:
        return modules[0]
    together = nn.Module()
    for module in modules:
        together.add_module(name_of(module, together._modules), module)
    return together


def name_of(module: nn.Module, taken: Iterable[str]) -> str:
    """What the script calls a module, among its globals; else its class in lower case."""
    script = vars(sys.modules["__main__"])
    own = next((name for name, value in script.items() if value is module and name.isidentifier()), "")
    name = own or type(module).__name__.lower()
    number = 2
    while name in taken:
        name, number = f"{name.rstrip('0123456789_')}_{number}", number + 1
    return name
