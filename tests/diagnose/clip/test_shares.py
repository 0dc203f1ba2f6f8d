from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli.clip_advice import ClipLayer, Interval
from gradcheck_cli.diagnose.clip.shares import dominant_layer, looseness, share_by_group, share_by_layer
from gradcheck_cli.records import Floats, Recording
from tests.diagnose.recordings import make_recording

FOUR = {"a.weight": (2, 2), "a.bias": (2,), "b.weight": (3, 2), "c.weight": (1, 3)}
GROUPS = {"a.weight": 0, "a.bias": 0, "b.weight": 1, "c.weight": None}


def recording_of(norms: Mapping[str, Any], steps: int = 4, **more: Any) -> Recording:
    """Gradient norms by parameter; those left out have no gradient."""
    everything: dict[str, Any] = {**dict.fromkeys(FOUR), **norms}
    return make_recording(steps=steps, parameters=FOUR, norms=everything, **more)


def grouped(recording: Recording, groups: Mapping[str, int | None] = GROUPS) -> Recording:
    parameters = tuple(replace(parameter, group=groups[parameter.name]) for parameter in recording.parameters)
    return replace(recording, parameters=parameters)


def largest(norms: Floats) -> tuple[float, Interval | None]:
    """Stands for a percentile."""
    return float(norms.max()), Interval(float(norms.min()), float(norms.max()))


def layers_of(recording: Recording, max_norm: float = math.inf) -> dict[str, ClipLayer]:
    return {layer.name: layer for layer in share_by_layer(recording, np.arange(recording.steps), max_norm)}


def test_a_layers_share_is_that_of_its_parameters_squares() -> None:
    layers = share_by_layer(recording_of({"a.weight": 3.0, "a.bias": 4.0, "b.weight": 5.0}), np.arange(4), math.inf)
    assert [(layer.name, layer.share) for layer in layers] == [("a", pytest.approx(0.5)), ("b", pytest.approx(0.5))]
    assert all(math.isnan(layer.share_clipped) for layer in layers), "nothing exceeds the max_norm"


def test_layers_are_sorted_by_share() -> None:
    layers = share_by_layer(recording_of({"a.bias": 1.0, "b.weight": 3.0, "c.weight": 2.0}), np.arange(4), math.inf)
    assert [layer.name for layer in layers] == ["b", "c", "a"]


def test_shares_are_medians_over_all_and_over_the_clipped_steps() -> None:
    recording = recording_of(
        {"a.weight": [3.0, 3.0, 3.0, 40.0, 30.0], "b.weight": [4.0, 4.0, 4.0, 30.0, 40.0]}, steps=5
    )
    layers = layers_of(recording, max_norm=10)
    assert (layers["a"].share, layers["a"].share_clipped) == (pytest.approx(0.36), pytest.approx(0.5))
    assert (layers["b"].share, layers["b"].share_clipped) == (pytest.approx(0.64), pytest.approx(0.5))


def test_only_kept_steps_count() -> None:
    recording = recording_of({"a.weight": [100.0, 1.0, 1.0, 100.0], "b.weight": 1.0})
    (first, second) = share_by_layer(recording, np.array([1, 2]), math.inf)
    assert (first.share, second.share) == (pytest.approx(0.5), pytest.approx(0.5))


def test_only_recorded_rows_count_and_each_is_compared_with_its_own_steps_norm() -> None:
    norms = {"a.weight": [1.0, 1.0, 1.0, 9.0, 1.0, 1.0], "b.weight": [1.0, 1.0, 1.0, 3.0, 1.0, 1.0]}
    layers = layers_of(recording_of(norms, steps=6, recorded=[1, 3, 5]), max_norm=5)
    assert layers["a"].share_clipped == pytest.approx(0.9)
    assert layers["a"].share == pytest.approx(0.5)


def test_a_gradient_that_is_missing_at_times_is_zero_then() -> None:
    layers = layers_of(recording_of({"a.weight": [3.0, 3.0, 3.0, None], "b.weight": [None, None, 4.0, 4.0]}))
    assert layers["a"].share == pytest.approx((1 + 0.36) / 2)
    assert layers["b"].share == pytest.approx(0.64 / 2)


def test_parameters_in_no_optimizer_count_too() -> None:
    layers = layers_of(recording_of({"a.weight": 1.0, "b.weight": 1.0}, not_optimized=["b.weight"]))
    assert layers["b"].share == pytest.approx(0.5)


def test_steps_without_any_gradient_are_left_out() -> None:
    layers = layers_of(recording_of({"a.weight": [0.0, 3.0, 0.0, 0.0], "b.weight": [0.0, 4.0, None, 0.0]}))
    assert layers["a"].share == pytest.approx(0.36)


@pytest.mark.parametrize("kept", [[], [0, 1]])
def test_without_rows_there_is_nothing_to_share(kept: list[int]) -> None:
    recording = grouped(recording_of({"a.weight": 1.0}, recorded=[2, 3]))
    assert share_by_layer(recording, np.array(kept, dtype=np.int64), 1.0) == ()
    assert share_by_group(recording, np.array(kept, dtype=np.int64), largest, 1.0) == ()


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(0, 1e3), min_size=4, max_size=4), min_size=1, max_size=9))
def test_shares_of_one_step_add_up_to_one(rows: list[list[float]]) -> None:
    table = np.array(rows)
    recording = recording_of({name: table[:, i] for i, name in enumerate(FOUR)}, steps=len(rows))
    for step, row in enumerate(table):
        layers = share_by_layer(recording, np.array([step]), math.inf)
        assert sum(layer.share for layer in layers) == (pytest.approx(1) if row.any() else 0)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
def test_neither_huge_nor_tiny_norms_overflow(scale: float) -> None:
    norms = {"a.weight": 3.0 * scale, "a.bias": 4.0 * scale, "b.weight": 5.0 * scale}
    recording = grouped(recording_of(norms, grad_norm=math.sqrt(50) * scale))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layers = layers_of(recording, max_norm=scale)
        groups = share_by_group(recording, np.arange(4), largest, scale)
    assert (layers["a"].share, layers["a"].share_clipped) == (pytest.approx(0.5), pytest.approx(0.5))
    assert [group.max_norm for group in groups] == [pytest.approx(5 * scale), pytest.approx(5 * scale)]


def test_a_group_has_its_own_max_norm_and_share() -> None:
    norms = {"a.weight": [3.0, 6.0, 3.0, 3.0], "a.bias": [4.0, 8.0, 4.0, 4.0], "b.weight": 5.0, "c.weight": 0.0}
    first, second = share_by_group(grouped(recording_of(norms)), np.arange(4), largest, 10.0)
    assert (first.index, first.parameters, first.numel) == (0, 2, 6)
    assert (second.index, second.parameters, second.numel) == (1, 1, 6)
    assert (first.max_norm, first.interval) == (pytest.approx(10), (pytest.approx(5), pytest.approx(10)))
    assert (second.max_norm, second.interval) == (pytest.approx(5), (pytest.approx(5), pytest.approx(5)))
    assert (first.share, first.share_clipped) == (pytest.approx(0.5), pytest.approx(0.8))
    assert (second.share, second.share_clipped) == (pytest.approx(0.5), pytest.approx(0.2))


def test_what_is_in_no_group_is_part_of_the_global_norm() -> None:
    groups = share_by_group(grouped(recording_of({"a.weight": 3.0, "c.weight": 4.0})), np.arange(4), largest, 1.0)
    assert [(group.index, group.share) for group in groups] == [(0, pytest.approx(0.36))]


def test_a_group_is_judged_on_the_steps_on_which_it_has_a_gradient() -> None:
    norms = {"a.weight": [1.0, None, 2.0, None], "b.weight": [None, 3.0, None, 4.0]}
    seen: list[list[float]] = []

    def keep(norms: Floats) -> tuple[float, None]:
        seen.append(norms.tolist())
        return 1.0, None

    share_by_group(grouped(recording_of(norms)), np.arange(4), keep, 1.0)
    assert seen == [[1.0, 2.0], [3.0, 4.0]]


def test_without_groups_there_are_none() -> None:
    assert share_by_group(recording_of({"a.weight": 1.0}), np.arange(4), largest, 1.0) == ()


def test_looseness_is_the_root_of_the_number_of_groups() -> None:
    recording = recording_of({"a.weight": 1.0, "b.weight": 1.0, "c.weight": 1.0})
    one, two = dict.fromkeys(FOUR, 0), {**dict.fromkeys(FOUR, 0), "b.weight": 1}
    counts = {
        k: share_by_group(grouped(recording, groups), np.arange(4), largest, 1.0) for k, groups in ((1, one), (2, two))
    }
    assert looseness(counts[1]) is None
    assert looseness(counts[2]) == pytest.approx(math.sqrt(2))
    assert looseness(()) is None


def layers_with(*shares: float) -> tuple[ClipLayer, ...]:
    return tuple(ClipLayer(f"layer{index}", share, math.nan) for index, share in enumerate(shares))


def test_a_layer_that_is_nearly_all_of_the_norm_dominates() -> None:
    assert dominant_layer(layers_with(0.98, 0.01, 0.005, 0.005)) == "layer0"


@pytest.mark.parametrize(
    "shares",
    [(0.85, 0.05, 0.05, 0.05), (0.25, 0.25, 0.25, 0.25), (0.99, 0.01), (0.98, 0.01, 0.01), (1.0,), ()],
)
def test_a_healthy_models_last_layer_or_a_small_model_does_not_count_as_dominated(shares: tuple[float, ...]) -> None:
    assert dominant_layer(layers_with(*shares)) is None
