"""Which parameters and modules belong together."""

from __future__ import annotations

from collections.abc import Iterable

from gradcheck_cli.records import ParameterInfo


def by_module(parameters: Iterable[ParameterInfo]) -> dict[str, list[ParameterInfo]]:
    """Parameters by the module that owns them, in the order given."""
    owned: dict[str, list[ParameterInfo]] = {}
    for parameter in parameters:
        owned.setdefault(parameter.module, []).append(parameter)
    return owned
