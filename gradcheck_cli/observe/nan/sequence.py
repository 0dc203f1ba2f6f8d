"""From the autograd nodes that run in backward to the operations that made them in forward."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import torch

from gradcheck_cli.observe.nan.states import tensors_in


class Sequencer:
    """Notes which operation made which autograd node.

    Nodes are numbered as they are made, an operator's own just before it is dispatched. Operators that make none
    must not take the number of the one before.
    """

    def __init__(self) -> None:
        self._last = newest()
        self._expected = 0
        self._numbers: list[int] = []
        self._operations: list[int] = []

    def note_call(self, operation: int, args: Sequence[Any], writes: bool) -> None:
        """`operation` is about to run; a node with a new number is its own, if it is not one more of the write before.

        Under torch.func and in custom functions no argument shows that gradients are recorded, and under torch.func
        an operator may make several nodes: all numbers from the first new one on are its own.
        """
        number = newest()
        recorded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors_in(args))
        first, self._last = self._last + self._expected + 1, number
        new = number >= first
        self._expected = int(recorded and writes and args[0]._is_view())  # its CopySlices comes after the call
        if not new and recorded and writes and self._operations and self._operations[-1] == operation - 1:
            self._operations[-1] = operation  # the operation before it was a copy that backward needs of what it writes
        if new:
            self._numbers.append(first)
            self._operations.append(operation)

    @property
    def node(self) -> str:
        """The name of the node that is running, or ""."""
        node = torch._C._current_autograd_node()
        return node.name().rpartition("::")[2] if node is not None else ""

    def forward_operation(self) -> int:
        """The operation that made the running node, or -1; in-place writes make a second one with the next number."""
        node = torch._C._current_autograd_node()
        if node is None:
            return -1
        place = bisect_right(self._numbers, node._sequence_nr()) - 1
        return self._operations[place] if place >= 0 and node._sequence_nr() < 2**63 else -1


def newest() -> int:
    """The number of the newest autograd node."""
    return int(torch._C._autograd._get_sequence_nr()) - 1
