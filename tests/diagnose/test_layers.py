"""Layer summaries against the definitions, computed another way."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from gradcheck_cli.diagnose import layers
from gradcheck_cli.records import Finding, LayerSummary, Recording, Severity
from tests.diagnose.recordings import make_recording


def summarise(recording: Recording, findings: Sequence[Finding] = ()) -> tuple[LayerSummary, ...]:
    """The summaries, made without a single warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return layers.summarise(recording, findings)


def summary(recording: Recording, name: str, *findings: Finding) -> LayerSummary:
    return next(layer for layer in summarise(recording, findings) if layer.name == name)


def finding(layer: str | None, severity: Severity = Severity.WARNING, code: str = "GC101") -> Finding:
    return Finding(code, "some-rule", severity, "message", "hint", layer=layer)


def test_gradient_statistics_are_medians_of_the_joint_ones() -> None:
    recording = make_recording(
        steps=3,
        parameters={"fc.weight": (3, 4), "fc.bias": (3,)},
        norms={"fc.weight": [3.0, 6.0, 30.0], "fc.bias": [4.0, 8.0, 40.0]},
        parameter_norm={"fc.weight": 5.0, "fc.bias": 12.0},
    )
    layer = summary(recording, "fc")
    assert layer.grad_rms == pytest.approx(10 / math.sqrt(15))
    assert layer.grad_to_parameter == pytest.approx(10 / 13)
    assert layer.parameters == ("fc.weight", "fc.bias")
    assert layer.numel == 15
    assert layer.type == "Linear"


def test_a_parameter_counts_only_on_steps_where_it_had_a_gradient() -> None:
    recording = make_recording(
        steps=3,
        parameters={"fc.weight": (4, 4), "fc.bias": (4,)},
        norms={"fc.weight": 8.0, "fc.bias": [None, None, 1.0]},
        parameter_norm={"fc.weight": 2.0, "fc.bias": 50.0},
    )
    layer = summary(recording, "fc")
    assert layer.grad_rms == pytest.approx(2.0)
    assert layer.grad_to_parameter == pytest.approx(4.0)


def test_update_ratio_weighs_parameters_by_their_norms() -> None:
    recording = make_recording(
        steps=2,
        parameters={"fc.weight": (2, 2), "fc.bias": (2,)},
        parameter_norm={"fc.weight": 3.0, "fc.bias": 4.0},
        update_ratio={"fc.weight": 0.1, "fc.bias": 0.2},
    )
    assert summary(recording, "fc").update_ratio == pytest.approx(math.hypot(0.3, 0.8) / 5)


def test_update_ratio_uses_the_parameter_norm_of_the_probed_step() -> None:
    recording = make_recording(
        steps=5,
        parameters={"fc.weight": (2, 2), "fc.bias": (2,)},
        recorded=[0, 2, 4],
        probe_steps=[2],
        parameter_norm={"fc.weight": [9, 9, 1, 9, 9], "fc.bias": [9, 9, 0, 9, 9]},
        update_ratio={"fc.weight": 0.1, "fc.bias": 0.7},
    )
    assert summary(recording, "fc").update_ratio == pytest.approx(0.1)


def test_zero_fraction_weighs_parameters_by_their_elements() -> None:
    recording = make_recording(
        steps=2, parameters={"fc.weight": (3, 3), "fc.bias": (3,)}, norms={"fc.weight": 0.0, "fc.bias": 1.0}
    )
    assert summary(recording, "fc").zero_fraction == pytest.approx(9 / 12)


def test_outputs_are_medians_over_probed_steps_that_have_them() -> None:
    recording = make_recording(
        steps=3, output_rms={"fc1": [1.0, None, 3.0]}, output_grad_rms={"fc1": [None, None, 7.0], "fc2": None}
    )
    first, second = summarise(recording)
    assert first.output_rms == 2.0
    assert first.output_grad_rms == 7.0
    assert math.isnan(second.output_grad_rms)


def test_extreme_norms_neither_overflow_nor_vanish() -> None:
    norms = {"big.weight": 3e200, "big.bias": 4e200, "small.weight": 3e-200, "small.bias": 4e-200}
    with np.errstate(over="ignore"):  # of the global norm, which the builder squares
        recording = make_recording(steps=1, parameters=dict.fromkeys(norms, (1,)), norms=norms)
    assert summary(recording, "big").grad_rms == pytest.approx(5e200 / math.sqrt(2))
    assert summary(recording, "small").grad_rms == pytest.approx(5e-200 / math.sqrt(2), abs=0)


def test_steps_with_nan_are_left_out_of_the_median() -> None:
    recording = make_recording(steps=3, parameters={"fc.weight": (4,)}, norms={"fc.weight": [2.0, float("nan"), 6.0]})
    assert summary(recording, "fc").grad_rms == pytest.approx(2.0)


def test_infinite_gradients_stay_infinite() -> None:
    recording = make_recording(steps=3, parameters={"fc.weight": (4,)}, norms={"fc.weight": math.inf})
    assert summary(recording, "fc").grad_rms == math.inf


def test_a_zero_parameter_has_no_ratio() -> None:
    recording = make_recording(steps=1, parameters={"fc.weight": (4,)}, parameter_norm={"fc.weight": 0.0})
    layer = summary(recording, "fc")
    assert math.isnan(layer.grad_to_parameter)
    assert math.isnan(layer.update_ratio)


def test_layers_come_in_execution_order() -> None:
    recording = make_recording(
        parameters={f"{name}.weight": (2, 2) for name in ("head", "a", "b", "c")}, probed=["a", "b", "c", "head"]
    )
    assert [layer.name for layer in summarise(recording)] == ["a", "b", "c", "head"]


def test_an_unprobed_layer_follows_the_one_registered_before_it() -> None:
    recording = make_recording(
        parameters={f"{name}.weight": (2, 2) for name in ("early", "a", "idle", "b")} | {"token": (4,)},
        probed=["b", "a"],
    )
    assert [layer.name for layer in summarise(recording)] == ["", "early", "b", "a", "idle"]


@pytest.mark.parametrize(
    "named",
    [
        "blocks.10.fc",
        "blocks",
        "blocks.10",
        "blocks.10.fc.bias",
        "blocks.*.fc",
        "blocks.*",
        "blocks.*.fc.weight",
        "*.10.fc",
    ],
)
def test_who_is_named(named: str) -> None:
    recording = make_recording(
        parameters={"blocks.10.fc.weight": (2, 2), "blocks.10.fc.bias": (2,), "10.10.fc.w": (2,)}
    )
    marked = [layer.name for layer in summarise(recording, [finding(named)]) if layer.status == "warning"]
    assert marked == (["10.10.fc"] if named == "*.10.fc" else ["blocks.10.fc"])


@pytest.mark.parametrize(
    "named", [None, "", "block", "blocks.1", "fc", "blocks.*.fc2", "blocks.1*.f", "blocks..*", "(", "b.*"]
)
def test_who_is_not_named(named: str | None) -> None:
    recording = make_recording(parameters={"blocks.10.fc.weight": (2, 2)})
    assert summary(recording, "blocks.10.fc", finding(named)).status == "ok"


def test_the_root_is_named_by_the_empty_string_alone() -> None:
    recording = make_recording(parameters={"token": (2, 2), "fc.weight": (2, 2)})
    statuses = {layer.name: layer.status for layer in summarise(recording, [finding("")])}
    assert statuses == {"": "warning", "fc": "ok"}


def test_a_tied_parameter_is_named_by_its_alias() -> None:
    recording = make_recording(parameters={"embed.weight": (2, 2)})
    tied = replace(recording, parameters=(replace(recording.parameters[0], aliases=("head.weight",)),))
    assert summary(tied, "embed", finding("head.weight")).status == "warning"


def test_status_is_the_worst_severity_and_codes_are_all() -> None:
    findings = [
        finding("fc1", Severity.INFO, "GC107"),
        finding("fc1", Severity.ERROR, "GC103"),
        finding("fc1.weight", Severity.WARNING, "GC306"),
        finding("fc1.bias", Severity.WARNING, "GC306"),
    ]
    layer = summary(make_recording(), "fc1", *findings)
    assert layer.status == "error"
    assert layer.codes == ("GC103", "GC107", "GC306")


def test_status_without_findings() -> None:
    recording = make_recording(
        parameters={"ok.weight": (2,), "cold.weight": (2,), "cut.weight": (2,), "half.weight": (2,), "half.bias": (2,)},
        frozen=["cold.weight", "half.weight"],
        norms={"cut.weight": None},
    )
    statuses = {layer.name: layer.status for layer in summarise(recording)}
    assert statuses == {"ok": "ok", "cold": "frozen", "cut": "no gradient", "half": "ok"}


def test_layers_without_a_gradient_have_nan() -> None:
    layer = summary(make_recording(norms={"fc1.weight": None, "fc1.bias": None}), "fc1")
    assert all(math.isnan(value) for value in (layer.grad_rms, layer.grad_to_parameter, layer.zero_fraction))


def test_nothing_recorded() -> None:
    recording = make_recording(steps=0, probe_steps=[])
    for layer in summarise(recording):
        assert layer.status == "not recorded"
        assert np.isnan([layer.grad_rms, layer.update_ratio, layer.output_rms, layer.zero_fraction]).all()
