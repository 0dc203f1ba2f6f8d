"""Whether tensors that should be the same on every rank are: by numbers that a single changed bit changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gradcheck_cli.observe.naming import clean
from gradcheck_cli.observe.ranks.shards import split_dimensions
from gradcheck_cli.observe.values import local

EXACT = (1 << 52) - 1
"""What float64 holds exactly, in which numbers come over from a device."""
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def compared(model: nn.Module, synchronisers: Sequence[nn.Module]) -> dict[str, Tensor]:
    """What must be the same on all ranks after every step, by name: parameters that are whole on each, and buffers.

    Not the buffers that DDP sends from rank 0 before each forward pass: in between, each rank has its own.
    """
    whole = {clean(name): p for name, p in model.named_parameters() if not split_dimensions(p)}
    senders = [one for one in synchronisers if isinstance(one, DistributedDataParallel) and one.broadcast_buffers]
    sent = {id(buffer) for one in senders for buffer in one.buffers()}
    buffers = {n: b for n, b in model.named_buffers() if id(b) not in sent and b.layout is torch.strided and b.numel()}
    return {**whole, **buffers}


def checksums(tensors: Sequence[Tensor]) -> Tensor:
    """(n,) float64 on the tensors' device: the sum of the bits of each tensor's elements, as integers."""
    with torch.no_grad():
        return torch.stack([checksum(local(tensor.detach())) for tensor in tensors])


def checksum(tensor: Tensor) -> Tensor:
    """A 0-d float64 that holds an integer."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    bits = tensor.contiguous().reshape(-1).view(INTEGERS[tensor.element_size()])
    return bits.sum(dtype=torch.int64).bitwise_and(EXACT).double()
