"""Ctrl-C in a run whose ranks are started here: this process takes it, and torch's launcher passes it on to the ranks.

While a rank still imports torch it could only die of it, with a traceback. So ranks start with it held back, and what
came meanwhile reaches them when they are ready (`release_interrupts`).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from multiprocessing import resource_tracker
from types import FrameType

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.launcher.api import LaunchConfig

HANDLED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
CAN_HOLD = hasattr(signal, "pthread_sigmask") and "signals_to_handle" in {one.name for one in fields(LaunchConfig)}
"""Older launchers handle Ctrl-C themselves; then the only loss is that early one's traceback."""


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Processes that are started in the context hold Ctrl-C back; here it raises SignalException.

    What is blocked in a thread is so in the processes that it starts. The signal needs another thread to arrive in.
    """
    if not CAN_HOLD:
        yield
        return
    over = threading.Event()
    threading.Thread(target=over.wait, daemon=True).start()
    resource_tracker.ensure_running()  # starting it later would unblock the signal again
    signal.signal(signal.SIGINT, raise_interrupt)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        over.set()


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    """As torch's launcher does for other signals; from now on the next one interrupts this thread's waiting, too."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    raise SignalException("interrupted", signal.SIGINT)


def release_interrupts() -> None:
    """In a rank: raise KeyboardInterrupt for Ctrl-C from now on, and at once if it came before."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if CAN_HOLD:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def handlers_restored() -> Iterator[None]:
    """Take back the handlers that torch's launcher sets and leaves."""
    numbers = [getattr(signal, name) for name in HANDLED if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
