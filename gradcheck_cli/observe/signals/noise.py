"""How alike the gradients of two steps in a row are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from gradcheck_cli.observe.native import library
from gradcheck_cli.observe.native.library import Places, are_direct, is_direct, places_at
from gradcheck_cli.observe.signals.sampling import thin
from gradcheck_cli.observe.transfer import Value

MOST = 1 << 12


class GradientPairs:
    """Keeps a sample of the gradients of one step until the next."""

    def __init__(self) -> None:
        self._held: tuple[list[int], Tensor] | None = None

    def hold(self, gradients: Sequence[Tensor | None]) -> None:
        """Remember a step's gradients, one for each parameter."""
        self._held = sample(gradients)

    def compare(self, gradients: Sequence[Tensor | None]) -> dict[str, Value]:
        """`dot` and `square` (parameters,), see `Signals`; nothing unless the step before was held and is like this."""
        held, self._held = self._held, None
        if held is None:
            return {}
        lengths, before = held
        now_lengths, now = sample(gradients)
        if lengths != now_lengths:
            return {}
        pairs = products(before, now, lengths)
        return {name: put_nan(values, lengths) for name, values in pairs.items()} if 0 in lengths else pairs


def products(before: Tensor, now: Tensor, lengths: list[int]) -> dict[str, Value]:
    """`dot` and `square` of runs of these lengths: the inner product, and half the sum of both squared norms."""
    if library.COMPILED and is_direct(before) and is_direct(now):
        apart, dot = library.COMPILED.compare(*(runs_in(tensor, lengths) for tensor in (before, now))).T
        with np.errstate(all="ignore"):
            return {"dot": dot, "square": np.square(apart) / 2 + dot}
    counts = torch.tensor(lengths, device=now.device)
    square = torch.addcmul(before * before, now, now) / 2
    return {"dot": summed(before * now, counts), "square": summed(square, counts)}


def runs_in(tensor: Tensor, lengths: list[int]) -> Places:
    """Where runs of these lengths are in a float32 tensor."""
    starts = accumulate(lengths, initial=0)
    return places_at([tensor.data_ptr() + 4 * start for start, _ in zip(starts, lengths, strict=False)], lengths)


def put_nan(values: Value, lengths: list[int]) -> Value:
    """The same values (n,), NaN where a run has no elements."""
    missing = np.array(lengths) == 0
    if isinstance(values, Tensor):
        return values.masked_fill(torch.from_numpy(missing).to(values.device), torch.nan)
    return np.where(missing, np.nan, values)


def sample(gradients: Sequence[Tensor | None]) -> tuple[list[int], Tensor]:
    """How many elements of each gradient are taken, 0 of those that are absent, sparse or complex; and all of them."""
    found = [g for g in gradients if g is not None]
    if library.COMPILED and are_direct(found):
        taken, values = library.COMPILED.sample(found, MOST)
        lengths = iter(taken)
        return [0 if g is None else next(lengths) for g in gradients], values
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
