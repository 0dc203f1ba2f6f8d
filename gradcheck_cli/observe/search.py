"""Find the model that an optimizer trains, in code that nobody has told us about."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from inspect import CO_OPTIMIZED
from itertools import count
from types import FrameType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradcheck_cli.observe.audit.sites import USERS, users_frames
from gradcheck_cli.observe.hooks import patched

Found = Callable[[nn.Module, Optimizer, Sequence[nn.Module]], None]


class Search:
    """Tells `found` of each optimizer, its model, and the modules of it that are called.

    The model is the first module called that holds all parameters of the optimizer; if none was by the first backward,
    the smallest that does; if there is none, all that were called together. Calls are looked at only while an optimizer
    is without its model.
    """

    def __init__(self, found: Found) -> None:
        self._found = found
        self.waiting: dict[Optimizer, list[nn.Module]] = {}
        """Optimizers without a model, and which modules with parameters of theirs were called."""
        self._known: WeakSet[Optimizer] = WeakSet()
        self._looking = ExitStack()

    def add(self, optimizer: Optimizer) -> None:
        """An optimizer was made, or made again of a state, which it may do to itself."""
        if optimizer in self._known:
            return
        if not self.waiting:
            self._looking.enter_context(patched(nn.Module, "__call__", self._watch_call))
        self.waiting[optimizer] = []
        self._known.add(optimizer)

    def others(self, optimizer: Optimizer) -> frozenset[int]:
        """The identities of the parameters that only other optimizers hold."""
        every = frozenset[int]().union(*map(parameter_ids, self._known))
        return every - parameter_ids(optimizer)

    def close(self) -> None:
        """Look at no more calls."""
        self._looking.close()

    def settle(self) -> None:
        """Decide for every optimizer that is still without a model: a backward begins."""
        for optimizer, called in list(self.waiting.items()):
            model = holder_of(parameter_ids(optimizer)) or bundle(called)
            self._tell(model, optimizer, called or [model])

    def _watch_call(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def look_and_call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if not torch.compiler.is_compiling():
                self._look(module)
            return call(module, *args, **kwargs)

        return look_and_call

    def _look(self, module: nn.Module) -> None:
        own = {id(parameter) for parameter in module.parameters()}
        for optimizer, called in list(self.waiting.items()):
            wanted = parameter_ids(optimizer)
            if wanted <= own:
                self._tell(module, optimizer, [module])
            elif wanted & own and not any(module is inner for outer in called for inner in outer.modules()):
                called.append(module)

    def _tell(self, model: nn.Module, optimizer: Optimizer, roots: Sequence[nn.Module]) -> None:
        del self.waiting[optimizer]
        if not self.waiting:
            self._looking.close()
        self._found(model, optimizer, roots)


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


def gradients_of(module: nn.Module) -> set[tuple[int, int]]:
    """What changes when a gradient of the module does."""
    gradients = [parameter.grad for parameter in module.parameters()]
    return {(id(gradient), gradient._version) for gradient in gradients if gradient is not None}


def all_gradients() -> set[tuple[int, int]]:
    """Those of all modules that there are."""
    return set[tuple[int, int]]().union(*(gradients_of(module) for _, module, _ in living_modules()))


def modules_with_new_gradients(before: set[tuple[int, int]]) -> list[nn.Module]:
    """The outermost modules with a gradient that was not among all `before`."""
    trained = [module for _, module, _ in living_modules() if gradients_of(module) - before]
    inner = {id(child) for module in trained for child in module.modules() if child is not module}
    return [module for module in trained if id(module) not in inner]


def bundle(modules: Sequence[nn.Module]) -> nn.Module:
    """One module that holds them, if any, under their names; the module itself if it is only one."""
    if len(modules) == 1:
        return modules[0]
    together = nn.Module()
    for module in modules:
        together.add_module(name_of(module, together._modules), module)
    return together


def name_of(module: nn.Module, taken: Collection[str], trained: Sequence[Tensor] = ()) -> str:
    """What the script calls a module; else what is in it, or its class. Of one without parameters, what the first
    tensor is called that is trained in its place.
    """
    has_parameters = any(True for _ in module.parameters())
    names = names_of(module if has_parameters or not trained else trained[0]) or [description_of(module)]
    first = next((name for name in names if name not in taken), names[0])
    numbered = (f"{first}_{number}" for number in count(2))
    return first if first not in taken else next(name for name in numbered if name not in taken)


def names_of(thing: object) -> list[str]:
    """What it is called in the functions that are running, from the script's own on, or in their classes.

    Variables go before what only an object in a variable has, as an agent has its `actor`.
    """
    frames = reversed(users_frames(sys._getframe(1)))  # the script calls it teacher, a function of it model
    known = [pair for frame in frames for pair in variables(frame)]
    held = (pair for _, value in known if is_of_users_class(value) for pair in attributes(value))
    return [name for name, value in (*known, *held) if value is thing and str(name).isidentifier()]


def description_of(module: nn.Module) -> str:
    """The names of the modules in a bundle; else the class in lower case, without what torch.compile makes of it."""
    if type(module) is nn.Module and module._modules:
        return "_".join(module._modules)
    return type(getattr(module, "_orig_mod", module)).__name__.lower()


def variables(frame: FrameType) -> list[tuple[str, Any]]:
    """The variables of a frame, and the attributes of its `self`."""
    known = frame.f_locals
    found = {**dict(attributes(known.get("self"))), **known}
    if isinstance(known, dict) and frame.f_code.co_flags & CO_OPTIMIZED:  # a copy, which the frame would keep alive
        known.clear()
    return [(name, value) for name, value in found.items() if name != "self"]


def attributes(thing: Any) -> list[tuple[str, Any]]:
    """Those of an object, the modules in a module among them. Asks no `__getattr__` of the user's, which may raise."""
    own = getattr(thing, "__dict__", {})
    inner = own.get("_modules", {}) if issubclass(type(thing), nn.Module) else {}
    return [*own.items(), *inner.items()]


def is_of_users_class(thing: Any) -> bool:
    """Whether the user wrote its class: whose else may do anything when asked for an attribute."""
    home = sys.modules.get(type(thing).__module__)
    return USERS[getattr(home, "__file__", None) or "<"]
