"""From sums to statistics, in float64."""

from __future__ import annotations

from math import isfinite, sqrt

import numpy as np
import torch
from torch import Tensor

from gradcheck_cli.observe.native.library import Sums
from gradcheck_cli.records import Floats


def statistics_of(sums: Sums, values: Tensor, count: int) -> Floats:
    """(6,): norm, mean, std, max |x|, zero fraction and number of non-finite elements.

    From sums over the `values` of a tensor of `count` elements, the others of which are 0; where sums do not suffice,
    the values are looked at once more.
    """
    total, squares, largest, zeros = sums
    elements = max(count, 1)
    mean = total / elements
    variance = squares / elements - mean * mean
    row = np.array([sqrt(squares) if squares >= 0 else squares, mean, 0.0, largest, zeros / elements, 0.0])
    # In float64, E[x^2] - E[x]^2 keeps six digits only while it is above 1e-7 of E[x]^2.
    if variance > 1e-7 * mean * mean and in_range(squares):
        row[2] = sqrt(variance)
    else:
        row[2] = np.nan if not isfinite(squares) else 0.0
        correct(row, values, count)
    return row


def norm_of(squares: float, values: Tensor) -> float:
    """The L2 norm from the sum of the squares of the values."""
    if not in_range(squares) and values.any() and values.isfinite().all():
        return exact(values)[0]
    return sqrt(squares) if squares >= 0 else squares


def in_range(squares: float) -> bool:
    """Whether a sum of squares is finite, and large enough for float64 to have lost none of its terms."""
    return 1e-280 < squares < 1e300


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
