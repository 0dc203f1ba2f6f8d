"""The first run of a script: which model's step is not finite, at the cost of a recording."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from gradcheck_cli.observe.nan.sinks import bad_from_the_start
from gradcheck_cli.observe.nan.states import can_be_bad, is_finite, state_of
from gradcheck_cli.observe.nan.watch import norms, to_floats
from gradcheck_cli.observe.session import Session
from gradcheck_cli.observe.watched import Watched
from gradcheck_cli.records import Series
from gradcheck_cli.tape import Sink

REMEMBERED = 4096


@dataclass(frozen=True)
class Span:
    """Steps of a model, by its number among those watched: all was finite before `first`, something not after `last`.

    `sinks` are what was seen.
    """

    model: int
    first: int
    last: int
    sinks: tuple[Sink, ...] = ()


@dataclass
class Known:
    """A model: which tensors were bad before it was trained, after how many steps it was last seen to be finite.

    `with_loss` are the steps since then that had a backward: only their losses are known.
    """

    bad: frozenset[str]
    finite_after: int = 0
    with_loss: set[int] = field(default_factory=set)


class FaultWatch(Session):
    """A session that can tell whether all is finite. Looks at what has come over from the device already."""

    _orders: deque[tuple[int, int]]
    _known: dict[Watched, Known]

    def __enter__(self) -> FaultWatch:
        self._orders, self._known = deque(maxlen=REMEMBERED), {}
        super().__enter__()
        return self

    def after_backward(self, loss: Tensor) -> None:
        super().after_backward(loss)
        for one in self.watched:
            if one.recorder.draft.losses:
                self._known[one].with_loss.add(one.recorder.taken)

    def look(self, one: Watched) -> Span | None:
        """A step of this model is over; where something in it or shortly before was not finite."""
        self._orders.append((self.watched.index(one), one.recorder.taken - 1))
        is_news = one.recorder.steps > self._known[one].finite_after
        return self.find() if is_news and self._span(one) else None

    def find(self) -> Span | None:
        """Of all models, the earliest steps since the last look that are bad."""
        spans = [span for one in self.watched if (span := self._span(one))]
        return min(spans, key=self._position, default=None)

    def running(self) -> Span:
        """The step that was not over yet when the script raised: of the model whose turn it was."""
        model = self._orders[-min(len(self.watched), len(self._orders))][0] if self._orders else 0
        taken = self.watched[model].recorder.taken if self.watched else 0
        return Span(model, taken, taken)

    def _position(self, span: Span) -> int:
        place = (span.model, span.last)
        return self._orders.index(place) if place in self._orders else len(self._orders)

    def _span(self, one: Watched) -> Span | None:
        known, recorder = self._known[one], one.recorder
        news, first = recorder.series(known.finite_after), known.finite_after
        bad = [first + i for i in range(len(news)) if is_bad(news, i, first + i in known.with_loss)]
        spoiled = spoiled_state(one.model, known.bad)
        if not bad and not spoiled:
            known.finite_after = recorder.taken
            known.with_loss.clear()
            return None
        last = bad[0] if bad else max(recorder.taken - 1, 0)
        sinks = (*(seen_in(one, last) if bad else ()), *spoiled)
        return Span(self.watched.index(one), known.finite_after, last, sinks)

    def _watch(self, *found: Any) -> None:
        super()._watch(*found)
        for one in self.watched:
            self._known.setdefault(one, Known(bad_from_the_start(one.model)))


def is_bad(series: Series, step: int, with_loss: bool) -> bool:
    """Whether a step's loss or gradient is not finite, or its loss scale is gone: until then a skip is normal."""
    loss = with_loss and not isfinite(series.loss[step])
    harmless = series.skipped[step] and not series.loss_scale[step] < 1
    return loss or not (harmless or isfinite(series.grad_norm[step]))


def spoiled_state(model: nn.Module, known_bad: frozenset[str]) -> tuple[Sink, ...]:
    """The parameters and buffers that are not finite now."""
    named: dict[tuple[str, str], Tensor] = {("parameter", name): tensor for name, tensor in model.named_parameters()}
    named.update({("buffer", name): tensor for name, tensor in model.named_buffers()})
    tensors = [t.detach() for (what, name), t in named.items() if can_be_bad(t) and f"{what}:{name}" not in known_bad]
    with torch.no_grad():
        if all(map(isfinite, to_floats(norms(tensors)))):
            return ()
    return tuple(
        Sink(what, name, state_of(tensor.detach()))
        for (what, name), tensor in named.items()
        if f"{what}:{name}" not in known_bad and not is_finite(tensor)
    )


def seen_in(one: Watched, step: int) -> Iterator[Sink]:
    """What was bad of a step's loss and gradients; these may be there no more."""
    series = one.recorder.series()
    if not isfinite(series.loss[step]):
        yield Sink("loss", "", state_of(torch.tensor(series.loss[step])))
    named = [(name, p.grad) for name, p in one.model.named_parameters() if p.grad is not None]
    gradients = [(name, gradient) for name, gradient in named if not is_finite(gradient)]
    if not isfinite(series.grad_norm[step]):
        for name, gradient in gradients or [("some parameters", torch.tensor(series.grad_norm[step]))]:
            yield Sink("gradient", name, state_of(gradient.detach()))
