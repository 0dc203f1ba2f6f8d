"""Be beside a script's own process group: with one of gradcheck's, from when the script makes its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch.distributed as dist

from gradcheck_cli.drive.ranks.group import ALONE, Group, Place, make_control


class Follower:
    """`group` is all ranks of the script, once it has joined them; before, and without others, this process alone."""

    def __init__(self, timeout: float) -> None:
        self._timeout, self._is_over = timeout, False
        self.group: Group = ALONE

    def initialising(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Follow the script into its group; it may make another one after it has left the first."""

        @wraps(call)
        def init_process_group(*args: Any, **kwargs: Any) -> None:
            self.leave()
            call(*args, **kwargs)
            place = Place(dist.get_rank(), dist.get_world_size())
            if place.size > 1 and self.group.is_alone:
                self.group = Group(place, dist.get_backend(), make_control(place, self._timeout))

        return init_process_group

    def destroying(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Let the script leave its group, and keep it for what is still to be put together."""

        @wraps(call)
        def destroy_process_group(group: Any = None) -> None:
            if group is None or group is dist.group.WORLD:
                self._is_over = True
            else:
                call(group)

        return destroy_process_group

    def leave(self) -> None:
        """Now leave it, if the script has."""
        if self._is_over and dist.is_initialized():
            dist.distributed_c10d.destroy_process_group.__wrapped__()  # type: ignore[attr-defined]
        self._is_over = False


@contextmanager
def followed(timeout: float) -> Iterator[Follower]:
    """Follow the script that runs in the context; a collective waits for another rank for `timeout` seconds."""
    follower = Follower(timeout)
    if not dist.is_available():  # in this build of torch
        yield follower
        return
    changes = {"init_process_group": follower.initialising, "destroy_process_group": follower.destroying}
    with ExitStack() as undo:
        for name, change in changes.items():
            original = getattr(dist, name)
            for home in (dist, dist.distributed_c10d):
                setattr(home, name, change(original))
                undo.callback(setattr, home, name, original)
        undo.callback(follower.leave)
        yield follower
