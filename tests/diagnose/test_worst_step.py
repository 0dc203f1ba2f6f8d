"""The step whose gradient stands furthest above those before it."""

from __future__ import annotations

import math
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradcheck_cli.diagnose.worst_step import EARLIER_STEPS, LEAST_RATIO, WINDOW, find_worst_step

norms = st.lists(st.one_of(st.floats(0.1, 100), st.sampled_from([0.0, math.nan, math.inf])), max_size=40)


@given(norms)
def test_it_is_the_largest_multiple_of_the_median_before_it(values: list[float]) -> None:
    ratios = {}
    for step, norm in enumerate(values):
        earlier = [other for other in values[:step] if math.isfinite(other) and other > 0]
        if math.isfinite(norm) and norm > 0 and len(earlier) >= EARLIER_STEPS:
            ratios[step] = norm / median(earlier)
    worst = find_worst_step(values)
    highest = max(ratios.values(), default=0.0)
    if highest < LEAST_RATIO:
        assert worst is None
    else:
        assert worst is not None
        assert worst.ratio == pytest.approx(highest)
        assert ratios[worst.step] == pytest.approx(highest)
        assert worst.largest == max(v for v in values[: worst.step] if math.isfinite(v))


def test_old_norms_are_forgotten() -> None:
    values = [100.0] * 50 + [1.0] * WINDOW + [6.0]
    worst = find_worst_step(values)
    assert worst is not None
    assert (worst.step, worst.median, worst.largest) == (len(values) - 1, 1.0, 100.0)
