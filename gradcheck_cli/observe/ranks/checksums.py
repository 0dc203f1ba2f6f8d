"""Whether tensors that should be the same on every rank are: by numbers that a single changed bit changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from gradcheck_cli.observe.naming import clean
from gradcheck_cli.observe.ranks.shards import split_dimensions
from gradcheck_cli.observe.values import local

EXACT = (1 << 52) - 1
"""What float64 holds exactly, in which numbers come over from a device."""
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Compared:
    """What must be the same on all ranks after every step, by name: see `comparable`.

    `names` are those at the begin, `buffers` those of them that are no parameters.
    """

    def __init__(self, model: nn.Module, synchronisers: Sequence[nn.Module]) -> None:
        self._model = model.module if isinstance(model, DistributedDataParallel) else model
        self._synchronisers = synchronisers
        found = comparable(self._model, synchronisers)
        self.names, self.buffers = tuple(found), frozenset(name for name, _ in saved_buffers(self._model))
        self.device = next((tensor.device for tensor in found.values()), None)

    def checksums(self) -> Tensor:
        """(names,) float64 on the model's device: `checksum` of each tensor as it is now, 0 where it is gone."""
        now = comparable(self._model, self._synchronisers)
        with torch.no_grad():
            sums = [checksum(local(now[name].detach())) if name in now else torch.zeros(()) for name in self.names]
            return torch.stack([one.to(self.device) for one in sums])


def comparable(model: nn.Module, synchronisers: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Parameters that are whole on each rank, and buffers that are saved with the model.

    Not the buffers that DDP sends from rank 0 before each forward pass: in between, each rank has its own.
    """
    parameters = {id(one): (clean(name), one) for name, one in model.named_parameters()}
    for module in synchronisers:
        for name, one in module.named_parameters():
            parameters.setdefault(id(one), (name.removeprefix("module."), one))
    senders = [one for one in synchronisers if isinstance(one, DistributedDataParallel) and one.broadcast_buffers]
    sent = {id(buffer) for one in senders for buffer in one.buffers()}
    whole = {name: one for name, one in parameters.values() if is_plain(one) and not split_dimensions(one)}
    return {**whole, **{name: one for name, one in saved_buffers(model) if is_plain(one) and id(one) not in sent}}


def is_plain(tensor: Tensor) -> bool:
    """Whether its bits can be read as they are."""
    return tensor.layout is torch.strided and tensor.numel() > 0


def saved_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Those of the state dict; others are caches. Not the running averages of batch norm: each rank has its own."""
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set and not isinstance(module, _NormBase):
                yield clean(f"{prefix}.{name}" if prefix else name), buffer


def checksum(tensor: Tensor) -> Tensor:
    """A 0-d float64 that holds an integer."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    bits = tensor.contiguous().reshape(-1).view(INTEGERS[tensor.element_size()])
    return bits.sum(dtype=torch.int64).bitwise_and(EXACT).double()
