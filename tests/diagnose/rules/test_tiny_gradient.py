from __future__ import annotations

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rules import tiny_gradient
from gradcheck_cli.records import Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import MLP, make_recording

RULE = tiny_gradient.check


def test_the_limit_itself_and_zero_are_silent() -> None:
    assert silent(RULE, make_recording(norms={"fc1.weight": 1e-8}))
    assert silent(RULE, make_recording(norms={"fc1.weight": 0.0}))


def test_a_module_below_the_limit_is_info() -> None:
    (found,) = findings(RULE, make_recording(norms={"fc1.weight": 1e-9, "fc1.bias": 1e-10}))
    assert (found.severity, found.layer) == (Severity.INFO, "fc1")
    assert found.evidence["parameters"] == ["fc1.bias", "fc1.weight"]
    assert found.evidence["median_norms"] == [1e-10, 1e-9]
    assert found.evidence["limit"] == 1e-8


def test_a_bias_is_judged_by_the_weight_beside_it() -> None:
    assert silent(RULE, make_recording(norms={"fc1.bias": 1e-12}))


def test_a_normalisation_has_vectors_only_and_is_judged_by_them() -> None:
    parameters = {"norm.weight": (4,), "norm.bias": (4,)} | MLP
    (found,) = findings(RULE, make_recording(parameters=parameters, norms={"norm.bias": 1e-12}))
    assert found.layer == "norm"


def test_it_is_the_median_that_counts() -> None:
    assert silent(RULE, make_recording(steps=5, norms={"fc1.weight": [1e-9, 1e-9, 1.0, 1.0, 1.0]}))
    assert findings(RULE, make_recording(steps=5, norms={"fc1.weight": [1e-9, 1e-9, 1e-9, 1.0, 1.0]}))


def test_many_modules_share_one_finding() -> None:
    parameters = {f"layers.{i}.weight": (4, 4) for i in range(11)}
    norms = {name: 1e-10 * (i + 1) for i, name in enumerate(parameters)}
    (found,) = findings(RULE, make_recording(parameters=parameters, norms=norms))
    assert found.layer is None
    assert "11 modules" in found.message
    assert found.evidence["parameters"][0] == "layers.0.weight"
    three = dict(list(norms.items())[:3])
    assert len(findings(RULE, make_recording(parameters=parameters, norms=three))) == 3


def test_the_limit_can_be_set() -> None:
    assert findings(RULE, make_recording(norms={"fc1.weight": 1e-6}), Limits(tiny=1e-5))


def test_without_a_gradient_it_says_so() -> None:
    assert reasons(RULE, make_recording(steps=0))
    assert reasons(RULE, make_recording(norms=dict.fromkeys(MLP)))
