from __future__ import annotations

import numpy as np
import pytest

from gradcheck_cli.diagnose.rules import gradient_spike
from gradcheck_cli.records import Floats, Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording, ripple

RULE = gradient_spike.check


def noisy(steps: int, seed: int = 0) -> Floats:
    """Norms of a healthy run: log-normal around a slow decay."""
    random = np.random.default_rng(seed)
    return 3 * np.exp(-np.arange(steps) / 200) * random.lognormal(0, 0.3, steps)


@pytest.mark.parametrize("seed", range(20))
def test_the_noise_of_a_healthy_run_is_no_spike(seed: int) -> None:
    assert silent(RULE, make_recording(steps=300, grad_norm=noisy(300, seed)))


def test_a_spike_is_named_with_its_batch_and_drivers() -> None:
    norms = {"fc1.weight": 0.1 * ripple(60), "fc2.weight": 0.1 * ripple(60)}
    norms["fc2.weight"][40] = 30.0
    (found,) = findings(RULE, make_recording(steps=60, norms=norms))
    assert (found.severity, found.step, found.layer) == (Severity.WARNING, 40, None)
    assert found.evidence["batch"] == 8
    assert found.evidence["epoch"] == 2
    assert found.evidence["spikes"] == [40]
    assert found.evidence["ratio"] == pytest.approx(150, rel=0.1)
    assert found.evidence["drivers"][0]["parameter"] == "fc2.weight"
    assert found.evidence["drivers"][0]["share"] == pytest.approx(1, abs=1e-3)
    assert "step 40 (epoch 2, batch 8)" in found.message
    assert "fc2.weight (100%)" in found.message


def test_several_spikes_are_one_finding_at_the_worst() -> None:
    norms = noisy(100)
    norms[50] *= 100
    norms[80] *= 1000
    norms[81] *= 1000
    (found,) = findings(RULE, make_recording(steps=100, grad_norm=norms))
    assert found.step in (80, 81)
    assert found.evidence["spikes"] == [50, 80, 81]


def test_a_spike_is_at_least_twice_the_median() -> None:
    norms = np.ones(40)
    norms[30] = 1.99
    assert silent(RULE, make_recording(steps=40, grad_norm=norms))
    norms[30] = 2.01
    assert len(findings(RULE, make_recording(steps=40, grad_norm=norms))) == 1


def test_drivers_are_left_out_where_the_step_was_thinned_away() -> None:
    norms = noisy(60)
    norms[41] *= 200
    (found,) = findings(RULE, make_recording(steps=60, grad_norm=norms, recorded=range(0, 60, 2)))
    assert found.evidence["drivers"] == []
    assert "driven" not in found.message


def test_early_only_a_hundredfold_jump_is_seen_and_the_report_says_so() -> None:
    calm, jump = [1.0, 2.0, 1.5, 150.0, 1.0], [1.0, 2.0, 1.5, 201.0, 1.0]
    assert not findings(RULE, make_recording(steps=5, grad_norm=calm))
    assert [f.step for f in findings(RULE, make_recording(steps=5, grad_norm=jump))] == [3]
    assert "5 steps are too few" in reasons(RULE, make_recording(steps=5, grad_norm=calm))[0]
    assert reasons(RULE, make_recording(steps=21)) == []


def test_the_first_three_steps_may_rise_from_a_zero_initialisation() -> None:
    assert not findings(RULE, make_recording(steps=5, grad_norm=[1e-7, 1e-3, 1.0, 1.2, 1.1]))


def test_skipped_and_non_finite_steps_are_no_spikes() -> None:
    norms = noisy(60)
    norms[[30, 40]] = 1e6, float("inf")
    assert silent(RULE, make_recording(steps=60, grad_norm=norms, skipped=[30], uses_scaler=True))


def test_indices_are_those_of_the_run_though_steps_are_left_out() -> None:
    norms = noisy(60)
    norms[:3] = float("nan")
    norms[50] = 1e4
    (found,) = findings(RULE, make_recording(steps=60, grad_norm=norms))
    assert found.evidence["spikes"] == [50]


def test_too_few_steps_are_said() -> None:
    assert reasons(RULE, make_recording(steps=3)) == ["3 steps with a finite gradient norm, 4 are needed"]
    assert reasons(RULE, make_recording(steps=0))


def alternating(steps: int, swing: float = 0.1) -> Floats:
    """The log has median 0 and a robust sigma of 1.4826 swing."""
    return np.exp(swing * (-1.0) ** np.arange(steps))


@pytest.mark.parametrize(("sigmas", "expected"), [(5.9, []), (6.1, [40])])
def test_six_robust_sigmas_are_the_limit(sigmas: float, expected: list[int]) -> None:
    norms = alternating(41)
    norms[40] = np.exp(sigmas * 1.4826 * 0.1)
    assert [f.step for f in findings(RULE, make_recording(steps=41, grad_norm=norms))] == expected


@pytest.mark.parametrize(("step", "expected"), [(19, []), (20, [20])])
def test_twenty_earlier_steps_are_needed(step: int, expected: list[int]) -> None:
    norms = alternating(22)
    norms[step] = 50.0
    assert [f.step for f in findings(RULE, make_recording(steps=22, grad_norm=norms))] == expected


def test_noise_of_long_ago_is_forgotten() -> None:
    norms = np.concatenate([alternating(200, swing=2.0), alternating(130), [5.0]])
    assert [f.step for f in findings(RULE, make_recording(steps=331, grad_norm=norms))] == [330]


def test_the_five_largest_shares_are_named() -> None:
    parameters = {f"layers.{i}.weight": (4, 4) for i in range(7)}
    norms = {name: (i + 1) * ripple(60) for i, name in enumerate(parameters)}
    for values in norms.values():
        values[40] *= 1000
    (found,) = findings(RULE, make_recording(steps=60, parameters=parameters, norms=norms))
    assert [driver["parameter"] for driver in found.evidence["drivers"]] == [
        f"layers.{i}.weight" for i in range(6, 1, -1)
    ]
    assert found.evidence["drivers"][0]["share"] == pytest.approx(49 / 140)


@pytest.mark.parametrize(("last", "expected"), [(3.4, 0), (9.0, 1)])
def test_a_small_last_batch_may_be_as_noisy_as_it_is_small(last: float, expected: int) -> None:
    examples, norms = np.full(116, 64), ripple(116)
    examples[28::29] = 5  # 1797 examples in batches of 64
    norms[28::29] *= last
    recording = make_recording(steps=116, grad_norm=norms, examples=examples)
    assert len(findings(RULE, recording)) == expected
    assert findings(RULE, make_recording(steps=116, grad_norm=norms))  # of batches that are not known


def test_a_large_batch_excuses_nothing() -> None:
    examples, norms = np.full(60, 64), ripple(60)
    examples[40], norms[40] = 640, 4.0
    assert findings(RULE, make_recording(steps=60, grad_norm=norms, examples=examples))
