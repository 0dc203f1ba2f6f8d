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
        """`operation` is about to run; a node with a new number is its own, unless it cannot have made one.

        Without gradients being recorded that of a custom function is, but not one more of the write before.
        """
        number = newest()
        recorded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors_in(args))
        foreign = 0 if torch.is_grad_enabled() else self._expected
        new, self._last = number > self._last + foreign, number
        self._expected = int(recorded and writes and args[0]._is_view())  # its CopySlices comes after the call
        if not new and recorded and writes and self._operations and self._operations[-1] == operation - 1:
            self._operations[-1] = operation  # the operation before it was a copy that backward needs of what it writes
        if new and (recorded or not torch.is_grad_enabled()):
            self._numbers.append(number)
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
