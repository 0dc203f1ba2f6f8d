from __future__ import annotations

from gradcheck_cli.diagnose.rules import unused_parameter
from gradcheck_cli.records import Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import MLP, make_recording

RULE = unused_parameter.check
CUT_OFF = {"fc1.weight": None, "fc1.bias": None}


def test_a_healthy_run_gets_nothing() -> None:
    assert silent(RULE, make_recording())


def test_a_layer_that_ran_and_got_nothing_back_is_an_error() -> None:
    (found,) = findings(RULE, make_recording(norms=CUT_OFF, output_grad_rms={"fc1": None}))
    assert (found.severity, found.layer) == (Severity.ERROR, "fc1")
    assert found.evidence["parameters"] == ["fc1.weight", "fc1.bias"]
    assert found.evidence["steps_with_gradient"] == 0
    assert found.evidence["recorded_steps"] == 30
    assert "detach" in found.hint
    assert "30 recorded steps" in found.message


def test_a_gradient_at_the_output_puts_the_cut_inside() -> None:
    (found,) = findings(RULE, make_recording(norms=CUT_OFF))
    assert found.severity is Severity.ERROR
    assert "within" in found.message


def test_a_layer_that_never_ran_is_a_warning() -> None:
    (found,) = findings(RULE, make_recording(norms=CUT_OFF, probed=["fc2"]))
    assert found.severity is Severity.WARNING
    assert "never ran" in found.message


def test_a_compiled_layer_is_a_warning_that_says_what_cannot_be_seen() -> None:
    (found,) = findings(RULE, make_recording(norms=CUT_OFF, compiled=["fc1"]))
    assert found.severity is Severity.WARNING
    assert "torch.compile" in found.message


def test_a_whole_branch_is_one_finding() -> None:
    parameters = {
        f"aux.{i}.{kind}": (4, 4) if kind == "weight" else (4,) for i in range(3) for kind in ("weight", "bias")
    }
    norms = dict.fromkeys(parameters)
    (found,) = findings(RULE, make_recording(parameters=parameters | MLP, norms=norms))
    assert found.layer == "aux"
    assert found.evidence["parameters"] == list(parameters)


def test_one_parameter_beside_a_living_one_is_named_itself() -> None:
    (found,) = findings(RULE, make_recording(norms={"fc1.bias": None}))
    assert found.layer == "fc1.bias"


def test_a_parameter_of_the_root_that_was_called() -> None:
    recording = make_recording(parameters={"scale": (4, 4)} | MLP, norms={"scale": None})
    (found,) = findings(RULE, recording)
    assert (found.layer, found.severity) == ("scale", Severity.ERROR)


def test_attention_uses_its_output_projection_without_calling_it() -> None:
    parameters = {"attn.in_proj_weight": (12, 4), "attn.out_proj.weight": (4, 4)}
    arguments = {"parameters": parameters, "norms": {"attn.out_proj.weight": None}, "probed": ["attn"]}
    (attention,) = findings(RULE, make_recording(modules={"attn": "MultiheadAttention"}, **arguments))
    (other,) = findings(RULE, make_recording(modules={"attn": "Block"}, **arguments))
    assert attention.severity is Severity.ERROR
    assert other.severity is Severity.WARNING


def test_a_gradient_on_some_steps_only_is_info() -> None:
    half = [0.1, None] * 15
    (found,) = findings(RULE, make_recording(norms={"fc1.weight": half, "fc1.bias": half}))
    assert (found.severity, found.layer) == (Severity.INFO, "fc1")
    assert found.evidence["fraction"] == 0.5


def test_frozen_parameters_need_no_gradient() -> None:
    assert silent(RULE, make_recording(frozen=["fc1.weight", "fc1.bias"]))


def test_without_a_recorded_step_it_says_so() -> None:
    assert reasons(RULE, make_recording(steps=0)) == ["no step was recorded"]
