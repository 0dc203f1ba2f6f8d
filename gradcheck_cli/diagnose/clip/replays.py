"""What other ways to clip would have done to the norms that were observed.

Open loop: had the run been clipped, its later norms would be others. A clipped gradient is shortened by
max_norm / norm. torch divides by norm + 1e-6, which is the same for norms well above 1e-6 and, unlike this, depends on
the gradient's unit. A zero gradient is never clipped.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gradcheck_cli.clip_advice import Candidate
from gradcheck_cli.diagnose.clip.adaptive import AutoClip, Threshold, ZClip, sigma_limits
from gradcheck_cli.records import Bools, Floats

FIXED = (0.5, 1.0, 5.0)
ADAGC_WARMUP = 100


def replay_all(norms: Floats, quantiles: Mapping[float, float], judged: float | None = None) -> tuple[Candidate, ...]:
    """All ways to clip the global norm, replayed on norms (n,), finite, >= 0, in order of time; () without norms.

    `quantiles` are values of max_norm by their percentile, `judged` is the user's own.
    """
    if not len(norms):
        return ()
    fixed = {f"p{percentile:g}": value for percentile, value in sorted(quantiles.items())}
    fixed |= {f"{value:.1f}": value for value in FIXED}
    if judged is not None and judged not in fixed.values():
        fixed["yours"] = judged
    thresholds: dict[str, Threshold] = {
        "ZClip": ZClip(max_norm=None),
        "ZClip, cap 1.0": ZClip(max_norm=1.0),
        "AutoClip p10": AutoClip(10),
        "AutoClip p90": AutoClip(90),
    }
    return (
        *(replay_fixed(name, max_norm, norms) for name, max_norm in fixed.items()),
        *(replay_threshold(name, threshold, norms) for name, threshold in thresholds.items()),
        replay_skipping(norms),
    )


def replay_fixed(name: str, max_norm: float, norms: Floats) -> Candidate:
    """Clip norms (n,) to the same max_norm at every step."""
    limits = np.full(len(norms), max_norm)
    return Candidate(name, max_norm, clip_rate(norms > limits), mean_shrink(norms, limits))


def replay_threshold(name: str, threshold: Threshold, norms: Floats) -> Candidate:
    """Clip norms (n,) to a max_norm that follows them. `threshold` is new, and used up."""
    limits = np.array([threshold.next(norm) for norm in norms.tolist()])
    return Candidate(
        name, None, clip_rate(norms > limits), mean_shrink(norms, limits), last_max_norm=finite(threshold.limit)
    )


def replay_skipping(norms: Floats) -> Candidate:
    """Skip the steps whose norm, of norms (n,), is beyond six sigmas of those before."""
    limits = sigma_limits(norms)
    skipped = norms > limits[:-1]
    return Candidate(
        "mean + 6 sigma",
        None,
        clip_rate(skipped),
        0.0 if skipped.any() else 1.0,
        last_max_norm=finite(limits[-1]),
        note="skips the step; by its norm only, OLMo-core judges the loss too",
    )


def replay_per_tensor(norms: Floats, parameter_norms: Floats, present: Bools) -> tuple[Candidate, ...]:
    """Ways to clip each tensor apart, on its gradient's norms (rows, tensors), finite where `present`, in time order.

    `parameter_norms` (rows, tensors) are the tensors' own. A step is clipped where at least one tensor is, and
    shortened by the joint norm after over that before. () without rows.
    """
    if not norms.size:
        return ()
    gradients = np.where(present, norms, 0.0)
    return (
        Candidate("AdaGC", None, *act(gradients, adagc_limits(gradients)), note=adagc_note(len(norms))),
        Candidate(
            "AGC",
            None,
            *act(gradients, agc_limits(parameter_norms)),
            note="per tensor, as its rows' norms are not recorded; the last layer too, which its paper leaves out",
        ),
    )


def adagc_limits(gradients: Floats, relative: float = 1.05, beta: float = 0.98, max_norm: float = 1.0) -> Floats:
    """AdaGC's max_norm for each gradient norm (rows, tensors), 0 where there is no gradient.

    In the first ADAGC_WARMUP steps all are clipped together to the global max_norm, and each tensor keeps the least
    norm that it then had. After that each is clipped to `relative` times what it keeps, which follows its clipped
    norm as a moving average with `beta`. Wang et al., "AdaGC: Improving Training Stability for Large Language Model
    Pretraining", arXiv 2502.11034v1 (2025), algorithm 1. A zero gradient counts as none: the least norm would else
    stay 0, and the tensor at rest, for good. A tensor without any in the warm-up starts with its first.
    """
    limits = np.full(gradients.shape, np.inf)
    kept = np.full(gradients.shape[1], np.inf)
    joint = joint_norms(gradients)
    for row, gradient in enumerate(gradients):
        if row < ADAGC_WARMUP:
            if joint[row] > max_norm:
                limits[row] = gradient / joint[row] * max_norm
            clipped = np.minimum(gradient, limits[row])
            kept = np.where(gradient > 0, np.minimum(kept, clipped), kept)
        else:
            limits[row] = relative * kept
            clipped = np.minimum(gradient, limits[row])
            started = np.where(np.isfinite(kept), kept, clipped)
            kept = np.where(gradient > 0, beta * started + (1 - beta) * clipped, kept)
    return limits


def adagc_note(rows: int) -> str:
    """Which part of the replay is AdaGC's warm-up."""
    if rows <= ADAGC_WARMUP:
        return f"all {rows} steps are its warm-up, which clips the global norm to 1.0"
    return f"the first {ADAGC_WARMUP} steps are its warm-up, which clips the global norm to 1.0"


def agc_limits(parameter_norms: Floats, ratio: float = 0.01, floor: float = 1e-3) -> Floats:
    """AGC's max_norm for tensors with these norms of their own (rows, tensors): ratio max(norm, floor).

    Brock, De, Smith, Simonyan, "High-Performance Large-Scale Image Recognition Without Normalization", ICML 2021,
    section 4, which takes the norms of a tensor's rows (units) instead.
    """
    return ratio * np.maximum(parameter_norms, floor)


def act(gradients: Floats, limits: Floats) -> tuple[float, float]:
    """Clip rate and mean shrink of gradients (rows, tensors) that are clipped apart to limits of that shape."""
    clipped = gradients > limits
    steps: Bools = np.logical_or.reduce(clipped, axis=1)
    before, after = joint_norms(gradients[steps]), joint_norms(np.where(clipped, limits, gradients)[steps])
    return clip_rate(steps), float(np.mean(after / before)) if steps.any() else 1.0


def joint_norms(norms: Floats) -> Floats:
    """Norms (rows,) of all tensors together, of norms (rows, tensors); scaled, so that no square overflows."""
    largest = norms.max(axis=1, initial=0)
    scale = np.where(largest > 0, largest, 1.0)
    joint: Floats = scale * np.sqrt(((norms / scale[:, None]) ** 2).sum(axis=1))
    return joint


def clip_rate(clipped: Bools) -> float:
    """Share of steps (n,) that are clipped."""
    return float(clipped.mean())


def mean_shrink(norms: Floats, limits: Floats) -> float:
    """Mean factor by which the norms (n,) above their limits (n,) are shortened, 1 where none is."""
    clipped = norms > limits
    return float(np.mean(limits[clipped] / norms[clipped])) if clipped.any() else 1.0


def finite(limit: float) -> float | None:
    """A limit, None where there is none."""
    return float(limit) if np.isfinite(limit) else None
