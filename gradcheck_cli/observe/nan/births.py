"""Where the user's code made parameters, buffers and optimizers, so that a bad one can be pointed at."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, LRScheduler, ReduceLROnPlateau, SequentialLR

from gradcheck_cli.observe.hooks import patched
from gradcheck_cli.observe.nan.frames import current_frame
from gradcheck_cli.tape import Frame

SCHEDULERS = (LRScheduler, ReduceLROnPlateau, SequentialLR, ChainedScheduler)  # each with an __init__ of its own


class Births:
    """The lines on which things were made while `noted` was open."""

    def __init__(self) -> None:
        self._registered: list[tuple[weakref.ref[nn.Module], str, Frame | None]] = []
        self._optimizers: list[tuple[weakref.ref[Optimizer], Frame | None]] = []
        self._schedulers: list[weakref.ref[LRScheduler]] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what is made inside the context."""
        with ExitStack() as undo:
            undo.callback(register_module_parameter_registration_hook(self._note).remove)
            undo.callback(register_module_buffer_registration_hook(self._note).remove)
            undo.enter_context(patched(nn.Module, "__setstate__", self._noting_copies))
            undo.enter_context(patched(Optimizer, "__init__", self._noting))
            for kind in SCHEDULERS:
                undo.enter_context(patched(kind, "__init__", self._noting_schedulers))
            yield

    @property
    def modules(self) -> list[nn.Module]:
        """The modules with parameters or buffers, and copies of modules, that are still there, each once."""
        alive = {id(module): module for reference, _, _ in self._registered if (module := reference()) is not None}
        return list(alive.values())

    @property
    def optimizers(self) -> list[Optimizer]:
        """The optimizers that are still there."""
        return [optimizer for reference, _ in self._optimizers if (optimizer := reference()) is not None]

    @property
    def schedulers(self) -> list[LRScheduler]:
        """The learning rate schedulers that are still there."""
        return [scheduler for reference in self._schedulers if (scheduler := reference()) is not None]

    def numbered_modules(self) -> list[tuple[int, nn.Module]]:
        """As `modules`, each with the number of its first registration, which is the same whenever the code runs."""
        made = [
            (number, module) for number, (reference, _, _) in enumerate(self._registered) if (module := reference())
        ]
        return list({id(module): (number, module) for number, module in reversed(made)}.values())[::-1]

    def numbered_optimizers(self) -> list[tuple[int, Optimizer]]:
        """As `optimizers`, each with how many were made before it."""
        return [(number, made) for number, (reference, _) in enumerate(self._optimizers) if (made := reference())]

    def of_tensor(self, model: nn.Module, name: str) -> Frame | None:
        """The line that registered a parameter or buffer on its module."""
        prefix, _, key = name.rpartition(".")
        owner = model.get_submodule(prefix)
        found = [frame for module, given, frame in self._registered if module() is owner and given == key]
        return found[-1] if found else None

    def of_optimizer(self, optimizer: Optimizer) -> Frame | None:
        """The line that made an optimizer."""
        return next((frame for made, frame in self._optimizers if made() is optimizer), None)

    def _note(self, module: nn.Module, name: str, tensor: Tensor | None) -> None:
        self._registered.append((weakref.ref(module), name, current_frame()))

    def _noting_copies(self, call: Any) -> Any:
        def setstate(module: nn.Module, state: Any) -> None:
            self._registered.append((weakref.ref(module), "", None))  # a copy registers nothing
            call(module, state)

        return setstate

    def _noting_schedulers(self, call: Any) -> Any:
        def init(scheduler: LRScheduler, *args: Any, **kwargs: Any) -> None:
            self._schedulers.append(weakref.ref(scheduler))
            call(scheduler, *args, **kwargs)

        return init

    def _noting(self, call: Any) -> Any:
        def init(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            self._optimizers.append((weakref.ref(optimizer), current_frame(making=optimizer)))
            call(optimizer, *args, **kwargs)

        return init
