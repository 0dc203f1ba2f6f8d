"""What watching costs, in seconds of the step that is watched."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from time import perf_counter
from typing import Any, Protocol


class Costly(Protocol):
    """Somebody who counts the seconds that its own events take."""

    overhead: float


def timed(method: Callable[..., None]) -> Callable[..., None]:
    """Count the time that an event takes as overhead."""

    @wraps(method)
    def wrapper(self: Costly, *args: Any) -> None:
        began = perf_counter()
        method(self, *args)
        self.overhead += perf_counter() - began

    return wrapper
