"""What a LightningModule's configure_optimizers returns, in any of its forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradcheck_cli.drive.adapters.parts import PROFILE_SCRIPT
from gradcheck_cli.drive.adapters.schedules import Schedule
from gradcheck_cli.errors import TargetError


def read_configuration(module: Any) -> tuple[Any, list[Schedule]]:
    """The optimizer, None where there is none, and its schedules. Raises TargetError for several optimizers."""
    optimizers, schedules = read(module.configure_optimizers())
    if len(optimizers) > 1:
        raise TargetError(
            f"{type(module).__name__} configures {len(optimizers)} optimizers, whose order only a Trainer has",
            PROFILE_SCRIPT,
        )
    return optimizers[0] if optimizers else None, [Schedule.of(one) for one in schedules]


def read(configured: Any) -> tuple[list[Any], list[Any]]:
    """Optimizers and schedules.

    The forms: an optimizer; a dictionary with `optimizer` and perhaps `lr_scheduler`; a list of either; two lists,
    of optimizers and of schedulers; None.
    """
    if configured is None:
        return [], []
    if isinstance(configured, Mapping):
        schedule = configured.get("lr_scheduler")
        return [configured["optimizer"]], [] if schedule is None else [schedule]
    if not isinstance(configured, (list, tuple)):
        return [configured], []
    if len(configured) == 2 and isinstance(configured[0], (list, tuple)):
        optimizers, schedules = configured
        return list(optimizers), list(schedules) if isinstance(schedules, (list, tuple)) else [schedules]
    each = [read(one) for one in configured]
    return [one for optimizers, _ in each for one in optimizers], [one for _, schedules in each for one in schedules]
