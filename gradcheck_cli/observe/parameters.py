"""The parameters that a recorder watches, as this process has them: of distributed ones, its own part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor
from torch.optim import Optimizer

from gradcheck_cli.observe.naming import groups_of
from gradcheck_cli.records import ParameterInfo


class Parameters:
    """`trainable` are the indices of those that require gradients. If `may_join`, those that are released from being
    frozen are added, in a new list, when they get their first gradient.
    """

    def __init__(self, tensors: Sequence[Tensor], may_join: bool = True) -> None:
        self.tensors = list(tensors)
        self.trainable = [index for index, tensor in enumerate(tensors) if tensor.requires_grad]
        self._trainable = [tensors[index] for index in self.trainable]
        self._may_join = may_join
        self._present: Sequence[int] = ()
        self._distributed = any(hasattr(tensor, "to_local") for tensor in tensors)

    def values(self) -> list[Tensor]:
        """All of them."""
        return self._own(self.tensors)

    def trainable_values(self) -> list[Tensor]:
        """Those that require gradients."""
        return self._own(self._trainable)

    def gradients(self) -> list[Tensor | None]:
        """The gradient of each."""
        if not self._distributed:
            return [tensor.grad for tensor in self.tensors]
        from gradcheck_cli.observe.ranks.shards import gradients_of

        return gradients_of(self.tensors)

    def find_present(self, gradients: Sequence[Tensor | None], number: int) -> Sequence[int]:
        """The places of the gradients that are there, so many; the same list while it is those."""
        present = find_present(gradients, number, self._present)
        if present is not self._present:
            self._present = present
            if self._may_join:
                self._join(present)
        return present

    def described(self, infos: Iterable[ParameterInfo], optimizer: Optimizer) -> list[ParameterInfo]:
        """The same descriptions; some may have been given to the optimizer since, with `add_param_group`."""
        groups = groups_of(optimizer)
        return [
            info if info.in_optimizer or id(tensor) not in groups
            else replace(info, in_optimizer=True, group=groups[id(tensor)])
            for info, tensor in zip(infos, self.tensors, strict=True)
        ]  # fmt: skip

    def _join(self, present: Sequence[int]) -> None:
        known = set(self.trainable)
        late = [place for place in present if place not in known and self.tensors[place].requires_grad]
        if late:
            self.trainable = [*self.trainable, *late]
            self._trainable = [self.tensors[place] for place in self.trainable]

    def _own(self, tensors: list[Tensor]) -> list[Tensor]:
        if not self._distributed:
            return tensors
        from gradcheck_cli.observe.ranks.shards import locals_of

        return locals_of(tensors)


def find_present(gradients: Sequence[Tensor | None], number: int, known: Sequence[int]) -> Sequence[int]:
    """The places of those that are there, so many; the `known` ones if it is those again, to keep one list."""
    if number == len(gradients):
        return known if len(known) == number else range(number)
    found = [place for place, gradient in enumerate(gradients) if gradient is not None]
    return known if found == known else found
