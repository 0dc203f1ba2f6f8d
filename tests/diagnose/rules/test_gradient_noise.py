from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradcheck_cli.diagnose.rules import gradient_noise
from gradcheck_cli.records import Floats, Recording, Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording
from tests.diagnose.signals import with_signals

RULE = gradient_noise.check
NAMES = {"a.weight": (8, 8), "b.weight": (8, 8)}


def recorded(agreement: Any, second: Any = None, **recording: Any) -> Recording:
    """Gradients of steps in a row with this ratio of dot to square, of the second parameter perhaps another."""
    base = make_recording(**{"steps": 50, "parameters": NAMES, **recording})
    other = agreement if second is None else second
    return with_signals(
        base,
        gradient_dot={"a.weight": 2 * np.asarray(agreement), "b.weight": 2 * np.asarray(other)},  # type: ignore[dict-item]
        gradient_square=dict.fromkeys(NAMES, 2.0),
    )


def around(mean: float, spread: float = 0.1) -> Floats:
    """Seven values of this mean."""
    return mean * (1 + spread * np.array([-3, -2, -1, 0, 1, 2, 3]) / 3)


@pytest.mark.parametrize("agreement", [0.1, 0.5, 0.9])
def test_a_fair_batch_gets_nothing(agreement: float) -> None:
    assert silent(RULE, recorded(around(agreement)))


def test_a_gradient_that_is_mostly_noise_is_information() -> None:
    (found,) = findings(RULE, recorded(around(0.01)))
    assert found.severity is Severity.INFO
    assert found.evidence["noise_scale_batches"] == pytest.approx(99)
    assert 80 < found.evidence["noise_scale_batches_low"] < 99 < found.evidence["noise_scale_batches_high"] < 120
    assert found.evidence["noisiest_layers"]["a"] == pytest.approx(1 / 99)


def test_a_batch_without_noise_is_information() -> None:
    (found,) = findings(RULE, recorded(around(0.98, 0.005)))
    assert "batch of a tenth" in found.hint
    assert found.evidence["noise_scale_batches"] == pytest.approx(1 / 0.98 - 1)


def test_the_whole_interval_has_to_be_beyond() -> None:
    assert findings(RULE, recorded(around(0.01, 0.5)))
    assert silent(RULE, recorded(around(0.01, 9)))
    assert silent(RULE, recorded(around(0.97, 0.03)))


def test_the_whole_data_set_as_one_batch_gets_nothing() -> None:
    assert silent(RULE, recorded(around(0.999, 1e-4)))


def test_steps_that_overshoot_are_not_judged() -> None:
    (reason,) = reasons(RULE, recorded(around(-0.5)))
    assert "overshoot" in reason


def test_parameters_count_by_their_size() -> None:
    assert silent(RULE, recorded(around(0.01), around(0.5)))


def test_five_pairs_are_needed() -> None:
    four = [0.01] * 4 + [float("nan")] * 3
    assert reasons(RULE, recorded(four)) == ["4 pairs of steps in a row were measured, 5 are needed"]
    assert findings(RULE, recorded([0.01] * 5 + [float("nan")] * 2))
    assert reasons(RULE, make_recording())


@pytest.mark.parametrize("scale", [1e-3, 0.05, 0.5, 2.0, 50.0])
def test_the_noise_scale_of_simulated_gradients(scale: float) -> None:
    """g = G + noise, with tr(Sigma) / |G|^2 known: the interval holds it in about 95 of 100 runs."""
    generator = np.random.default_rng(0)
    size, hits = 2000, 0
    for _ in range(100):
        noisy = 1 + np.sqrt(scale) * generator.normal(size=(7, 2, size))
        dot, square = (noisy[:, 0] * noisy[:, 1]).sum(1), np.square(noisy).sum((1, 2)) / 2
        found = gradient_noise.interval_of(gradient_noise.ratio(dot[:, None], square[:, None]))
        hits += gradient_noise.noise(found.high) <= scale <= gradient_noise.noise(found.low)
    assert 88 <= hits <= 100
