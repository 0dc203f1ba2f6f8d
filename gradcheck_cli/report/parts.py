"""A page put together of parts, of which as much is kept as it may be large."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gradcheck_cli.report.figures import plural

REMARK = 250


@dataclass(frozen=True)
class Part:
    """Kept as a whole or left out, but for its `items`, of which the last ones may be left out; `what` names one."""

    head: str
    items: tuple[str, ...] = ()
    tail: str = ""
    what: str = "part"


def join(parts: Iterable[Part], room: int, see_all: str) -> str:
    """The parts in at most `room` bytes of UTF-8, the first ones first; `see_all` says where the rest is to be had."""
    page, left, skipped = [], room - 2 * REMARK, 0
    for part in parts:
        fixed = size(part.head) + size(part.tail)
        if fixed > left:
            skipped += 1
            continue
        kept = fitting(part.items, left - fixed)
        more = len(part.items) - len(kept)
        remark = (
            f"\n*{more:,} more {part.what}{'s' if more > 1 else ''} left out for want of room: {see_all}*\n\n"
            if more
            else ""
        )
        page.append("".join([part.head, *kept, remark, part.tail]))
        left -= size(page[-1]) - size(remark) + (REMARK if more else 0)
    if skipped:
        page.append(f"\n*{plural(skipped, 'more section')} left out for want of room: {see_all}*\n")
    return "".join(page).rstrip("\n") + "\n"


def fitting(items: tuple[str, ...], room: int) -> tuple[str, ...]:
    """The first ones, as many as have room, with a remark on the others."""
    if sum(map(size, items)) <= room:
        return items
    room -= REMARK
    for number, item in enumerate(items):
        room -= size(item)
        if room < 0:
            return items[:number]
    return items


def size(text: str) -> int:
    """In bytes of UTF-8."""
    return len(text.encode("utf-8"))
