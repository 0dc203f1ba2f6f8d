"""What each rank of a distributed run saw by itself, and how that of all ranks becomes one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gradcheck_cli.records import Bools, Floats, Ints

PER_STEP = ("loss", "grad_norm", "nonfinite", "seconds", "own_seconds", "batch", "epoch", "syncs")


@dataclass(frozen=True)
class RankPart:
    """One rank's own figures; arrays of shape (steps,).

    `grad_norm` is that of the rank's gradient before it was synchronised, over all parameters, and `nonfinite` how
    many of its elements are not finite; both NaN where they were not measured. `own_seconds` is the part of the step in
    which the rank waits for nobody: its data and its forward pass. `syncs` counts the backward passes after which
    gradients were synchronised, -1 where that is not known; `sync_seconds` is what one takes, NaN where that is not
    known.

    `unused` says which parameters got no gradient on this rank: (first step, parameter indices), from that step until
    the next entry. `checksums` (checks, tensors) are those of `Ranks.tensors` after the steps `checked`.
    """

    rank: int
    host: str
    loss: Floats
    grad_norm: Floats
    nonfinite: Floats
    seconds: Floats
    own_seconds: Floats
    batch: Ints
    epoch: Ints
    syncs: Ints
    sync_seconds: float
    unused: tuple[tuple[int, tuple[int, ...]], ...]
    checked: Ints
    checksums: Ints


@dataclass(frozen=True)
class UnusedOnSome:
    """A parameter that in `step`, the first such one, got a gradient on some ranks and none on `ranks`.

    `steps` is in how many steps that was so.
    """

    parameter: str
    step: int
    steps: int
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Desync:
    """A parameter or buffer whose values on `ranks` were not those of rank 0 after `step`, the first one so seen."""

    name: str
    is_buffer: bool
    step: int
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Ranks:
    """All ranks side by side; arrays of shape (steps, ranks), see `RankPart` for what they hold.

    `strategy` is ddp, fsdp2, none, or `own` for a model that synchronises in a way of its own; `finds_unused` whether
    DDP looks for parameters that a rank did not use (and does not wait for their gradients). `hosts` (ranks) are the
    machines. `checked` are the steps after which parameters and buffers were compared; `sync_seconds` the median over
    ranks of what one synchronisation of the gradients takes, NaN where it is not known.
    """

    strategy: str
    backend: str
    hosts: tuple[str, ...]
    loss: Floats
    grad_norm: Floats
    nonfinite: Floats
    seconds: Floats
    own_seconds: Floats
    batch: Ints
    epoch: Ints
    syncs: Ints
    sync_seconds: float = float("nan")
    finds_unused: bool = True
    unused: tuple[UnusedOnSome, ...] = ()
    desyncs: tuple[Desync, ...] = ()
    checked: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many ranks."""
        return len(self.hosts)


Parts = Mapping[int, RankPart]
"""What is known of some of the ranks, by rank."""


@dataclass(frozen=True)
class Tensors:
    """The names behind the indices in a `RankPart`, equal on every rank."""

    parameters: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()
    buffers: frozenset[str] = field(default_factory=frozenset)


def merge(*some: Parts) -> dict[int, RankPart]:
    """All of them together: associative, and the order does not matter. Raises ValueError for a rank twice."""
    together: dict[int, RankPart] = {}
    for parts in some:
        if twice := together.keys() & parts.keys():
            raise ValueError(f"rank {min(twice)} comes twice")
        together.update(parts)
    return together


def side_by_side(parts: Parts, tensors: Tensors, strategy: str, backend: str, finds_unused: bool) -> Ranks:
    """The ranks 0, 1, ... next to each other, as far as all of them came. Raises ValueError when one is missing."""
    if sorted(parts) != list(range(len(parts))):
        raise ValueError(f"of {max(parts) + 1} ranks only {sorted(parts)} are there")
    ordered = [parts[rank] for rank in range(len(parts))]
    steps = min(len(part.loss) for part in ordered)
    known = [part.sync_seconds for part in ordered if not np.isnan(part.sync_seconds)]
    return Ranks(
        strategy=strategy,
        backend=backend,
        hosts=tuple(part.host for part in ordered),
        sync_seconds=float(np.median(known)) if known else float("nan"),
        finds_unused=finds_unused,
        unused=tuple(find_unused(ordered, tensors.parameters, steps)),
        desyncs=tuple(one for one in find_desyncs(ordered, tensors) if one.step < steps),
        checked=tuple(int(step) for step in ordered[0].checked if step < steps),
        **{name: np.stack([getattr(part, name)[:steps] for part in ordered], axis=1) for name in PER_STEP},
    )


def find_unused(parts: Sequence[RankPart], names: Sequence[str], steps: int) -> Iterable[UnusedOnSome]:
    """Every parameter that some ranks used in a step and others did not, in the order of the names."""
    table = np.stack([unused_table(part, len(names), steps) for part in parts])
    mixed: Bools = np.logical_and(table.any(0), np.logical_not(table.all(0)))
    for index in np.flatnonzero(mixed.any(0)).tolist():
        step = int(np.argmax(mixed[:, index]))
        ranks = tuple(np.flatnonzero(table[:, step, index]).tolist())
        yield UnusedOnSome(names[index], step, int(mixed[:, index].sum()), ranks)


def unused_table(part: RankPart, parameters: int, steps: int) -> Bools:
    """(steps, parameters): whether the rank did not use it."""
    table = np.zeros((steps, parameters), dtype=np.bool_)
    for first, indices in part.unused:
        table[first:] = False
        table[first:, list(indices)] = True
    return table


def find_desyncs(parts: Sequence[RankPart], tensors: Tensors) -> Iterable[Desync]:
    """Every tensor whose checksum on some rank is not that on rank 0, with the first step that shows it."""
    checks = min(len(part.checked) for part in parts)
    sums = np.stack([part.checksums[:checks] for part in parts])
    differs: Bools = np.not_equal(sums, sums[0])
    for index in np.flatnonzero(differs.any((0, 1))).tolist():
        check = int(np.argmax(differs[:, :, index].any(0)))
        ranks = tuple(np.flatnonzero(differs[:, check, index]).tolist())
        name = tensors.checked[index]
        yield Desync(name, name in tensors.buffers, int(parts[0].checked[check]), ranks)
