"""What was seen of a loop as plain data, for `archive`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gradcheck_cli.audit import EvalSeen, LoopAudit, LoopEvent, OptimizerSeen
from gradcheck_cli.records import Location

PARTS = {"events": LoopEvent, "optimizers": OptimizerSeen, "evals": EvalSeen}


def to_plain(audit: LoopAudit | None) -> dict[str, Any] | None:
    """An audit as JSON has it; members with their default are left out."""
    if audit is None:
        return None
    return {**{part: [members(one) for one in getattr(audit, part)] for part in PARTS}, "ended": audit.ended}


def from_plain(plain: Mapping[str, Any] | None) -> LoopAudit | None:
    """The audit that `to_plain` made this of. Raises TypeError or KeyError where it did not."""
    if plain is None:
        return None
    parts = {part: tuple(kind(**revived(one)) for one in plain[part]) for part, kind in PARTS.items()}
    return LoopAudit(**parts, ended=plain["ended"])


def members(one: Any) -> dict[str, Any]:
    """The fields that say something."""
    defaults = {field.name: field.default for field in dataclasses.fields(one)}
    # NaN is no number that equals its default, but that default itself.
    return {
        name: value
        for name, value in dataclasses.asdict(one).items()
        if value != defaults[name] and not (value != value and defaults[name] != defaults[name])
    }


def revived(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with tuples for lists, and the location as one."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    return {**values, "location": Location(**plain["location"])} if "location" in plain else values
