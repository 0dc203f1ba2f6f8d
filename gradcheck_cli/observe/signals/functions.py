"""Functions that modules call, seen by a function mode: activations and attention."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from time import perf_counter
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gradcheck_cli.observe.hooks import patched
from gradcheck_cli.observe.signals.activations import (
    KINDS,
    RECTIFYING,
    Activity,
    measure_activation,
    note_activity,
    refine,
)
from gradcheck_cli.observe.signals.attention import measure_logits, measure_products, sample_logits
from gradcheck_cli.observe.signals.frames import Frames
from gradcheck_cli.observe.signals.tallies import Tallies
from gradcheck_cli.signals import Site

ATTENTIVE = ("attention", "attn")
PRODUCTS = functional.scaled_dot_product_attention
MULTIHEAD = functional.multi_head_attention_forward
Arguments = tuple[Any, ...]
Keywords = Mapping[str, Any]


class Functions(TorchFunctionMode):
    """While it is entered, every call of a function of KINDS and of attention is measured; `seconds` counts that."""

    def __init__(self, frames: Frames, tallies: Tallies) -> None:
        super().__init__()
        self._frames = frames
        self._tallies = tallies
        self.activity: dict[Site, Activity] = {}
        self.seconds = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Arguments = (), kwargs: Keywords | None = None) -> Any:
        given = kwargs or {}
        if func is MULTIHEAD:
            return self._multihead(args, given)
        kind = KINDS.get(func)
        # In place, the logits are gone after the call.
        logits = self._logits(args, given) if kind == "softmax" else None
        output = func(*args, **given)
        if (kind or func is PRODUCTS) and is_measurable(output):
            began = perf_counter()
            with torch.no_grad():
                self._measure(kind or "sdpa", logits, output, args, given)
            self.seconds += perf_counter() - began
        return output

    def _measure(self, kind: str, logits: Tensor | None, output: Tensor, args: Arguments, kwargs: Keywords) -> None:
        if kind == "sdpa":
            spread = measure_products(args, kwargs)
            if spread is not None:
                self._tallies.add("attention", self._frames.site(kind), spread)
        elif logits is not None:
            self._tallies.add("attention", self._frames.site(kind), measure_logits(logits))
        elif kind != "softmax" or is_last(dim_of(args, kwargs), output):
            self._activation(*refine(kind, args, kwargs), output)

    def measure_activation(self, kind: str, output: Tensor) -> None:
        """What an activation function that is a module returned, while its frame is open."""
        self._activation(kind, 0.0, 0.0, output)

    def _activation(self, kind: str, low: float, high: float, output: Tensor) -> None:
        site = self._frames.site(kind)
        unit_dim = self._frames.unit_dim(output.dim())
        self._tallies.add("activation", site, measure_activation(kind, output, low, high, unit_dim))
        if kind in RECTIFYING:
            known = note_activity(self.activity.get(site), output, unit_dim)
            if known:
                self.activity[site] = known

    def _logits(self, args: Arguments, kwargs: Keywords) -> Tensor | None:
        """A sample of what a softmax is given, where that is attention."""
        given = args[0] if args else kwargs.get("input")
        if not is_measurable(given) or not is_last(dim_of(args, kwargs), given) or not self._is_attention(given):
            return None
        return sample_logits(given)

    def _is_attention(self, logits: Tensor) -> bool:
        """Whether a softmax over the last dimension weighs keys: by its shape, or by the name of the module's class."""
        if logits.dim() == 3:
            called = type(self._frames.inner).__name__.lower()
            return logits.shape[-1] == logits.shape[-2] > 1 or any(word in called for word in ATTENTIVE)
        return logits.dim() > 3

    def _multihead(self, args: Arguments, kwargs: Keywords) -> Any:
        """Torch's own attention calls the others from within, where no mode sees them."""
        with ExitStack() as stack:
            for name in ("scaled_dot_product_attention", "softmax"):
                stack.enter_context(patched(functional, name, self._watched))
            return MULTIHEAD(*args, **kwargs)

    def _watched(self, call: Any) -> Any:
        return lambda *args, **kwargs: self.__torch_function__(call, (), args, kwargs)


def is_measurable(value: Any) -> TypeGuard[Tensor]:
    """Whether it is a tensor of floating-point numbers, with elements that can be read."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or not value.dim() or value.is_nested:
        return False
    return value.numel() > 0 and not torch._C._functorch.is_functorch_wrapped_tensor(value)


def dim_of(args: Arguments, kwargs: Keywords) -> int | None:
    """The dimension that a softmax was given."""
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    return dim if isinstance(dim, int) else None


def is_last(dim: int | None, tensor: Tensor) -> bool:
    """Whether it is the last dimension of the tensor."""
    return dim is not None and dim % tensor.dim() == tensor.dim() - 1
