"""One rank's recorder among those of the other ranks: what is its own, and what all of them measured together."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

import numpy as np
from torch import Tensor, nn

from gradcheck_cli.observe.draft import Draft
from gradcheck_cli.observe.naming import clean
from gradcheck_cli.observe.numerics import reducer_for
from gradcheck_cli.observe.peers import Sums, Values
from gradcheck_cli.observe.ranks.checksums import Compared
from gradcheck_cli.observe.ranks.local_gradients import LocalGradients
from gradcheck_cli.observe.ranks.shards import Shards
from gradcheck_cli.observe.ranks.whole import Whole
from gradcheck_cli.observe.signals.tallies import Calls, total_of
from gradcheck_cli.observe.transfer import on_host, to_host
from gradcheck_cli.ranks import RankPart
from gradcheck_cli.records import Floats

CHECK_EVERY = 50
"""After so many steps, parameters and buffers are compared."""


class Group(Protocol):
    """What passes between the ranks; every rank must make each call. See `drive.ranks.group`."""

    waited: float
    host: str

    @property
    def size(self) -> int: ...
    @property
    def rank(self) -> int: ...
    def add(self, numbers: Floats) -> Floats: ...
    def largest(self, numbers: Floats) -> Floats: ...


@dataclass
class Own:
    """What is known of the rank's own steps so far; see `ranks.RankPart`."""

    rows: array[float] = field(default_factory=lambda: array("d"))
    unused: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    checked: list[int] = field(default_factory=list)
    checksums: list[Floats] = field(default_factory=list)


class RankPeers:
    """Watches one rank's steps beside its recorder, to which it belongs.

    `degree` is over how many ranks the gradients are averaged, by these `modules`; `compared` are the tensors of the
    model that must be the same on all.
    """

    is_alone = False

    def __init__(self, group: Group, degree: int, modules: Sequence[nn.Module], model: nn.Module) -> None:
        self._group, self.degree, self._modules = group, degree, modules
        self._names = {id(parameter): clean(name) for name, parameter in model.named_parameters()}
        self.compared = Compared(model, modules)
        self._own, self._steps = Own(), 0
        self._began = perf_counter()
        self._waited = group.waited
        self._own_seconds = float("nan")
        self._calls: deque[Floats] = deque()

    def prepare(self, parameters: Sequence[Tensor], probes: int) -> None:
        """Say what the recorder measures: these parameters, and so many modules."""
        self._shards, self._probes = Shards(parameters), probes
        reducer = reducer_for(parameters[0].device)
        is_whole = self.degree == self._group.size  # else tensors are split over the other ranks
        names = [self._names.get(id(parameter), "what only the optimizer holds") for parameter in parameters]
        self._gradients = LocalGradients(
            parameters, names, self._modules, reducer, is_whole, self._note_backward, self._group.largest
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at the rank's own gradients for the length of the context."""
        with self._gradients.caught():
            yield

    def _note_backward(self) -> None:
        """Up to the first backward of a step, nobody was waited for but in the group."""
        if np.isnan(self._own_seconds):
            self._own_seconds = perf_counter() - self._began - (self._group.waited - self._waited)

    def leave_in(self, draft: Draft) -> float:
        """The step is over: what it left goes into its draft; returns the seconds that it took to see it."""
        tables, unused, syncs = self._gradients.take()
        for number, table in enumerate(tables if syncs <= 1 else []):  # else the others' gradients are in it, too
            draft.values[f"own.{number}"] = table
        if self._steps % CHECK_EVERY == 0:
            self._check(draft)
        if unused != (self._own.unused[-1][1] if self._own.unused else ()):
            self._own.unused.append((self._steps, unused))
        draft.own = self._own_seconds, float(syncs)
        self._steps += 1
        self._began, self._waited, self._own_seconds = perf_counter(), self._group.waited, float("nan")
        seconds, self._gradients.seconds = self._gradients.seconds, 0.0
        return seconds

    def _check(self, draft: Draft) -> None:
        if self.compared.names:
            self._own.checked.append(self._steps)
            draft.values["checksums"] = self.compared.checksums()

    def put_together(self, drafts: Sequence[Draft], values: Sequence[Values], trainable: Sequence[int]) -> None:
        """Make what every rank measured of its part that of the whole, in `values`; note what was the rank's own."""
        for draft, one in zip(drafts, values, strict=True):
            one.update({name: on_host(value) for name, value in one.items()})
            self._note(draft, one)
        self._join_batches(drafts, values)
        self._add_up_calls(drafts, values)
        if len(self._shards.all) and drafts:
            Whole(self._shards, np.array(trainable)).make(drafts, values)

    def _note(self, draft: Draft, values: Values) -> None:
        own = [values.pop(name) for name in [name for name in values if name.startswith("own.")]]
        is_alone = not (self._modules or len(self._shards.all))
        if is_alone and "statistics" in values:  # nobody synchronises: all gradients are the rank's own
            own = [values["statistics"]]
        table = np.concatenate(own) if own else np.full((1, 6), np.nan)
        seconds, syncs = draft.own or (float("nan"), -1.0)
        norm, nonfinite = float(np.sqrt(np.square(table[:, 0]).sum())), float(table[:, 5].sum())
        loss = float(values.get("loss", float("nan")))
        self._own.rows.extend((loss, norm, nonfinite, draft.seconds, seconds, draft.batch, draft.epoch, syncs))
        if "checksums" in values:
            self._own.checksums.append(values.pop("checksums"))

    def _join_batches(self, drafts: Sequence[Draft], values: Sequence[Values]) -> None:
        """The mean of the losses, and the sums of what the batches hold."""
        inputs = [[name for name in one if name.startswith("input.")] for one in values]
        bad = [sum(float(one[name]) for name in names) for one, names in zip(values, inputs, strict=True)]
        losses = [float(one.get("loss", float("nan"))) for one in values]
        examples = [draft.examples for draft in drafts]
        mean, total, whole = np.split(self._group.add(np.array([*losses, *bad, *examples])), 3)
        for number, (draft, one, names) in enumerate(zip(drafts, values, inputs, strict=True)):
            draft.examples = int(whole[number])
            for name in names:
                del one[name]
            one["input.0"] = total[number]
            if "loss" in one:
                one["loss"] = mean[number] / self._group.size

    def whole_norms(self, norms: Floats) -> Floats:
        """(n,) of whole parameters from those of their parts."""
        return self._shards.put_together(norms)

    def _add_up_calls(self, drafts: Sequence[Draft], values: Sequence[Values]) -> None:
        """Now, at once: later, the steps of one rank may have ended its recording, and not those of another."""
        tables = [
            table_of(heard, kind, numel, self._probes)
            for draft, one in zip(drafts, values, strict=True)
            if draft.probed
            for heard in [draft.probed.layout.unpack(one.get("numbers", np.zeros(0)))]
            for kind, numel in (("output", draft.probed.output_numel), ("gradient", draft.probed.gradient_numel))
        ]
        self._calls = deque(self._group.add(np.stack(tables)) if tables else ())

    def add_calls(self, sums: Sums) -> Sums:
        """Sums of squares and numbers of elements, by probe, of all ranks; the rank's own probes first.

        To be called with those of the outputs of each probed step that was put together, then of the gradients.
        """
        table = self._calls.popleft()
        order = [*sums, *(probe for probe in range(self._probes) if probe not in sums and table[probe, 1])]
        return {probe: (float(table[probe, 0]), int(table[probe, 1])) for probe in order}

    def part(self, sync_seconds: float) -> RankPart:
        """What is the rank's own, of all steps that have come over; the tensors are compared once more."""
        own = self._own
        if self.compared.names and self._steps and own.checked[-1:] != [self._steps - 1]:
            own.checked.append(self._steps - 1)
            own.checksums.append(to_host([self.compared.checksums()])[0])
        table = np.array(own.rows).reshape(-1, 8)
        loss, norm, nonfinite, seconds, own_seconds, batch, epoch, syncs = table.T
        whole = [np.nan_to_num(column, nan=-1).astype(np.int64) for column in (batch, epoch, syncs)]
        return RankPart(
            rank=self._group.rank,
            host=self._group.host,
            loss=loss,
            grad_norm=norm,
            nonfinite=nonfinite,
            seconds=seconds,
            own_seconds=own_seconds,
            batch=whole[0],
            epoch=whole[1],
            syncs=whole[2],
            sync_seconds=sync_seconds,
            unused=tuple(own.unused),
            checked=np.array(own.checked, dtype=np.int64),
            checksums=np.array(own.checksums, dtype=np.int64).reshape(len(own.checked), len(self.compared.names)),
        )


def table_of(heard: Mapping[str, Calls], kind: str, numel: Mapping[int, int], probes: int) -> Floats:
    """(probes, 2): the sum of squares over all calls of each, and the number of elements behind it."""
    table = np.zeros((probes, 2))
    for probe, count in numel.items():
        table[probe] = total_of(heard[f"{kind}.{probe}"]), count
    return table
