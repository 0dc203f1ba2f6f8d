"""What happened to each optimizer's gradients from one of its steps to the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from gradcheck_cli.audit import LoopAudit, LoopEvent
from gradcheck_cli.records import Recording

ENDS = ("step", "skipped")
CLIPS = ("clip-norm", "clip-value")
NO_STEP = "no optimizer step was seen"
Group = tuple[LoopEvent, ...]


@dataclass(frozen=True)
class Window:
    """The events of one optimizer after its step before, up to and with its step number `index`.

    `used` are those since its gradients were last removed: what the step made use of. `thrown` are the groups of
    backwards whose gradients were removed before, and went into no step. `carried`: gradients of the step before are
    still in the sum.
    """

    index: int
    events: tuple[LoopEvent, ...]
    used: tuple[LoopEvent, ...]
    thrown: tuple[Group, ...]
    carried: bool

    @property
    def end(self) -> LoopEvent:
        """The step."""
        return self.events[-1]

    @property
    def backwards(self) -> tuple[LoopEvent, ...]:
        """Those of which the gradients were used."""
        return tuple(event for event in self.used if event.kind == "backward")

    @property
    def repeated(self) -> tuple[LoopEvent, ...]:
        """The most of them that came by the same lines, each with a graph of its own: the micro-batches."""
        alone = [event for event in self.backwards if not event.retains]
        site = max(Counter(event.site for event in alone).items(), key=lambda item: item[1], default=(None, 0))[0]
        return tuple(event for event in alone if event.site == site)

    @property
    def measured(self) -> bool:
        """Whether changes by hand would have been seen."""
        return all(event.measured for event in self.events)

    @property
    def edited(self) -> bool:
        """Whether the script changed by hand what it then used."""
        return any(event.kind in ("edit", "replace") for event in self.used)

    def since_backward(self) -> tuple[LoopEvent, ...]:
        """What was done with the whole sum: the events after the last backward."""
        last = max((i for i, event in enumerate(self.used) if event.kind == "backward"), default=-1)
        return self.used[last + 1 :]


@dataclass(frozen=True)
class Loop:
    """An optimizer's windows, and what came after its last step: `rest`, and the groups in it, `thrown_at_end`."""

    number: int
    name: str
    windows: tuple[Window, ...]
    rest: tuple[LoopEvent, ...]
    thrown_at_end: tuple[Group, ...]

    @property
    def thrown(self) -> list[Group]:
        """All groups of backwards that went into no step."""
        return [group for window in self.windows for group in window.thrown] + list(self.thrown_at_end)


def loops_of(recording: Recording) -> list[Loop]:
    """A loop for each optimizer that made a step; none without an audit."""
    audit = recording.audit
    if audit is None:
        return []
    numbers = sorted({number for event in audit.events if event.kind in ENDS for number in event.optimizers})
    used = {id(event) for number in numbers for part, _ in split(audit, number) for event in used_of(part)}
    return [make_loop(audit, number, used) for number in numbers]


def make_loop(audit: LoopAudit, number: int, used: Collection[int]) -> Loop:
    windows: list[Window] = []
    rest: tuple[LoopEvent, ...] = ()
    held = False
    for events, after_gap in split(audit, number):
        if not events or events[-1].kind not in ENDS:
            rest = events
            continue
        removed = any(event.kind == "zero" for event in events)
        carried = held and not removed and not after_gap
        window = Window(len(windows), events, used_of(events), tuple(thrown_of(events, used)), carried)
        windows.append(window)
        held = carried or bool(window.backwards)
    thrown = [*thrown_of(rest, used), *left_of(rest, used)] if audit.ended else thrown_of(rest, used)
    return Loop(number, name_of(audit, number), tuple(windows), rest, tuple(thrown))


def name_of(audit: LoopAudit, number: int) -> str:
    """An optimizer's type; with its place among several."""
    kind = audit.optimizers[number].type if number < len(audit.optimizers) else "optimizer"
    return kind if len(audit.optimizers) < 2 else f"{kind} (optimizer {number + 1} of {len(audit.optimizers)})"


def split(audit: LoopAudit, number: int) -> Iterator[tuple[tuple[LoopEvent, ...], bool]]:
    """An optimizer's events by its steps, the rest last; and whether any were left out before them."""
    events: list[LoopEvent] = []
    after_gap = False
    for event in audit.events:
        after_gap |= event.kind == "gap"
        if number in event.optimizers:
            events.append(event)
            if event.kind in ENDS:
                yield tuple(events), after_gap
                events, after_gap = [], False
    yield tuple(events), after_gap


def used_of(events: Sequence[LoopEvent]) -> tuple[LoopEvent, ...]:
    """Those after the last removal of gradients; nothing where no step follows."""
    if not events or events[-1].kind not in ENDS:
        return ()
    last = max((i for i, event in enumerate(events) if event.kind == "zero"), default=-1)
    return tuple(events[last + 1 :])


def thrown_of(events: Sequence[LoopEvent], used: Collection[int]) -> Iterator[Group]:
    """Groups of backwards, with the clips between, that were removed though no parameter had been changed by them."""
    group: list[LoopEvent] = []
    for event in events:
        if event.kind == "zero":
            if not event.moved and any(one.kind == "backward" for one in group):
                yield tuple(group)
            group = []
        elif event.kind in CLIPS or (event.kind == "backward" and id(event) not in used):
            group.append(event)


def left_of(events: Sequence[LoopEvent], used: Collection[int]) -> Iterator[Group]:
    """The group of backwards after which the loop ended."""
    last = max((i for i, event in enumerate(events) if event.kind == "zero"), default=-1)
    group = tuple(e for e in events[last + 1 :] if e.kind == "backward" and id(e) not in used)
    if group:
        yield group


def backwards_in(group: Group) -> list[LoopEvent]:
    """Its backwards."""
    return [event for event in group if event.kind == "backward"]


def is_broken(group: Group) -> bool:
    """Whether a loss or a norm in a group was not finite, so that there was a reason to throw it away."""
    losses = [event.loss for event in backwards_in(group) if event.loss is not None]
    return not all(map(isfinite, losses)) or any(
        event.kind == "clip-norm" and not isfinite(event.norm) for event in group
    )


def clips_in(events: Sequence[LoopEvent]) -> list[LoopEvent]:
    """Clips that limit something: clipping at infinity only measures the norm."""
    return [event for event in events if event.kind in CLIPS and isfinite(event.limit)]


def is_scale(scale: float) -> bool:
    """Whether a loss scale is known, and makes a difference."""
    return 0 < scale < float("inf") and scale != 1


def most(part: Sequence[object], whole: Sequence[object]) -> bool:
    """Whether it is what the loop usually does, and not once in a while: more than half."""
    return len(part) * 2 > len(whole)


def usual_count(windows: Sequence[Window]) -> int:
    """How many micro-batches a step usually has; 1 where that varies."""
    counts = Counter(len(window.repeated) for window in windows)
    number, times = max(counts.items(), key=lambda item: item[1], default=(1, 0))
    return number if times * 3 >= 2 * len(windows) else 1
