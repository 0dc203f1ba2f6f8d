"""Parameters that join the training later, as in gradual unfreezing: the gradient norm is then one of more parameters,
and says nothing of what it was before.
"""

from __future__ import annotations

import numpy as np

from gradcheck_cli.records import Ints, Recording

MOSTLY = 0.9
"""Who joins has a gradient in this share of the steps from there on; an expert that is rarely chosen has not."""


def find_joins(recording: Recording) -> Ints:
    """The steps (n,) from which on some parameters train that had no gradient before, ascending; never the first."""
    there, steps = recording.statistics.has_gradient, recording.statistics.steps
    if not there.size:
        return np.zeros(0, dtype=np.int64)
    first = there.argmax(axis=0)
    share = there.sum(axis=0) / (len(there) - first)
    joining = first[(first > 0) & (share >= MOSTLY)]
    return np.unique(steps[joining - 1] + 1)  # steps in between were thinned away


def split_at_joins(recording: Recording, steps: Ints) -> list[Ints]:
    """The given steps, ascending, in stretches in which the same parameters train; none is empty."""
    return [part for part in np.split(steps, np.searchsorted(steps, find_joins(recording))) if len(part)]
