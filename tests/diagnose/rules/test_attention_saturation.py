"""When attention counts as saturated."""

from __future__ import annotations

from typing import Any

import pytest

from gradcheck_cli.diagnose.rules import attention_saturation
from gradcheck_cli.records import Recording, Severity
from gradcheck_cli.signals import Site
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording
from tests.diagnose.signals import with_signals

RULE = attention_saturation.check
LAYERS = [f"blocks.{i}.attention" for i in range(4)]
PROBES = [0, 1, 2, 10, 20]
NORM = {"parameters": {"norm.weight": (16,), "fc.weight": (4, 16)}, "modules": {"norm": "LayerNorm"}}


def attend(std: Any = 0.8, entropy: Any = 0.9, kind: str = "sdpa", **changes: Any) -> Recording:
    """Four like places; the values are one number or one for each of PROBES."""
    sites = {Site(layer, kind): (std, entropy) for layer in LAYERS}
    return with_signals(make_recording(probe_steps=PROBES, **changes), attention=sites)


def severities(recording: Recording) -> list[Severity]:
    return [finding.severity for finding in findings(RULE, recording)]


@pytest.mark.parametrize(
    ("std", "entropy", "expected"),
    [
        (2.9, 0.51, []),
        (3.1, 0.55, [Severity.WARNING]),
        (2.0, 0.49, [Severity.WARNING]),
        (9.9, 0.21, [Severity.WARNING]),
        (10.1, 0.21, [Severity.ERROR]),
        (1.2, 0.19, [Severity.ERROR]),
    ],
)
def test_thresholds_at_first(std: float, entropy: float, expected: list[Severity]) -> None:
    assert severities(attend(std, entropy)) == expected


def test_like_places_are_one_finding() -> None:
    recording = with_signals(
        make_recording(),
        attention={Site(layer, "sdpa"): (4.0 + i, 0.4 - 0.01 * i) for i, layer in enumerate(LAYERS)},
    )
    (finding,) = findings(RULE, recording)
    assert finding.layer == "blocks.*.attention"
    assert finding.step == 0
    assert finding.evidence["modules"] == LAYERS
    assert (finding.evidence["logit_std"], finding.evidence["entropy"]) == (7.0, pytest.approx(0.37))
    assert "sqrt" in finding.hint or "square root" in finding.hint


def test_only_the_sharp_places_are_named() -> None:
    sites = {Site("encoder.attention", "mha"): (0.5, 0.97), Site("decoder.attention", "mha"): (12.0, 0.1)}
    (finding,) = findings(RULE, with_signals(make_recording(), attention=sites))
    assert finding.layer == "decoder.attention"


def test_a_bias_on_the_logits_is_not_sharpness() -> None:
    """ALiBi at 1024 keys, as measured; where the bias is known the spread is that of the products."""
    assert silent(RULE, attend(18.65, 0.61, kind="softmax"))
    assert severities(attend(18.65, 0.61, kind="sdpa")) == [Severity.ERROR]
    assert silent(RULE, attend(57.35, 0.43, kind="softmax"))
    assert severities(attend(20.09, 0.25, kind="softmax")) == [Severity.ERROR]
    assert severities(attend(4.0, 0.33, kind="softmax")) == [Severity.WARNING]


@pytest.mark.parametrize(
    ("last", "entropy", "expected"),
    [(3.3, 0.32, []), (10.1, 0.19, [Severity.WARNING]), (10.1, 0.25, []), (9.9, 0.1, [])],
)
def test_logits_that_grow_in_training(last: float, entropy: float, expected: list[Severity]) -> None:
    recording = attend([0.02, 0.02, 0.1, 1.0, last], [1.0, 1.0, 1.0, 0.9, entropy])
    assert severities(recording) == expected


def test_growth_says_from_where_and_when() -> None:
    (finding,) = findings(RULE, attend([0.5, 0.5, 0.6, 5.0, 40.0], [0.9, 0.9, 0.9, 0.4, 0.01]))
    assert finding.step == 20
    assert finding.evidence["first_logit_std"] == 0.5
    assert "QK-norm" in finding.hint
    assert "z-loss" in finding.hint


@pytest.mark.parametrize(
    "trained",
    [{"checkpoint": "last.pt"}, {**NORM, "parameter_norm": {"norm.weight": 0.4 * 4}}],
    ids=["checkpoint", "loaded by the user"],
)
def test_trained_attention_may_be_sharp(trained: dict[str, Any]) -> None:
    assert silent(RULE, attend(12.0, 0.1, **trained))
    assert severities(attend([5.0, 5.0, 6.0, 20.0, 50.0], 0.1, **trained)) == [Severity.WARNING]


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_fresh_normalisations_do_not_look_trained(scale: float) -> None:
    recording = attend(12.0, 0.1, **NORM, parameter_norm={"norm.weight": scale * 4})
    assert severities(recording) == [Severity.ERROR]


def test_attention_that_is_not_called_on_every_step() -> None:
    nan = float("nan")
    assert severities(attend([nan, nan, nan, 0.5, 30.0], [nan, nan, nan, 0.9, 0.1])) == [Severity.WARNING]
    assert silent(RULE, attend(nan, nan))


def test_what_was_not_measured_is_not_judged() -> None:
    assert reasons(RULE, make_recording())
    assert reasons(RULE, with_signals(make_recording(probe_steps=[])))
    assert silent(RULE, with_signals(make_recording()))
