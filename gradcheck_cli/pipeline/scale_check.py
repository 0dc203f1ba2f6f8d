"""The gradient against finite differences of the loss along it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.amp import GradScaler

from gradcheck_cli.drive.batches import Batch
from gradcheck_cli.examination import ScaleCheck
from gradcheck_cli.pipeline.rerun import Rerun, widened

RELATIVE_SIZES = tuple(10 ** (-half / 2) for half in range(4, 13))
"""From 1e-2 to 1e-6 of the parameters' norm: larger ones leave the neighbourhood, smaller ones drown in rounding."""


def measure_scale(rerun: Rerun, window: Sequence[Batch], precision: str, loss_scale: float) -> ScaleCheck:
    """Differentiate the loss of a window along its gradient; leaves the state of the last evaluation behind.

    The gradient is made as in the run, with its precision and, in fp16, its last loss scale. The differences are taken
    without autocast in the parameters' own dtype: random numbers of another dtype would be others. Every evaluation
    begins with the same random and other state. Raises what the step raises.
    """
    scaler = GradScaler(rerun.device.type, init_scale=loss_scale, enabled=precision == "fp16")
    gradients = rerun.gradients(window, precision, scaler)
    norm, length = norm_of(gradients), norm_of(rerun.parameters)
    if not norm or norm - norm != 0:
        return ScaleCheck(grad_norm=norm, reason=f"the gradient's norm is {norm:g}")
    sizes = tuple(size * (length or 1.0) for size in RELATIVE_SIZES)
    rerun.restore()
    loss = rerun.loss(window)
    slopes = []
    for size in sizes:
        above, below = (moved_loss(rerun, window, gradients, sign * size / norm) for sign in (1, -1))
        slopes.append((above - below) / (2 * size))
    return ScaleCheck(norm, sizes, tuple(slopes), float(loss), torch.finfo(loss.dtype).eps)


def moved_loss(rerun: Rerun, window: Sequence[Batch], direction: Sequence[Tensor], factor: float) -> float:
    """The loss with the parameters moved by `factor` times the direction."""
    rerun.restore()
    with torch.no_grad():
        for parameter, along in zip(rerun.parameters, direction, strict=True):
            parameter.data.add_(along, alpha=factor)
    return float(rerun.loss(window))


def norm_of(tensors: Sequence[Tensor]) -> float:
    """The L2 norm of all elements together."""
    norms = [float(torch.linalg.vector_norm(widened(tensor.detach()))) for tensor in tensors]
    return float(torch.linalg.vector_norm(torch.tensor(norms, dtype=torch.float64)))
