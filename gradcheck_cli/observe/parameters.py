"""The parameters that a recorder watches, as this process has them: of distributed ones, its own part."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


class Parameters:
    """`trainable` are the indices of those that require gradients."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)
        self.trainable = [index for index, tensor in enumerate(tensors) if tensor.requires_grad]
        self._trainable = [tensors[index] for index in self.trainable]
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
