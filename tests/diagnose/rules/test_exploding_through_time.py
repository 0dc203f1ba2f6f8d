from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from gradcheck_cli.diagnose.rules import exploding_through_time
from gradcheck_cli.records import Floats, Recording, Severity
from gradcheck_cli.signals import RecurrentMatrix, Site
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording, ripple
from tests.diagnose.signals import with_signals

RULE = exploding_through_time.check
RNN = Site("rnn", "rnn")
PARAMETERS = {"rnn.weight_hh_l0": (8, 8), "head.weight": (3, 8)}


def recorded(rms: Sequence[float] | Floats, site: Site = RNN, **recording: object) -> Recording:
    """A recording with this gradient at the time steps, the first first."""
    base = make_recording(**{"steps": 50, "parameters": PARAMETERS, "loss": [2.3] * 50, **recording})  # type: ignore[arg-type]
    matrix = RecurrentMatrix("rnn.weight_hh_l0", "", "tanh", 3.0, 5.5)
    return with_signals(base, recurrence={site: list(rms)}, recurrent=[matrix])


def geometric(decades: float, length: int = 40) -> Floats:
    """Growing by so many decades from the last time step to the first, unevenly."""
    return np.geomspace(10.0**decades, 1, length) * ripple(length) * 1e-4


def test_even_gradients_get_nothing() -> None:
    assert silent(RULE, recorded(geometric(0)))


@pytest.mark.parametrize(
    ("decades", "severity"), [(0.75, Severity.WARNING), (1.1, Severity.ERROR), (9, Severity.ERROR)]
)
def test_growth_toward_the_first_step_is_found(decades: float, severity: Severity) -> None:
    (found,) = findings(RULE, recorded(geometric(decades)))
    assert found.severity is severity
    assert found.layer == "rnn"
    assert found.evidence["growth_decades"] == pytest.approx(decades, abs=0.1)
    assert found.evidence["spectral_radius"] == {"rnn.weight_hh_l0": 3.0}
    assert "40 time steps" in found.message


def test_a_little_growth_is_bearable_while_the_loss_falls() -> None:
    falling = np.linspace(2.3, 1.0, 50)
    (found,) = findings(RULE, recorded(geometric(1.5), loss=falling))
    assert found.severity is Severity.INFO
    (found,) = findings(RULE, recorded(geometric(2.5), loss=falling))
    assert found.severity is Severity.ERROR


def test_the_limits() -> None:
    exact = np.geomspace(1, 1e-9, 40)
    assert silent(RULE, recorded(exact ** (0.69 / 9)))
    assert findings(RULE, recorded(exact ** (0.71 / 9)))[0].severity is Severity.WARNING
    assert findings(RULE, recorded(exact ** (0.99 / 9)))[0].severity is Severity.WARNING
    assert findings(RULE, recorded(exact ** (1.01 / 9)))[0].severity is Severity.ERROR


@pytest.mark.parametrize("length", [8, 48, 200])
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_more_terms_of_a_loss_on_every_step_are_no_explosion(power: float, length: int) -> None:
    """A network that forgets nothing adds up as many as there are steps to come: two decades for 100."""
    assert silent(RULE, recorded(np.arange(length, 0, -1) ** power))


def test_the_size_of_the_gradients_does_not_count() -> None:
    for scale in (1e-20, 1e20):
        assert silent(RULE, recorded(scale * geometric(0)))
        assert findings(RULE, recorded(scale * geometric(2)))


def test_a_gradient_that_fades_is_information() -> None:
    (found,) = findings(RULE, recorded(np.geomspace(1e-12, 1, 121)))
    assert found.severity is Severity.INFO
    assert found.evidence["slope_decades"] == pytest.approx(-12)
    assert found.evidence["faded_after_steps"] == pytest.approx(20, abs=1)
    assert silent(RULE, recorded(np.geomspace(1e-3, 1, 121)))


def test_a_gradient_that_fades_to_zero_is_information() -> None:
    (found,) = findings(RULE, recorded([0.0] * 300 + list(np.geomspace(1e-44, 1, 45))))
    assert found.severity is Severity.INFO
    assert found.evidence["slope_decades"] == pytest.approx(-44)
    assert found.evidence["faded_after_steps"] == pytest.approx(2, abs=1)


def test_padding_at_the_start_is_not_fading() -> None:
    assert silent(RULE, recorded([0.0] * 30 + list(geometric(0))))


def test_steps_after_the_last_that_the_loss_sees_do_not_count() -> None:
    assert silent(RULE, recorded([*geometric(0), *[0.0] * 20]))
    assert findings(RULE, recorded([*geometric(3), *[0.0] * 20]))


def test_cells_are_judged_by_their_hidden_states() -> None:
    (found,) = findings(RULE, recorded(geometric(3), Site("decoder.cell", "cell")))
    assert "dL/dh_t" in found.message
    assert found.layer == "decoder.cell"


def test_networks_that_read_both_ways_are_not_judged() -> None:
    base = make_recording(parameters={**PARAMETERS, "rnn.weight_hh_l0_reverse": (8, 8)})
    (reason,) = reasons(RULE, with_signals(base, recurrence={RNN: list(geometric(5))}))
    assert "one way" in reason


@pytest.mark.parametrize("rms", [[], [1.0] * 5, [float("nan")] * 20, [float("inf")] * 20, [0.0] * 20])
def test_what_cannot_be_judged(rms: list[float]) -> None:
    assert reasons(RULE, recorded(rms))
    assert not findings(RULE, recorded(rms))


def test_recordings_without_recurrence() -> None:
    assert reasons(RULE, make_recording())
    assert silent(RULE, with_signals(make_recording()))


def test_three_probed_steps_are_needed() -> None:
    assert reasons(RULE, recorded(geometric(5), probe_steps=[0, 1]))
    assert findings(RULE, recorded(geometric(5), probe_steps=[0, 1, 2]))
