"""How alike the gradients of two steps in a row are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradcheck_cli.observe.native import library
from gradcheck_cli.observe.signals.sampling import thin
from gradcheck_cli.observe.transfer import Packed, Value, on_host

MOST = 1 << 12
Sample = tuple[list[int], Tensor | bytes]
"""How many elements of each gradient, and the float32 elements of all."""


class GradientPairs:
    """Keeps a sample of the gradients of one step, `held`, until the next."""

    def __init__(self) -> None:
        self.held: Sample | None = None

    def hold(self, gradients: Sequence[Tensor | None]) -> None:
        """Remember a step's gradients, one for each parameter."""
        self.held = sample(gradients)

    def compare(self, gradients: Sequence[Tensor | None]) -> dict[str, Value]:
        """`dot` and `square` (parameters,), see `Signals`; nothing unless the step before was held and is like this."""
        held, self.held = self.held, None
        now = sample(gradients)
        if held is None or held[0] != now[0] or type(held[1]) is not type(now[1]):
            return {}
        lengths = held[0]
        pairs = products(held[1], now[1], lengths)
        return {name: put_nan(values, lengths) for name, values in pairs.items()} if 0 in lengths else pairs


def products(before: Tensor | bytes, now: Tensor | bytes, lengths: list[int]) -> dict[str, Value]:
    """`dot` and `square` of runs of these lengths: the inner product, and half the sum of both squared norms."""
    if isinstance(before, bytes) and isinstance(now, bytes) and library.COMPILED:
        dot, square = library.COMPILED.compare(before, now, lengths)
        return {"dot": Packed(dot), "square": Packed(square)}
    assert isinstance(before, Tensor)
    assert isinstance(now, Tensor)
    counts = torch.tensor(lengths, device=now.device)
    squares = torch.addcmul(before * before, now, now) / 2
    return {"dot": summed(before * now, counts), "square": summed(squares, counts)}


def put_nan(values: Value, lengths: list[int]) -> Value:
    """The same values (n,), NaN where a run has no elements."""
    missing = np.array(lengths) == 0
    if isinstance(values, Tensor):
        return values.masked_fill(torch.from_numpy(missing).to(values.device), torch.nan)
    return np.where(missing, np.nan, on_host(values))


def sample(gradients: Sequence[Tensor | None]) -> Sample:
    """How many elements of each gradient are taken, 0 of those that are absent, sparse or complex; and all of them."""
    known = library.COMPILED.sample(gradients, MOST) if library.COMPILED else None
    if known is not None:
        if len(known[0]) == len(gradients):
            return known
        lengths = iter(known[0])
        return [0 if g is None else next(lengths) for g in gradients], known[1]
    parts = [thin(g.detach(), MOST).reshape(-1).float() if is_plain(g) else None for g in gradients]  # type: ignore[union-attr]
    plain = [part for part in parts if part is not None]
    return [0 if part is None else part.numel() for part in parts], torch.cat(plain) if plain else torch.zeros(0)


def is_plain(gradient: Tensor | None) -> bool:
    """Whether a gradient is a strided tensor of real numbers, on a device that can sum by segment."""
    if gradient is None or gradient.layout is not torch.strided:
        return False
    return gradient.is_floating_point() and gradient.device.type != "mps"


def summed(values: Tensor, counts: Tensor) -> Tensor:
    """The sums (n,) of runs of values (sum of counts,) of these lengths."""
    return torch.segment_reduce(values, "sum", lengths=counts, unsafe=True)
