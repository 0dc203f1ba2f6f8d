"""The gradients of many samples in one pass, with torch.func."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from gradcheck_cli.drive.batches import Batch, batch_size, clone, mapped, move
from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.pipeline.rerun import Rerun, widened

Products = list[tuple[float, float]]
"""For each sample the squared norm of its gradient, and its product with the gradient of the step."""
Measure = Callable[[Mapping[str, Tensor], Sequence[Tensor]], tuple[Tensor, Tensor]]

MOST_ELEMENTS = 1 << 23  # of gradients that are there at the same time


class TooSlowError(GradcheckError):
    """There is no time to look at all samples."""


class Deadline:
    """So many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._end = seconds, perf_counter() + seconds

    def check(self, done: int) -> None:
        """Raise TooSlowError when they are over."""
        if perf_counter() > self._end:
            raise TooSlowError(f"its first {done} samples took {self._seconds:.0f} s")


class Step(nn.Module):
    """A training step as a module, so that `functional_call` can give it other parameters."""

    def __init__(self, rerun: Rerun) -> None:
        super().__init__()
        self.model = rerun.workload.model
        self.criterion = rerun.workload.loss_fn if isinstance(rerun.workload.loss_fn, nn.Module) else None
        self._training_step = rerun.workload.training_step

    def forward(self, data: Any) -> Tensor:
        return self._training_step(self.model, data).reshape(())


def all_at_once(rerun: Rerun, window: Sequence[Batch], whole: Sequence[Tensor], deadline: Deadline) -> Products:
    """The samples of a window, whose gradient is `whole`, in parts that fit MOST_ELEMENTS.

    Raises TooSlowError at the deadline, and whatever torch.func does where it can't do that.
    """
    step = Step(rerun)
    names = {id(parameter): name for name, parameter in step.named_parameters()}
    trained = {names[id(parameter)]: parameter.detach() for parameter in rerun.parameters}
    directions = {name: widened(direction) for name, direction in zip(trained, whole, strict=True)}
    length = max(1, MOST_ELEMENTS // sum(parameter.numel() for parameter in trained.values()))
    found: Products = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says of which operators it has no batched kernel
        for batch in window:
            data = move(clone(batch.data), rerun.device)
            many = vmap(measurer(step, data, directions), (None, 0), randomness="different")
            for part in zip(*(torch.split(tensor, length) for tensor in samples_of(data)), strict=True):
                deadline.check(len(found))
                squares, along = many(trained, list(part))
                found += zip(squares.tolist(), along.tolist(), strict=True)
    return found


def measurer(step: Step, data: Any, directions: Mapping[str, Tensor]) -> Measure:
    """A function that measures one sample, given the parameters and the sample's rows of `data`."""

    def loss(trained: Mapping[str, Tensor], sample: Sequence[Tensor]) -> Tensor:
        value: Tensor = functional_call(step, dict(trained), (with_rows(data, sample),))
        return value

    def measure(trained: Mapping[str, Tensor], sample: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        gradient = grad(loss)(trained, sample)
        squares = [widened(one).square().sum() for one in gradient.values()]
        along = [(widened(one) * directions[name]).sum() for name, one in gradient.items()]
        return torch.stack(squares).sum(), torch.stack(along).sum()

    return measure


def samples_of(data: Any) -> list[Tensor]:
    """The tensors of a batch that have a row for each sample, as `batches.take` sees them."""
    found: list[Tensor] = []
    size = batch_size(data)

    def note(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == size:
            found.append(leaf)
        return leaf if isinstance(leaf, Tensor) else NotImplemented

    mapped(data, note)
    return found


def with_rows(data: Any, rows: Sequence[Tensor]) -> Any:
    """The batch with one row each in the place of the tensors that `samples_of` found, in that order."""
    size, left = batch_size(data), iter(rows)

    def put(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return NotImplemented
        return next(left).unsqueeze(0) if leaf.dim() and len(leaf) == size else leaf

    return mapped(data, put)
