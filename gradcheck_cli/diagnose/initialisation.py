"""Whether the first recorded step is that of weights as they were initialised."""

from __future__ import annotations

import numpy as np

from gradcheck_cli.records import Recording

OFF = 0.05
"""Scales of normalisations begin at 1, or at 0 where 1 is added; those of published transformers are further off."""


def starts_untrained(recording: Recording) -> bool:
    """Whether the run was probed from its first step on, and begins with weights that were not trained before.

    Trained ones come with --checkpoint, or the user's code loads them: then the scales of most normalisations, which
    every library initialises with 1 or 0, have another RMS.
    """
    if recording.run.checkpoint or not len(recording.probes.steps) or recording.probes.steps[0] != 0:
        return False
    scales = norm_scales(recording)
    off = [min(scale, abs(scale - 1)) > OFF for scale in scales]
    return not sum(off) * 2 > len(off)


def norm_scales(recording: Recording) -> list[float]:
    """RMS of the weight of each normalisation on the first recorded step."""
    types = {module.name: module.type for module in recording.modules}
    columns = [
        (column, parameter)
        for column, parameter in enumerate(recording.parameters)
        if "Norm" in types.get(parameter.module, "") and parameter.name.endswith("weight") and parameter.numel
    ]
    norms = recording.statistics.parameter_norm[:1]
    rms = [float(norm) / parameter.numel**0.5 for column, parameter in columns for norm in norms[:, column]]
    return [scale for scale in rms if np.isfinite(scale)]
