"""Reductions on the CPU: small tensors in packs, large ones in float64 blocks that stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradcheck_cli.observe.moments import Moments, norms_of, statistics_of
from gradcheck_cli.observe.packs import ELEMENTS, Bench, Pack, Pending, split_by_size
from gradcheck_cli.observe.squares import sum_of_squares
from gradcheck_cli.observe.values import stored_values
from gradcheck_cli.records import Floats

SMALL = ELEMENTS  # up to here, a share of one packed pass is cheaper than calls of a tensor's own
BLOCK = 1 << 19
PLANS = 64

Shapes = tuple[object, ...]


@dataclass(frozen=True)
class Plan:
    """Which tensors go into which pack, and which are reduced alone."""

    packs: list[Pack]
    alone: list[int]


class HostReducer:
    """See `numerics.Reducer`. Where each tensor goes is kept by the tensors' shapes."""

    def __init__(self) -> None:
        self._bench = Bench()
        self._block = torch.empty(0, dtype=torch.float64)
        self._plans: dict[Shapes, Plan] = {}

    def measure(self, tensors: Sequence[Tensor]) -> Pending:
        """(n, 6), see `numerics.Reducer.measure`."""
        plan = self._plan(tensors, False)
        statistics = np.empty((len(tensors), 6))
        for pack in plan.packs:
            pack.put(tensors, statistics)
        for index in plan.alone:
            statistics[index] = self._measure_alone(tensors[index])
        return Pending(statistics, plan.packs)

    def norms(self, tensors: Sequence[Tensor]) -> Pending:
        """(n,), see `numerics.Reducer.norms`."""
        plan = self._plan(tensors, True)
        norms = np.empty(len(tensors))
        for pack in plan.packs:
            pack.put(tensors, norms)
        for index in plan.alone:
            norms[index] = self._norm_alone(stored_values(tensors[index]))
        return Pending(norms, plan.packs)

    def _plan(self, tensors: Sequence[Tensor], norms_only: bool) -> Plan:
        shapes = (norms_only, *[(tensor.shape, tensor.layout) for tensor in tensors])
        plan = self._plans.get(shapes)
        if plan is None:
            if len(self._plans) == PLANS:  # a model in which other parameters get a gradient in every step
                self._plans.clear()
            plan = self._plans[shapes] = self._make_plan(tensors, norms_only)
        return plan

    def _make_plan(self, tensors: Sequence[Tensor], norms_only: bool) -> Plan:
        sizes = [tensor.numel() for tensor in tensors]
        small = [i for i, tensor in enumerate(tensors) if 0 < sizes[i] <= SMALL and is_plain(tensor)]
        alone = sorted(set(range(len(tensors))) - set(small))
        if alone:
            self._block = torch.empty(BLOCK, dtype=torch.float64)
        packs = [Pack(run, tensors, norms_only, self._bench) for run in split_by_size(small, sizes)]
        return Plan(packs, alone)

    def _norm_alone(self, values: Tensor) -> float:
        squares = np.array([[float(sum_of_squares(values))]])
        return float(norms_of(squares, lambda *_: values)[0, 0])

    def _measure_alone(self, tensor: Tensor) -> Floats:
        values = stored_values(tensor)
        total = squares = largest = 0.0
        zeros = float(tensor.numel() - values.numel())
        for block, part in self._blocks(values):
            squares += float(torch.dot(block, block))
            total += float(block.sum())
            low, high = torch.aminmax(part)
            largest = float(np.maximum(largest, np.maximum(-float(low), float(high))))
            zeros += float(block.eq_(0).sum())
        count = np.array([max(tensor.numel(), 1.0)])
        sums = [np.array([[number]]) for number in (total, squares, largest, zeros)]
        with np.errstate(all="ignore"):
            row: Floats = statistics_of(Moments(count, *sums), lambda *_: values)[0, 0]
        return row

    def _blocks(self, values: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for part in torch.split(values.reshape(-1), BLOCK) if values.numel() else ():
            block = self._block[: len(part)]
            block.copy_(part)
            yield block, part


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor can be packed: its layout and dtype are not those of special cases."""
    return tensor.layout is torch.strided and not tensor.is_complex()
