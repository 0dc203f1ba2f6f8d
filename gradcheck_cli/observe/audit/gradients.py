"""The gradients of one optimizer, known by a sample of them: who changed them when, and to what."""

from __future__ import annotations

from collections.abc import Callable
from weakref import ref

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradcheck_cli.observe.native import library

EACH = 2
VALUES = 32

Sample = Tensor | bytes | None
"""Some elements (n,) float32, as bytes where that makes nobody wait for a device."""
Marks = list[tuple[int, int] | None]


class Gradients:
    """`known`: the sampled values (n,) float32 as the last known call left them; None where there was no gradient.

    `forget` is called when the optimizer is gone.
    """

    def __init__(self, optimizer: Optimizer, number: int, forget: Callable[[object], None] | None = None) -> None:
        self.number = number
        self.known: Sample = None
        self._optimizer = ref(optimizer, forget)
        self._sample: list[ref[Tensor]] = []
        self._are_vectors = False
        self._weights: list[int | None] = []
        self._ids: tuple[int, frozenset[int]] = (-1, frozenset())

    @property
    def optimizer(self) -> Optimizer | None:
        """Whose they are, while it is there."""
        return self._optimizer()

    @property
    def parameters(self) -> list[Tensor]:
        """All parameters that the optimizer holds now."""
        optimizer = self._optimizer()
        return [p for group in optimizer.param_groups for p in group["params"]] if optimizer else []

    @property
    def ids(self) -> frozenset[int]:
        """The identities of its parameters."""
        optimizer = self._optimizer()
        size = sum(len(group["params"]) for group in optimizer.param_groups) if optimizer else self._ids[0]
        if size != self._ids[0]:
            self._ids = size, frozenset(map(id, self.parameters))
        return self._ids[1]

    def marks(self) -> Marks:
        """Identity and version of each sampled gradient: they differ after any call that changed it."""
        if library.COMPILED:
            return library.COMPILED.marks(self._sample)
        return [None if (p := one()) is None or (g := p.grad) is None else (id(g), g._version) for one in self._sample]

    def values(self) -> Sample:
        """A copy of some elements of the sampled gradients, on their device; None without any."""
        gradients = [None if (p := one()) is None else p.grad for one in self._sample]
        known = library.COMPILED.first(gradients, VALUES) if library.COMPILED and self._are_vectors else None
        if known is not None:
            return known or None
        with torch.no_grad():
            parts = [part for g in gradients if g is not None and (part := few(g)) is not None]
            return torch.cat(parts) if parts else None

    def choose(self) -> None:
        """Choose the sample, once there are gradients: two short vectors, which are dense and cheap to read."""
        if self._sample:
            return
        there = [p for p in self.parameters if p.grad is not None and p.numel()]
        same = [p for p in there if p.grad.device == there[0].grad.device]  # type: ignore[union-attr]
        vectors = ends([p for p in same if p.dim() == 1])
        self._are_vectors = len(vectors) == EACH
        self._sample = [ref(p) for p in (vectors if self._are_vectors else ends(same))]

    def memory(self) -> list[int]:
        """Where all its gradients lie, those that lie somewhere."""
        places = (address(p.grad) for p in self.parameters if p.grad is not None)
        return [place for place in places if place is not None]

    def look(self) -> tuple[Sample, Sample]:
        """What was known, and what the gradients are now, which is known from here on."""
        before, self.known = self.known, self.values()
        return before, self.known

    def hold_weights(self) -> None:
        """What the parameters are now is known."""
        self._weights = self._versions()

    @property
    def moved(self) -> bool:
        """Whether the parameters were changed since `hold_weights`."""
        return self._versions() != self._weights

    def _versions(self) -> list[int | None]:
        if library.COMPILED:
            return library.COMPILED.versions(self._sample)
        return [None if (p := one()) is None else p._version for one in self._sample]


def ends(tensors: list[Tensor]) -> list[Tensor]:
    """The first and the last."""
    return tensors[:1] + tensors[1:][-(EACH - 1) :]


def as_tensor(sample: Tensor | bytes) -> Tensor:
    """(n,) float32 of a sample of one or more elements."""
    return sample if isinstance(sample, Tensor) else torch.frombuffer(bytearray(sample), dtype=torch.float32)


def is_same(before: Sample, now: Sample) -> bool:
    """Whether two samples are known to be equal; tensors would have to be waited for."""
    return before is now or (isinstance(before, bytes) and before == now)


def are_new(now: Marks, before: Marks) -> bool:
    """Whether each gradient is gone or was changed."""
    return not any(now) or all(new is None or new != old for new, old in zip(now, before, strict=True))


def few(gradient: Tensor) -> Tensor | None:
    """Some elements as float32: of a matrix from its middle row, so that all is views and nothing large is copied."""
    gradient = getattr(gradient, "_local_tensor", gradient).detach()
    if gradient.layout is not torch.strided:
        gradient = gradient._values() if gradient.layout is torch.sparse_coo else gradient.values()
    if not gradient.numel():
        return None
    if gradient.is_complex():
        gradient = torch.view_as_real(gradient)
    while gradient.dim() > 1:
        gradient = gradient.select(0, gradient.shape[0] // 2)
    flat = gradient.reshape(-1)
    return flat.narrow(0, 0, min(VALUES, len(flat))).float()


def address(tensor: Tensor) -> int | None:
    """Where a tensor's values begin, the same for `.data`; None for sparse, fake and wrapped ones, and for none."""
    try:
        return tensor.data_ptr() or None
    except RuntimeError:
        return None
