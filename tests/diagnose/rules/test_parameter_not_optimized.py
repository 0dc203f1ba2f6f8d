from __future__ import annotations

from gradcheck_cli.diagnose.rules import parameter_not_optimized
from gradcheck_cli.records import Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording

RULE = parameter_not_optimized.check


def test_a_healthy_run_and_a_frozen_layer_get_nothing() -> None:
    assert silent(RULE, make_recording(frozen=["fc1.weight"]))


def test_a_layer_left_out_of_the_optimizer_is_an_error() -> None:
    (found,) = findings(RULE, make_recording(not_optimized=["fc2.weight", "fc2.bias"]))
    assert (found.severity, found.layer) == (Severity.ERROR, "fc2")
    assert found.evidence == {"parameters": ["fc2.weight", "fc2.bias"], "numel": 18}


def test_a_parameter_without_a_gradient_is_not_its_matter() -> None:
    assert silent(RULE, make_recording(not_optimized=["fc2.weight"], norms={"fc2.weight": None}))


def test_without_an_optimizer_it_says_so() -> None:
    assert reasons(RULE, make_recording(has_optimizer=False)) == ["the run has no optimizer"]
