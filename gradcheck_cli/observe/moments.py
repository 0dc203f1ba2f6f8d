"""From sums to statistics, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradcheck_cli.records import Bools, Floats

Again = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class Moments:
    """Sums over the elements of n tensors in some steps: `count` of shape (n,), the others (steps, n).

    `count` is the number of elements, `total` the sum of x, `squares` of x^2, `largest` the maximum of |x|, `zeros`
    the number of exact zeros.
    """

    count: Floats
    total: Floats
    squares: Floats
    largest: Floats
    zeros: Floats


def statistics_of(moments: Moments, again: Again) -> Floats:
    """(steps, n, 6): norm, mean, std, max |x|, zero fraction and number of non-finite elements.

    Where sums do not suffice, the elements `again(step, tensor)` are looked at once more.
    """
    count, squares = moments.count, moments.squares
    statistics = np.zeros((*squares.shape, 6))
    mean = np.divide(moments.total, count, out=statistics[..., 1])
    mean_squares = mean * mean
    variance = squares / count - mean_squares
    np.sqrt(squares, out=statistics[..., 0])
    np.sqrt(variance, out=statistics[..., 2])
    statistics[..., 3] = moments.largest
    np.divide(moments.zeros, count, out=statistics[..., 4])
    # In float64, E[x^2] - E[x]^2 keeps six digits only while it is above 1e-7 of E[x]^2.
    sound = (variance > 1e-7 * mean_squares) & in_range(squares)
    for step, tensor in np.argwhere(~sound).tolist():
        correct(statistics[step, tensor], again(step, tensor), int(count[tensor]))
    return statistics


def norms_of(squares: Floats, again: Again) -> Floats:
    """(steps, n): the L2 norms from sums of squares (steps, n); see `statistics_of` for `again`."""
    norms: Floats = np.sqrt(squares)
    for step, tensor in np.argwhere(~in_range(squares)).tolist():
        values = again(step, tensor)
        if values.any() and values.isfinite().all():
            norms[step, tensor] = exact(values)[0]
    return norms


def in_range(squares: Floats) -> Bools:
    """Where a sum of squares is finite, and large enough for float64 to have lost none of its terms."""
    return (squares > 1e-280) & (squares < 1e300)


def correct(statistics: Floats, values: Tensor, count: int) -> None:
    """Mend one row: count non-finite elements, or take norm, mean and std from two passes over scaled values.

    `count` is larger than the number of `values` for a sparse tensor, whose other elements are 0.
    """
    largest = statistics[3]
    if not np.isfinite(largest):
        statistics[5] = values.numel() - int(torch.isfinite(values).sum())
    if statistics[5]:
        return
    if count == 1 and largest > 0:
        statistics[0], statistics[2] = largest, 0.0
    elif not values.any():
        statistics[2] = 0.0
    else:
        norm, mean, std, statistics[3] = exact(values)
        share = values.numel() / count
        spread = np.hypot(std * np.sqrt(share), mean * np.sqrt(share * (1 - share)))
        statistics[:3] = norm, mean * share, spread


def exact(values: Tensor) -> tuple[float, float, float, float]:
    """norm, mean, std and max |x| of finite values, not all zero, in two passes over values scaled to at most 1."""
    wide = values.to(torch.float64)
    largest = float(wide.abs().max())
    scaled = wide / largest
    mean = scaled.mean()
    std = (scaled - mean).square().mean().sqrt()
    return float(scaled.norm()) * largest, float(mean) * largest, float(std) * largest, largest
