"""The depth slope, by hand on recordings, and its two rules."""

from __future__ import annotations

import numpy as np
import pytest

from gradcheck_cli.diagnose.diagnosis import diagnose
from gradcheck_cli.diagnose.flow import flows, loss_falls
from gradcheck_cli.records import Diagnosis, Recording, Severity
from tests.diagnose.recordings import make_recording

FLAT = [2.3] * 30


def deep(backward: float, forward: float = 0.0, layers: int = 8, **changes: object) -> Recording:
    """Like layers whose gradient falls by `backward` decades toward the input, and whose output rises by `forward`."""
    names = [f"net.{2 * i}" for i in range(layers)]
    depth = np.linspace(0, 1, layers)
    settings: dict[str, object] = {
        "parameters": {f"{name}.weight": (4, 4) for name in names},
        "output_grad_rms": {name: 10 ** (backward * (d - 1)) for name, d in zip(names, depth, strict=True)},
        "output_rms": {name: 10 ** (forward * d) for name, d in zip(names, depth, strict=True)},
        "loss": FLAT,
    }
    return make_recording(**{**settings, **changes})  # type: ignore[arg-type]


def judge(recording: Recording) -> Diagnosis:
    return diagnose(recording, select=("GC101", "GC102"))


def severities(recording: Recording) -> list[tuple[str, Severity]]:
    return [(finding.code, finding.severity) for finding in judge(recording).findings]


@pytest.mark.parametrize(("backward", "forward"), [(6.8, 0.0), (-9.5, 9.5), (0.0, 0.0), (3.2, -3.2)])
def test_slopes_are_in_decades_over_the_whole_group(backward: float, forward: float) -> None:
    (flow,) = flows(deep(backward, forward))
    assert flow.group == "net.*"
    assert flow.backward == pytest.approx(backward)
    assert flow.forward == pytest.approx(forward)
    assert (flow.layers[0], flow.layers[-1]) == ("net.0", "net.14")


@pytest.mark.parametrize(
    ("backward", "expected"),
    [
        (2.9, []),
        (3.1, [("GC101", Severity.WARNING)]),
        (4.1, [("GC101", Severity.ERROR)]),
        (-1.9, []),
        (-2.1, [("GC102", Severity.WARNING)]),
        (-3.1, [("GC102", Severity.ERROR)]),
    ],
)
def test_thresholds(backward: float, expected: list[tuple[str, Severity]]) -> None:
    assert severities(deep(backward)) == expected


def test_a_growing_forward_signal_is_an_error_by_itself() -> None:
    assert severities(deep(0.0, 3.9)) == []
    assert severities(deep(0.0, 4.1)) == [("GC102", Severity.ERROR)]


def test_a_clearly_falling_loss_makes_it_information() -> None:
    falling = 2.3 * np.exp(-np.arange(30) / 20)
    assert severities(deep(6.0, loss=falling)) == [("GC101", Severity.INFO)]
    settling = np.concatenate([[2.6, 2.4], np.full(28, 2.302)])
    assert severities(deep(6.0, loss=settling)) == [("GC101", Severity.ERROR)]
    assert not loss_falls(settling)


def test_batch_norm_explains_some_growth_but_not_any() -> None:
    norms = {f"norm{i}": "BatchNorm2d" for i in range(8)}
    assert severities(deep(-2.5, modules=norms)) == [("GC102", Severity.INFO)]
    assert severities(deep(-6.0, modules=norms)) == [("GC102", Severity.ERROR)]


@pytest.mark.parametrize(
    ("forward", "modules", "says"),
    [
        (-6.0, {}, "begin too small"),
        (0.0, {"act": "Sigmoid"}, "saturate"),
        (0.0, {"act": "ReLU"}, "through the biases"),
    ],
)
def test_the_hint_follows_the_cause(forward: float, modules: dict[str, str], says: str) -> None:
    (finding,) = judge(deep(6.0, forward, modules=modules)).findings
    assert says in finding.hint
    assert finding.evidence["depth_slope_decades"] == pytest.approx(6.0)
    assert "6.0 decades" in finding.message


def test_gradients_that_underflowed_to_zero_count_as_vanished() -> None:
    names = [f"net.{2 * i}" for i in range(8)]
    rms = {name: 0.0 if i < 4 else 1e-30 * 10**i for i, name in enumerate(names)}
    assert severities(deep(0.0, output_grad_rms=rms)) == [("GC101", Severity.ERROR)]


def test_groups_are_by_name_pattern_else_by_type() -> None:
    blocks = {f"blocks.{i}.{part}.weight": (2, 2) for i in range(4) for part in ("attention", "mlp")}
    assert {flow.group for flow in flows(make_recording(parameters=blocks))} == {"blocks.*.attention", "blocks.*.mlp"}
    named = {f"{name}.weight": (2, 2) for name in ("first", "second", "third", "last")}
    (flow,) = flows(make_recording(parameters=named))
    assert flow.group == "all Linear layers"


@pytest.mark.parametrize(
    ("recording", "reason"),
    [
        (deep(6.0, layers=3), "fewer than 4"),
        (deep(6.0, probe_steps=[0, 1]), "2 steps, 3 are needed"),
        (deep(6.0, probed=[], compiled=["net.0"], output_rms={}, output_grad_rms={}), "torch.compile"),
    ],
)
def test_what_cannot_be_judged_is_said(recording: Recording, reason: str) -> None:
    diagnosis = judge(recording)
    assert not diagnosis.findings
    assert [skipped.code for skipped in diagnosis.not_evaluated] == ["GC101", "GC102"]
    assert all(reason in skipped.reason for skipped in diagnosis.not_evaluated)
