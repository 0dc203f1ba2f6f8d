"""Names for the tensors that a step finds when it begins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from gradcheck_cli.observe.inputs import floating_tensors
from gradcheck_cli.observe.nan.states import elements, tensors_in


class Sources:
    """Knows parameters, buffers, gradients, optimizer states and batches by their storage."""

    def __init__(self, model: nn.Module, optimizers: Iterable[Optimizer]) -> None:
        self._names: dict[int, str] = {}
        self._kept: list[Tensor] = []  # a storage's identity lasts as long as it does
        self._tensors: dict[str, Tensor] = {}
        parameters = dict(model.named_parameters())
        self.add((f"parameter:{name}", parameter) for name, parameter in parameters.items())
        self.add((f"buffer:{name}", buffer) for name, buffer in model.named_buffers())
        self.add((f"gradient:{name}", p.grad) for name, p in parameters.items() if p.grad is not None)
        self.add(attributes(model))
        names: dict[Tensor, str] = {parameter: name for name, parameter in parameters.items()}
        for parameter, state in (item for optimizer in optimizers for item in optimizer.state.items()):
            for key, value in state.items():
                self.add((f"state:{key} of {names.get(parameter, 'a parameter')}", t) for t in tensors_in([value]))

    def add(self, named: Iterable[tuple[str, Tensor]]) -> None:
        """Know these as well; the first name of a storage stays."""
        for name, tensor in named:
            storage = elements(tensor).untyped_storage()
            self._names.setdefault(storage._cdata, name)
            self._kept.append(tensor)
            self._tensors[name] = tensor

    def add_batch(self, data: Any) -> None:
        """Know the floating-point tensors of a batch."""
        self.add(floating_tensors(data, "batch:"))

    def name(self, tensor: Tensor) -> str:
        """What it is called, or "constant:"."""
        return self._names.get(elements(tensor).untyped_storage()._cdata, "constant:")

    def tensor(self, name: str) -> Tensor | None:
        """The tensor of a name."""
        return self._tensors.get(name)


def attributes(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Tensors that modules keep as plain attributes."""
    for prefix, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor):
                yield f"state:{prefix}.{key}".replace(":.", ":"), value
