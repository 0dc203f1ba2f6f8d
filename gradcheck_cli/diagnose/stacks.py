"""Stacks of like blocks, out of the signals of the blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gradcheck_cli.diagnose.selection import pattern
from gradcheck_cli.records import Floats, Recording


@dataclass(frozen=True)
class Stack:
    """Blocks of one container in execution order; arrays are (rows, blocks), as in `BlockSignals`."""

    names: tuple[str, ...]
    output_rms: Floats
    branch_share: Floats
    token_cosine: Floats

    @property
    def layer(self) -> str:
        """The blocks' names as a pattern."""
        return pattern(self.names[0])

    @property
    def evidence(self) -> dict[str, Any]:
        """Which stack a finding is about."""
        return {"modules": list(self.names), "blocks": len(self.names)}


def stacks(recording: Recording) -> list[Stack]:
    """Every stack that was measured."""
    assert recording.signals is not None
    blocks = recording.signals.blocks
    containers: dict[str, list[int]] = {}
    for column, name in enumerate(blocks.names):
        containers.setdefault(name.rpartition(".")[0], []).append(column)
    return [
        Stack(
            names=tuple(blocks.names[column] for column in columns),
            output_rms=blocks.output_rms[:, columns],
            branch_share=blocks.branch_share[:, columns],
            token_cosine=blocks.token_cosine[:, columns],
        )
        for columns in containers.values()
    ]


def holds(recording: Recording, stack: Sequence[str], kind: str) -> bool:
    """Whether a module whose type begins with `kind` is within these blocks."""
    inside = tuple(f"{name}." for name in stack)
    return any(module.type.startswith(kind) and module.name.startswith(inside) for module in recording.modules)
