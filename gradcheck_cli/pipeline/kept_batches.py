"""Batches of a run that are worth another look after it, kept by reference."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from gradcheck_cli.diagnose.worst_step import WorstStepSearch
from gradcheck_cli.drive.batches import Batch, mapped
from gradcheck_cli.drive.workload import Workload
from gradcheck_cli.pipeline.kept_weights import KeptWeights
from gradcheck_cli.records import Series

MOST_BYTES = 1 << 28


class KeptStep:
    """A step's batches; `nbytes` is how much memory their tensors take."""

    def __init__(self, number: int, window: list[Batch]) -> None:
        self.number, self.window = number, window
        self._tensors = tensors_of(window)
        self._writes = self._count_writes()
        self.nbytes = sum(tensor.nbytes for tensor in self._tensors)

    @property
    def is_intact(self) -> bool:
        """Whether nobody wrote to the batches since: a training step may, or a dataloader that uses memory again."""
        return self._count_writes() == self._writes

    def _count_writes(self) -> int:
        """How often the tensors were written to in place, as far as torch counts that."""
        return sum(tensor._version for tensor in self._tensors if not tensor.is_inference())


class KeptBatches:
    """Keeps the `last` step's batches and those of the `worst` step, whose gradient stands out, of those `judged`.

    The norms of an accelerator come over a few steps late: until then the batches of those steps are kept too, as long
    as they are no more than MOST_BYTES together. On a CPU `weights` of a step with an unusual loss are kept as well.
    """

    def __init__(self, model: nn.Module) -> None:
        self.weights = KeptWeights(model)
        self.last: KeptStep | None = None
        self.worst: KeptStep | None = None
        self._unjudged: deque[KeptStep] = deque()
        self._search = WorstStepSearch()
        self.judged = 0

    def keep(self, windows: Iterable[list[Batch]]) -> Iterator[list[Batch]]:
        """The same windows; each is kept when it is taken."""
        for number, window in enumerate(windows):
            self.last = KeptStep(number, window)
            self._unjudged.append(self.last)
            while len(self._unjudged) > 1 and sum(step.nbytes for step in self._unjudged) > MOST_BYTES:
                self._unjudged.popleft()
            yield window

    def watching(self, workload: Workload) -> Workload:
        """The same workload; the losses of its training step are looked at, where that is no wait for a device."""

        def training_step(model: nn.Module, batch: Any) -> Tensor:
            loss = workload.training_step(model, batch)
            if self.last and isinstance(loss, Tensor) and loss.numel() == 1 and loss.device.type == "cpu":
                self.weights.look(self.last.number, float(loss.detach()))
            return loss

        return replace(workload, training_step=training_step)

    def judge(self, series: Series, first: int = 0) -> None:
        """Given the steps from `first` on whose norm is known by now, let go of their batches, but for the worst's."""
        for step in range(self.judged, first + len(series)):
            found = self._search.add(step, float(series.grad_norm[step - first]))
            kept = self._take(step)
            self.weights.settle(step, found)
            if found:  # numbers differ where a training step calls the optimizer itself
                same = kept is not None and kept.window[0].index == series.batch[step - first]
                self.worst = kept if same else None
        self.judged = first + len(series)

    def _take(self, step: int) -> KeptStep | None:
        while self._unjudged and self._unjudged[0].number < step:
            self._unjudged.popleft()
        return self._unjudged.popleft() if self._unjudged and self._unjudged[0].number == step else None


def tensors_of(window: list[Batch]) -> list[Tensor]:
    """All tensors in the batches."""
    found: list[Tensor] = []

    def note(leaf: object) -> object:
        if isinstance(leaf, Tensor):
            found.append(leaf)
            return leaf
        return NotImplemented

    for batch in window:
        mapped(batch.data, note)
    return found
