"""What is measured of gradients while a GradScaler's loss scale is still in them, without it.

A sound loop unscales before anything is measured; one that clips before that, or steps without it, does not. Scales
stay on their device, and so does the answer to whether the script has divided its gradients by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.utils.weak import WeakTensorKeyDictionary

from gradcheck_cli.observe.audit.gradients import Gradients, Marks, as_tensor
from gradcheck_cli.observe.audit.losses import mark_scaled, read_loss
from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.observe.transfer import Value, on_host
from gradcheck_cli.records import Floats, RunInfo

SCALED_COLUMNS = 4
"""Norm, mean, std and max_abs; a scale does not change the fraction of zeros, nor how many are not finite."""


class Trained(Protocol):
    """A model in training; `scaled` says that a loss scale was seen."""

    scaled: bool

    @property
    def optimizer(self) -> Optimizer: ...
    @property
    def recorder(self) -> Recorder: ...


class Gradient:
    """One model's gradients. `scale` is in them, unless the script has divided by it.

    `by` is what was divided by in this step. The first loss scales at which they were clipped and used are
    `clipped_at` and `stepped_at`. All are 0-d tensors or None.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._sample, self._marks = Gradients(optimizer, 0), Marks()
        self._measured: Value | None = None
        self._is_unscaled_first = False
        self.scale: Tensor | None = None
        self.by: Tensor | None = None
        self.clipped_at: Tensor | None = None
        self.stepped_at: Tensor | None = None

    def add(self, scale: Tensor | None, is_first: bool) -> None:
        """A backward added gradients with this scale in them; what they are now is that."""
        is_known = scale is not None and (is_first or self.scale is not None)
        self.scale = scale if is_known else None
        self.by = None if is_first else self.by
        if is_known:
            self._sample.choose()
            self._sample.known = None if self._is_unscaled_first else self._sample.values()  # a sound loop needs none
            self._marks = self._sample.marks()

    def unscale(self) -> None:
        """GradScaler has divided them."""
        if self.scale is not None:
            self._is_unscaled_first = self.by is None
        self.scale = None

    def divide(self, values: dict[str, Value]) -> None:
        """Take the scale out of the statistics, if these are new."""
        measured = values.get("statistics")
        if measured is not None and measured is not self._measured:
            self.by = self._factor()
            self._is_unscaled_first &= self.by is None
            self._measured = values["statistics"] = without(measured, self.by)

    def _factor(self) -> Tensor | None:
        """The scale, 1 or None where the script has changed them since; through `.data` it leaves no mark."""
        if self.scale is None or self._sample.marks() != self._marks:
            return None
        before, now = self._sample.look()
        if before is None or now is None:
            return self.scale
        now, before = as_tensor(now), as_tensor(before)
        same = ((now == before) | before.isnan()).all()
        scale = self.scale.to(now.device, non_blocking=True)
        return torch.where(same, scale, torch.ones_like(scale))


class LossScales:
    """Which models' gradients hold which loss scale."""

    def __init__(self) -> None:
        self._losses: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._latest: Tensor | None = None
        self._gradients: WeakKeyDictionary[Trained, Gradient] = WeakKeyDictionary()

    def noting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """`GradScaler.scale`, with a note of what it returns."""

        def scale(scaler: GradScaler, outputs: Any) -> Any:
            scaled = call(scaler, outputs)
            if scaler.is_enabled() and scaler._scale is not None:
                self._latest = scaler._scale.clone()
                for one in scaled if isinstance(scaled, (list, tuple)) else [scaled]:
                    if isinstance(one, Tensor):
                        mark_scaled(one)
                if isinstance(scaled, Tensor):
                    self._losses[scaled] = outputs.detach(), self._latest
            return scaled

        return scale

    def undo(self, loss: Tensor) -> tuple[Tensor, Tensor | None]:
        """The loss as it was before it was scaled, and the scale; itself and None where it was not."""
        if self._latest is None:
            return loss, None
        known: tuple[Tensor, Tensor] | None = self._losses.pop(loss, None)  # type: ignore[no-untyped-call]
        if known is None and read_loss(loss).scaled:  # and then divided, or summed
            return loss.detach() / self._latest, self._latest
        return known or (loss, None)

    def after_backward(self, one: Trained, scale: Tensor | None) -> None:
        """A backward of a loss with this scale has changed a model's gradients."""
        if self._latest is None or (scale is None and one not in self._gradients):
            return
        own, draft = self._gradients.setdefault(one, Gradient(one.optimizer)), one.recorder.draft
        own.add(scale, is_first=len(draft.losses) == 1)
        draft.values.pop("scale", None)
        if own.scale is not None:
            one.scaled, draft.values["scale"] = True, own.scale
        own.divide(draft.values)

    def after_unscale(self, one: Trained) -> None:
        """GradScaler has divided a model's gradients."""
        if own := self._gradients.get(one):
            own.unscale()

    def after_measuring_for_clip(self, one: Trained) -> None:
        """A model's gradients are about to be clipped."""
        if own := self._gradients.get(one):
            own.divide(one.recorder.draft.values)
            own.clipped_at = own.by if own.clipped_at is None else own.clipped_at

    def after_measuring_for_update(self, one: Trained) -> None:
        """A model's gradients are about to be used."""
        if self._latest is not None and (own := self._gradients.get(one)):
            values = one.recorder.draft.values
            own.divide(values)
            if own.scale is not None and own.by is not None:
                if "clipped" in values:
                    values["clipped"] = without(values["clipped"], own.by)
                elif own.stepped_at is None:
                    own.stepped_at = own.by

    def with_notes(self, one: Trained, run: RunInfo) -> RunInfo:
        """The same run with the max_norm that really applies to the gradients, as all norms are, and what is odd."""
        scale = self.clipped_at(one)
        notes = scaled_notes(run.max_norm, scale, self.stepped_at(one))
        max_norm = None if run.max_norm is None else run.max_norm / scale
        return replace(run, max_norm=max_norm, notes=(*run.notes, *notes))

    def clipped_at(self, one: Trained) -> float:
        """The first loss scale that was in a model's gradients when they were clipped; 1 where none was."""
        own = self._gradients.get(one)
        return 1.0 if own is None or own.clipped_at is None else float(own.clipped_at)

    def stepped_at(self, one: Trained) -> float:
        """The first loss scale that was in a model's gradients when its optimizer used them; 1 where none was."""
        own = self._gradients.get(one)
        return 1.0 if own is None or own.stepped_at is None else float(own.stepped_at)


def scaled_notes(max_norm: float | None, clipped_at: float, stepped_at: float) -> Iterator[str]:
    """What the script did with gradients that were still multiplied by these loss scales, if by any."""
    norms = "; norms are given without it"
    if clipped_at != 1:
        at = "" if max_norm is None else f": a clip at {max_norm:g} acts as one at {max_norm / clipped_at:.3g}"
        yield f"the script clips gradients that are still multiplied by its loss scale, {clipped_at:g}{at}{norms}"
    if stepped_at != 1:
        yield f"the optimizer steps on gradients that are multiplied by the loss scale, {stepped_at:g}{norms}"


def without(value: Value, by: Tensor | None) -> Value:
    """Statistics (n, 6), or norms (n,), of gradients that are divided by a 0-d tensor."""
    if by is None:
        return value
    if isinstance(value, Tensor):
        return value / divisors(by.to(value, non_blocking=True), value.dim())
    numbers = on_host(value)  # and the scale is on the CPU, too
    unscaled: Floats = numbers / divisors(by.double(), numbers.ndim).numpy()
    return unscaled


def divisors(by: Tensor, dimensions: int) -> Tensor:
    """0-d for norms; for statistics (6,), 1 where a scale changes nothing."""
    if dimensions == 1:
        return by
    one = torch.ones_like(by)
    return torch.stack([by] * SCALED_COLUMNS + [one] * 2)
