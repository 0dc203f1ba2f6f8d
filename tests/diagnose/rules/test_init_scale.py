from __future__ import annotations

from typing import Any

import pytest

from gradcheck_cli.diagnose.rules import init_scale
from gradcheck_cli.records import Recording, Severity
from gradcheck_cli.signals import Site
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording
from tests.diagnose.signals import with_signals

RULE = init_scale.check
DEPTH, WIDTH = 6, 128
RELUS: dict[Site, dict[str, Any]] = {Site("", "relu", call): {} for call in range(DEPTH)}
TANHS: dict[Site, dict[str, Any]] = {Site("", "tanh", call): {} for call in range(DEPTH)}
FLAT = [2.3] * 30


def make(
    *,
    std: float,
    decades: float,
    gain: float | None = None,
    depth: int = DEPTH,
    kind: str = "Linear",
    activations: Any = None,
    blocks: Any = None,
    modules: dict[str, str] | None = None,
    **run: Any,
) -> Recording:
    """Layers fc1, fc2 ... of WIDTH units with weights of this std, through which the gradient loses so many decades.

    The gain is what the std makes, unless it is given.
    """
    layers = [f"fc{number}" for number in range(1, depth + 1)]
    per_layer = decades / (depth - 1)
    gain = std * WIDTH**0.5 if gain is None else gain
    recording = make_recording(
        parameters={f"{layer}.weight": (WIDTH, WIDTH) for layer in layers},
        modules=dict.fromkeys(layers, kind) | (modules or {}),
        output_rms=dict.fromkeys(layers, gain),
        output_grad_rms={layer: 10 ** (-2 + (place - depth) * per_layer) for place, layer in enumerate(layers)},
        loss=run.pop("loss", FLAT),
        **run,
    )
    weights = {f"{layer}.weight": (std, WIDTH, WIDTH) for layer in layers}
    return with_signals(recording, weights=weights, activations=activations or RELUS, blocks=blocks)


def test_small_weights_explain_a_vanishing_gradient() -> None:
    (found,) = findings(RULE, make(std=0.01, decades=5.5))
    assert (found.severity, found.layer) == (Severity.ERROR, "fc*")
    assert "fc1.weight begins with std 0.01, He would be 0.12" in found.message
    assert "shrinks toward the input" in found.message
    assert 'nn.init.kaiming_normal_(m.weight, nonlinearity="relu")' in found.hint
    assert found.evidence["parameters"] == [f"fc{number}.weight" for number in range(1, 7)]
    assert found.evidence["explained_decades"] == pytest.approx(5 * 1.097, abs=0.01)


def test_large_weights_explain_an_exploding_gradient() -> None:
    (found,) = findings(RULE, make(std=0.5, decades=-3.1))
    assert found.severity is Severity.ERROR
    assert "grows toward the input" in found.message
    assert "too large" in found.hint


def test_before_tanh_it_is_xavier_that_is_right_and_before_nothing_lecun() -> None:
    (found,) = findings(RULE, make(std=0.01, decades=5.0, activations=TANHS))
    assert "Xavier would be 0.088" in found.message
    assert "nn.init.xavier_normal_(m.weight)" in found.hint
    (found,) = findings(RULE, make(std=0.01, decades=5.0, activations={Site("", "softmax"): {}}))
    assert "LeCun would be 0.088" in found.message


def test_a_gelu_that_is_a_module_counts_as_relu() -> None:
    found = findings(RULE, make(std=0.01, decades=5.0, activations={Site("", "softmax"): {}}, modules={"act": "GELU"}))
    assert "He would be" in found[0].message


def test_a_normal_slope_is_silent_whatever_the_weights_are() -> None:
    assert silent(RULE, make(std=0.01, decades=2.9))
    assert silent(RULE, make(std=0.5, decades=-1.9))


def test_right_weights_are_not_the_cause() -> None:
    assert silent(RULE, make(std=0.125, decades=6.0))
    assert silent(RULE, make(std=0.125, decades=-3.0))


def test_wrong_weights_of_the_other_sense_are_not_the_cause() -> None:
    assert silent(RULE, make(std=0.5, decades=6.0))
    assert silent(RULE, make(std=0.01, decades=-3.0))


def test_they_must_make_half_of_the_slope() -> None:
    """Deep sigmoids with torch's default, 0.58 times Xavier, lose 0.9 decades a layer: 0.24 by the weights."""
    assert silent(RULE, make(std=0.051, decades=4.5, activations={Site("", "sigmoid"): {}}))
    assert findings(RULE, make(std=0.051, decades=4.5 * 0.24 / 0.9 * 1.9, depth=18, activations=TANHS)) == []
    assert findings(RULE, make(std=0.051, decades=17 * 0.45, depth=18, activations=TANHS))


def test_a_layer_that_scales_its_weights_when_it_is_called_is_judged_by_what_it_does() -> None:
    assert silent(RULE, make(std=0.01, gain=1.5, decades=6.0))
    assert silent(RULE, make(std=1.0, gain=1.4, decades=-3.0))


def test_weights_whose_mean_is_not_zero_grow_more_than_their_spread() -> None:
    (found,) = findings(RULE, make(std=0.2, gain=40.0, decades=-7.0))
    assert found.evidence["explained_decades"] < -6


def test_layers_before_a_normalisation_do_not_count() -> None:
    layers = [f"net.{index}" for index in range(12)]
    recording = make_recording(
        parameters={f"{layer}.weight": (8, 8) if index % 2 == 0 else (8,) for index, layer in enumerate(layers)},
        modules={layer: "Linear" if index % 2 == 0 else "LayerNorm" for index, layer in enumerate(layers)},
        output_rms=dict.fromkeys(layers, 0.03),
        output_grad_rms={layer: 10.0 ** (index - 12) for index, layer in enumerate(layers)},
        loss=FLAT,
    )
    weights = {f"{layer}.weight": (0.01, 8.0, 8.0) for layer in layers[::2]}
    assert silent(RULE, with_signals(recording, weights=weights))


@pytest.mark.parametrize(("share", "fires"), [(0.2, False), (1.2, True)])
def test_small_weights_in_a_block_that_passes_its_input_on_do_no_harm(share: float, fires: bool) -> None:
    blocks = {f"fc{number}": (1.0, share, 0.5) for number in range(1, 7)}
    assert bool(findings(RULE, make(std=0.01, decades=5.5, blocks=blocks))) is fires


def test_it_is_as_severe_as_the_slope() -> None:
    assert findings(RULE, make(std=0.01, decades=3.5))[0].severity is Severity.WARNING
    assert findings(RULE, make(std=0.5, decades=-2.5))[0].severity is Severity.WARNING
    falling = [2.3 - 0.05 * step for step in range(30)]
    assert findings(RULE, make(std=0.01, decades=5.5, loss=falling))[0].severity is Severity.INFO


def test_an_embedding_has_no_gain() -> None:
    assert silent(RULE, make(std=0.01, decades=5.5, kind="Embedding"))


def test_without_signals_or_an_initialisation_it_says_so() -> None:
    assert "older version" in reasons(RULE, make_recording())[0]
    assert silent(RULE, with_signals(make_recording()))  # GC101 says why there is no slope
    assert "checkpoint" in reasons(RULE, make(std=0.01, decades=5.5, checkpoint="weights.pt"))[0]
