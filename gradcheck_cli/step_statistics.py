"""One step of a run that is still going on, for those who want to see it now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class StepStatistics:
    """One optimizer step, with the numbers that the `Recording` will have of it; `Series` says what most of them are.

    `model` is what a script calls its model, "" without a script. `loss` is None where it is not known, `loss_scale`
    without a GradScaler. `lr` has one value for each parameter group.
    `layers` has, for each module with parameters of its own, what was measured of it in this step, all joined over
    these parameters: `grad_norm`, `grad_rms` and `grad_max` of the gradient before clipping (L2 norm, root mean square,
    largest magnitude), `zero_fraction` of it, `parameter_norm`; on probed steps `update_ratio` (norm of the update over
    norm of the parameters), `output_rms` and `output_grad_rms`. What was not measured is left out.
    """

    model: str
    step: int
    loss: float | None
    grad_norm: float
    grad_norm_clipped: float
    lr: tuple[float, ...]
    loss_scale: float | None
    skipped: bool
    layers: Mapping[str, Mapping[str, float]]
