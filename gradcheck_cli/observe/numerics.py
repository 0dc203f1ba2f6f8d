"""Accurate and cheap reductions over gradients.

Torch's float32 norms accumulate naively on a CPU (-0.27 % at 38.6M elements) and overflow at 1e20. Here every
element of a gradient is widened to float64 before it is squared or summed, in blocks that stay in the cache: float32,
bf16 and fp16 values between 1e-45 and 3e38 can then neither overflow nor vanish, and sums are right to about 1e-12.

Devices without float64 (mps) accumulate in float32: there, values beyond 1e-18 .. 1e18 are out of reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from gradcheck_cli.observe.device_numerics import DeviceReducer
from gradcheck_cli.observe.host_numerics import HostReducer
from gradcheck_cli.observe.transfer import Packed, Value
from gradcheck_cli.observe.values import Held
from gradcheck_cli.records import Floats

COLUMNS = ("norm", "mean", "std", "max_abs", "zero_fraction", "nonfinite")


class Reducer(Protocol):
    """Statistics of many tensors at once, for tensors of the same shapes step after step."""

    def measure(self, tensors: Sequence[Tensor | None]) -> Tensor | Floats | Packed:
        """(n, 6) float64, still to be brought over by `transfer.to_host`: the COLUMNS of each tensor that is there.

        `norm` is L2, `std` is over the population (divided by n), `nonfinite` counts elements. Complex
        tensors are measured by magnitude, sparse ones with their implicit zeros. No host synchronisation on
        an accelerator, except for sparse gradients, whose number of entries only the device knows.
        """
        ...

    def norms(self, tensors: Sequence[Tensor | None]) -> Value:
        """(n,) float64: the L2 norm of each tensor that is there."""
        ...

    def hold(self, tensors: Sequence[Tensor]) -> Held:
        """Copies, for `changes`."""
        ...

    def changes(self, held: Held, now: Sequence[Tensor]) -> tuple[Value, Value]:
        """(n,) the L2 norm of each difference, (n,) the largest magnitude in `now`; the copies may be overwritten."""
        ...


def reducer_for(device: torch.device) -> Reducer:
    """The reducer for tensors on `device`."""
    return HostReducer() if device.type == "cpu" else DeviceReducer(device)
