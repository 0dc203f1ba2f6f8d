from __future__ import annotations

from gradcheck_cli.diagnose.rules import zero_gradient
from gradcheck_cli.records import Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import MLP, make_recording

RULE = zero_gradient.check
EXPERTS = {"embed.weight": (8, 4), "experts.0.weight": (4, 4), "experts.1.weight": (4, 4), "head.weight": (2, 4)}
STACK = {f"fc{i}.{kind}": (4, 4) if kind == "weight" else (4,) for i in range(4) for kind in ("weight", "bias")}


def test_a_healthy_run_gets_nothing() -> None:
    assert silent(RULE, make_recording())


def test_a_weight_that_is_always_zero_is_an_error_and_its_bias_is_listed() -> None:
    (found,) = findings(RULE, make_recording(norms={"fc1.weight": 0.0, "fc1.bias": 0.0}))
    assert (found.severity, found.layer) == (Severity.ERROR, "fc1")
    assert found.evidence["parameters"] == ["fc1.weight", "fc1.bias"]
    assert found.evidence["steps"] == 29
    assert "ReLU" in found.hint


def test_a_living_bias_beside_it_means_that_the_input_is_zero() -> None:
    (found,) = findings(RULE, make_recording(norms={"fc2.weight": 0.0}))
    assert found.evidence["parameters_with_gradient"] == ["fc2.bias"]
    assert "input of this layer is exactly zero" in found.hint


def test_zero_before_the_first_update_only_is_a_zero_initialisation() -> None:
    assert silent(RULE, make_recording(norms={"fc1.weight": [0.0] + [0.1] * 29}))


def test_a_warm_up_from_a_learning_rate_of_zero_and_skipped_steps_do_not_count_as_updates() -> None:
    lora = [0.0] * 5 + [0.1] * 3
    assert silent(RULE, make_recording(steps=8, norms={"fc1.weight": lora}, lr=[0.0] * 4 + [1e-3] * 4))
    assert silent(RULE, make_recording(steps=8, norms={"fc1.weight": lora}, skipped=range(4), uses_scaler=True))


def test_a_vector_alone_is_never_judged() -> None:
    assert silent(RULE, make_recording(norms={"fc1.bias": 0.0}))


def test_one_step_with_a_gradient_is_enough_to_be_alive() -> None:
    assert silent(RULE, make_recording(norms={"fc1.weight": [0.0] * 29 + [1e-12]}))


def test_three_steps_after_the_update_are_needed() -> None:
    zero = {"fc1.weight": 0.0}
    assert len(findings(RULE, make_recording(steps=4, norms=zero))) == 1
    assert reasons(RULE, make_recording(steps=3, norms=zero)) == [
        "2 steps recorded after the first update (step 0), 3 are needed"
    ]


def test_steps_without_a_gradient_do_not_count_as_zero() -> None:
    assert silent(RULE, make_recording(steps=6, norms={"fc1.weight": [0.0, 0.0, 0.0, None, None, None]}))
    assert len(findings(RULE, make_recording(steps=6, norms={"fc1.weight": [0.0, 0.0, 0.0, 0.0, None, None]}))) == 1
    assert silent(RULE, make_recording(norms={"fc1.weight": None}))


def test_a_norm_of_zero_is_not_enough_if_an_element_is_not() -> None:
    assert silent(RULE, make_recording(norms={"fc1.weight": 0.0}, max_abs={"fc1.weight": 1e-200}))


def test_an_unused_expert_is_a_warning() -> None:
    (found,) = findings(RULE, make_recording(parameters=EXPERTS, norms={"experts.1.weight": 0.0}))
    assert found.severity is Severity.WARNING
    assert found.evidence["siblings_with_gradient"] == ["experts.0.weight"]


def test_a_dead_stack_is_an_error_although_later_layers_of_the_same_kind_live() -> None:
    norms = {"fc0.weight": 0.0, "fc0.bias": 0.0, "fc1.weight": 0.0, "fc1.bias": 0.0, "fc2.weight": 0.0}
    found = findings(RULE, make_recording(parameters=STACK, norms=norms))
    assert [(f.layer, f.severity) for f in found] == [(f"fc{i}", Severity.ERROR) for i in range(3)]


def test_a_dead_branch_is_named_as_a_whole() -> None:
    parameters = {"branch.a.weight": (4, 4), "branch.b.weight": (4, 4)} | MLP
    (found,) = findings(
        RULE, make_recording(parameters=parameters, norms={"branch.a.weight": 0.0, "branch.b.weight": 0.0})
    )
    assert found.layer == "branch"


def test_fp16_without_a_scaler_is_named_first() -> None:
    zero = {"fc1.weight": 0.0}
    (plain,) = findings(RULE, make_recording(norms=zero, precision="fp16"))
    (scaled,) = findings(RULE, make_recording(norms=zero, precision="fp16", uses_scaler=True))
    assert plain.hint.startswith("fp16 without a GradScaler")
    assert "GradScaler" not in scaled.hint


def test_without_an_update_it_says_so() -> None:
    zero = {"fc1.weight": 0.0}
    assert "no optimizer" in reasons(RULE, make_recording(norms=zero, has_optimizer=False))[0]
    assert "no step updated" in reasons(RULE, make_recording(norms=zero, lr=0.0))[0]
    assert "no step updated" in reasons(RULE, make_recording(steps=0))[0]
