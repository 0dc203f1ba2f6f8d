"""Which bad elements of an operation's inputs its bad outputs can have come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_map

from gradcheck_cli.observe.nan.calls import values_by_name
from gradcheck_cli.observe.nan.states import can_be_bad, countable, elements

Writers = tuple[tuple[int, ...], tuple[int, ...]]
"""The writers of NaN elements and of infinite ones."""

MOVERS = """
index _unsafe_index index_select gather embedding cat stack flip roll repeat masked_select take tril triu
constant_pad_nd index_put index_put_ _unsafe_index_put scatter scatter_ slice_scatter select_scatter
slice_backward select_backward diagonal_scatter repeat_interleave unfold_copy expand_copy
"""
MOVES = frozenset(MOVERS.split())
PICKS = frozenset(("topk", "sort", "kthvalue", "max", "min", "median", "mode"))
NOTHING: Writers = ((), ())


@dataclass(frozen=True)
class Suspect:
    """A bad input as it was before the call: its NaN and its infinite elements, and the writer of each."""

    tensor: Tensor
    nan: Tensor
    inf: Tensor
    owners: Tensor

    @classmethod
    def of(cls, tensor: Tensor, owners: Tensor) -> Suspect:
        """Look at a tensor; the masks are on the CPU. `owners` has two for a complex number: its worse part counts."""
        values = countable(elements(tensor))
        nan, inf = values.isnan().cpu(), values.isinf().cpu()
        if tensor.is_complex():
            real_first = nan[..., 0] | (inf[..., 0] & ~nan[..., 1])
            owners, nan = torch.where(real_first, owners[..., 0], owners[..., 1]), nan.any(-1)
            inf = inf.any(-1) & ~nan
        return cls(tensor, nan, inf, owners)

    def writers(self, relevant: Tensor | None = None) -> Writers:
        """Of all its bad elements, or of those that `relevant` (which broadcasts with it) marks."""
        if relevant is None:
            return self._owning(self.owners, self.nan), self._owning(self.owners, self.inf)
        shape = torch.broadcast_shapes(relevant.shape, self.nan.shape)  # type: ignore[no-untyped-call]
        owners, wanted = self.owners.expand(shape), relevant.expand(shape)
        return self._owning(owners, self.nan & wanted), self._owning(owners, self.inf & wanted)

    def _owning(self, owners: Tensor, wanted: Tensor) -> tuple[int, ...]:
        if any(owners.stride()):
            return distinct(owners[wanted])
        return (int(owners.flatten()[0]),) if wanted.any() else ()  # one writer for all of them

    def codes(self) -> Tensor:
        """int64: 0 for finite elements, else twice (the writer + 2), plus 1 for NaN."""
        code = (self.owners + 2) * 2 + self.nan.long()
        return torch.where(self.nan | self.inf, code, 0)


def bad_elements(tensor: Tensor) -> Tensor:
    """Which are not finite, on the CPU; of complex numbers those with a part that is not."""
    bad = ~countable(elements(tensor)).isfinite().cpu()
    return bad.any(-1) if tensor.is_complex() else bad


def distinct(writers: Tensor) -> tuple[int, ...]:
    """Each once, in order."""
    return tuple(torch.unique(writers).tolist())


def writers_behind(
    func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], suspects: Sequence[Suspect], outputs: list[Tensor]
) -> list[Writers]:
    """For each suspect the writers that the bad outputs can have come from; all where the outputs are no floats."""
    floats = [output for output in outputs if can_be_bad(output)]
    bad = [bad_elements(output) for output in floats]
    if floats and not any(bool(mask.any()) for mask in bad):
        return [NOTHING for _ in suspects]
    name = func._schema.name.removeprefix("aten::")
    given = {argument.name: value for argument, value in values_by_name(func, args, kwargs)}
    adds = given.get("accumulate") or given.get("reduce")  # then an element has more than one parent
    try:
        if name in ("where", "masked_fill", "masked_fill_") and floats:
            return selected(name, args, suspects, bad[0])
        if name in PICKS and len(outputs) == 2:
            return picked(given.get("dim", -1), suspects, outputs[1].cpu(), bad[0])
        if name in MOVES and floats and not adds:
            return moved(func, args, kwargs, suspects, bad[0])
        if torch.Tag.pointwise in func.tags and len(floats) == 1:
            return [suspect.writers(bad[0]) for suspect in suspects]
    except (RuntimeError, IndexError, TypeError, NotImplementedError):
        pass  # an overload of another form: every bad element may have had a part
    return [suspect.writers() for suspect in suspects]


def selected(name: str, args: Sequence[Any], suspects: Sequence[Suspect], bad: Tensor) -> list[Writers]:
    """`where` and `masked_fill`: only what is selected counts."""
    condition = (args[0] if name == "where" else args[1]).cpu().bool()
    kept, other = (args[1] if name == "where" else args[0]), args[2]
    chosen = condition if name == "where" else ~condition
    both = [(kept, bad & chosen), (other, bad & ~chosen)]
    return [s.writers(sum((m for value, m in both if value is s.tensor), torch.zeros_like(bad))) for s in suspects]


def picked(dim: int, suspects: Sequence[Suspect], indices: Tensor, bad: Tensor) -> list[Writers]:
    """Operators that give values of their input and say by `indices` which, along a dimension."""

    def pick(codes: Tensor) -> Tensor:
        wide = indices if indices.dim() == codes.dim() else indices.unsqueeze(dim)
        return codes.gather(dim, wide).reshape(indices.shape)

    return [through(suspect, pick, bad) for suspect in suspects]


def moved(
    func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], suspects: Sequence[Suspect], bad: Tensor
) -> list[Writers]:
    """Operators that only move elements: moves the writers' numbers in the same way and reads them off."""

    def move(suspect: Suspect) -> Writers:
        def swap(value: Any) -> Any:
            if value is suspect.tensor:
                return suspect.codes()
            if isinstance(value, Tensor):
                return torch.zeros(value.shape, dtype=torch.int64) if can_be_bad(value) else value.cpu()
            return 0 if isinstance(value, float) else value

        return through(suspect, lambda _: func(*tree_map(swap, list(args)), **tree_map(swap, dict(kwargs))), bad)

    return [move(suspect) for suspect in suspects]


def through(suspect: Suspect, move: Callable[[Tensor], Tensor], bad: Tensor) -> Writers:
    """The writers in the moved codes, where the output is bad."""
    codes = torch.unique(move(suspect.codes())[bad])
    codes = codes[codes != 0]
    return distinct(codes[codes % 2 == 1] // 2 - 2), distinct(codes[codes % 2 == 0] // 2 - 2)
