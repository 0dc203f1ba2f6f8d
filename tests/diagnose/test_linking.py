"""One root cause, one headline: which findings explain which, and never in a circle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli.diagnose.diagnosis import ALL_RULES, diagnose
from gradcheck_cli.diagnose.explanations import CAUSES
from gradcheck_cli.diagnose.linking import link
from gradcheck_cli.records import Finding, Recording, Severity
from gradcheck_cli.signals import Site
from tests.diagnose.recordings import make_recording
from tests.diagnose.signals import with_signals

NAN = float("nan")
DEEP = {f"layers.{index}.weight": (8, 8) for index in range(6)}
IN_TIME = ({"GC201", "GC202"}, {"GC301", "GC302", "GC303", "GC613"})
"""Each can come before the other: their conditions ask which did."""


def make(
    code: str, layer: str | None = None, severity: str = "error", step: int | None = None, **evidence: Any
) -> Finding:
    return Finding(code, "a-rule", Severity(severity), "message", "hint", layer, step, evidence)


def causes(findings: Sequence[Finding], recording: Recording | None = None) -> dict[str, tuple[str, ...]]:
    """The direct causes of each finding, as codes or, where there is a layer, fingerprints."""
    linked = link(findings, recording or make_recording(parameters=DEEP))
    return {
        finding.fingerprint.removesuffix(":"): tuple(cause.removesuffix(":") for cause in finding.because)
        for finding in linked
    }


VANISHING = make("GC101", "layers.*", first_layer="layers.0", last_layer="layers.5")
EXPLODING = make("GC102", "layers.*", first_layer="layers.0", last_layer="layers.5")
DIVERGENCE = make("GC203", step=29, limit=6.0)
TOO_SMALL = make("GC601", "layers.*", explained_decades=5.0)
TOO_LARGE = make("GC601", "layers.*", explained_decades=-5.0)


# The table


def test_only_what_happens_in_time_can_explain_one_another() -> None:
    for start in CAUSES:
        for circle in circles(start, [start]):
            assert any({kind.partition(" ")[0] for kind in circle} <= group for group in IN_TIME), circle


def circles(kind: str, path: list[str]) -> list[list[str]]:
    """The ways from a finding over its causes back to itself."""
    found = []
    for cause in CAUSES.get(kind, {}):
        if cause == path[0]:
            found.append(path)
        elif cause not in path:
            found += circles(cause, [*path, cause])
    return found


def test_every_code_of_the_table_is_one_that_rules_may_have() -> None:
    kinds = {*CAUSES, *(cause for table in CAUSES.values() for cause in table)}
    known = {rule.code for rule in ALL_RULES}
    assert {kind.partition(" ")[0] for kind in kinds} <= known


# What a link is


def test_links_are_direct_and_go_both_ways() -> None:
    saturated, vanishing, tiny = link(
        [VANISHING, make("GC108", "layers.0", "info"), make("GC602", "layers.*")], make_recording(parameters=DEEP)
    )
    assert (saturated.because, saturated.explains) == ((), ("GC101:layers.*",))
    assert (vanishing.because, vanishing.explains) == (("GC602:layers.*",), ("GC108:layers.0",))
    assert (tiny.because, tiny.explains) == (("GC101:layers.*",), ())


def test_a_root_of_little_severity_stands_before_the_error_that_it_explains() -> None:
    findings = [
        make("GC106", "layers.5"),
        VANISHING,
        make("GC602", "layers.*", "warning"),
        make("GC103", "aux", "warning"),
    ]
    linked = link(findings, make_recording(parameters=DEEP))
    assert [finding.code for finding in linked] == ["GC602", "GC101", "GC106", "GC103"]
    assert [finding.severity.value for finding in linked] == ["warning", "error", "error", "warning"]


def test_linking_again_changes_nothing() -> None:
    recording = make_recording(parameters=DEEP)
    once = link([VANISHING, make("GC602", "layers.*"), make("GC107")], recording)
    assert link(once, recording) == once


def test_a_harmless_cause_explains_nothing_harmful() -> None:
    falling = make("GC101", "layers.*", "info", first_layer="layers.0", last_layer="layers.5")
    assert causes([falling, make("GC104", "layers.0")])["GC104:layers.0"] == ()
    assert causes([falling, make("GC108", "layers.0", "info")])["GC108:layers.0"] == ("GC101:layers.*",)
    radius = make("GC607", "rnn", "info", spectral_radius=2.0)
    assert causes([make("GC606", "rnn"), radius])["GC606:rnn"] == ("GC607:rnn",)


# What explains what


@pytest.mark.parametrize(
    ("cause", "effect"),
    [
        (TOO_SMALL, VANISHING),
        (TOO_LARGE, EXPLODING),
        (TOO_LARGE, make("GC602", "layers.*")),
        (make("GC603", "layers.2"), VANISHING),
        (make("GC605", "layers.*"), VANISHING),
        (make("GC608", "layers.*"), EXPLODING),
        (make("GC606", "layers.1"), EXPLODING),
        (make("GC607", "rnn", "info", spectral_radius=0.1), make("GC606", "rnn", "info", faded_after_steps=4)),
        (EXPLODING, DIVERGENCE),
        (EXPLODING, make("GC107", severity="info")),
        (DIVERGENCE, make("GC204", severity="warning")),
        (DIVERGENCE, make("GC306", "layers.0", growth=20.0, growth_limit=10.0)),
        (make("GC612", step=7), make("GC201", step=7)),
        (make("GC612", step=7), make("GC202", step=8)),
        (make("GC611", ratio=1024.0), make("GC107", severity="info")),
        (make("GC611", ratio=1e-3), make("GC108", severity="info")),
        (make("GC603", "layers.2", never_active=[1.0]), make("GC613", probes=3)),
        (make("GC103", "layers.2", called=False), make("GC613", probes=3)),
        (make("GC104", "layers.2", parameters_with_gradient=["layers.2.bias"]), make("GC613", probes=3)),
        (VANISHING, make("GC613", probes=3)),
    ],
    ids=lambda finding: finding.code,
)
def test_cause_and_effect(cause: Finding, effect: Finding) -> None:
    fingerprints = [one.fingerprint.removesuffix(":") for one in (cause, effect)]
    assert causes([effect, cause]) == {fingerprints[0]: (), fingerprints[1]: (fingerprints[0],)}


@pytest.mark.parametrize(
    ("cause", "effect"),
    [
        (TOO_LARGE, VANISHING),
        (TOO_SMALL, EXPLODING),
        (TOO_SMALL, make("GC602", "layers.*")),
        (make("GC607", "rnn", spectral_radius=2.0), make("GC606", "rnn", "info", faded_after_steps=4)),
        (make("GC607", "layers.3", spectral_radius=2.0), make("GC606", "layers.0")),
        (DIVERGENCE, make("GC306", "layers.0", growth=1.0, growth_limit=10.0, largest_value=1e7)),
        (make("GC612", step=7), make("GC201", step=8)),
        (make("GC611", ratio=1024.0), make("GC108", severity="info")),
        (make("GC603", "layers.2", never_active=[0.9]), make("GC613", probes=3)),
        (make("GC103", "layers.2", called=True), make("GC613", probes=3)),
        (make("GC104", "layers.2"), make("GC613", probes=3)),
        (make("GC105", "layers.2"), VANISHING),
    ],
    ids=lambda finding: finding.code,
)
def test_no_cause_of_this_effect(cause: Finding, effect: Finding) -> None:
    assert not any(causes([effect, cause]).values())


def test_a_dead_layer_explains_zeros_before_it_and_its_successors_lack_of_input_but_no_spare_expert() -> None:
    dead = make("GC603", "layers.3", layers=["layers.3"], never_active=[1.0])
    found = causes(
        [
            dead,
            make("GC104", "layers.0"),
            make("GC104", "layers.4", parameters_with_gradient=["layers.4.bias"]),
            make("GC104", "layers.5"),
            make("GC104", "layers.1", "warning", siblings_with_gradient=["layers.2.weight"]),
        ]
    )
    assert {name for name, because in found.items() if because} == {"GC104:layers.0", "GC104:layers.4"}


def test_layers_apart_do_not_explain_one_another() -> None:
    early = make("GC101", "encoder", first_layer="layers.0", last_layer="layers.2")
    assert causes([early, make("GC602", "layers.4")])["GC101:encoder"] == ()
    assert causes([early, make("GC602", "layers.2")])["GC101:encoder"] == ("GC602:layers.2",)


def test_a_function_in_a_sequence_lies_with_the_layer_before_it() -> None:
    parameters = {f"{index}.weight": (8, 8) for index in range(0, 12, 2)}
    recording = make_recording(parameters=parameters, modules={f"{index}": "ReLU" for index in range(1, 12, 2)})
    early = make("GC101", "*", first_layer="0", last_layer="4")
    assert causes([early, make("GC603", "3")], recording)["GC101:*"] == ("GC603:3",)
    assert causes([early, make("GC603", "7")], recording)["GC101:*"] == ()


def test_a_function_with_a_name_lies_anywhere_in_the_module_that_has_it() -> None:
    parameters = {f"{block}.{name}.weight": (8, 8) for block in "abcde" for name in ("fc", "proj")}
    recording = make_recording(parameters=parameters, modules={f"{block}.act": "Sigmoid" for block in "abcde"})
    early = make("GC101", "*", first_layer="a.fc", last_layer="c.fc")
    assert causes([early, make("GC602", "c.act")], recording)["GC101:*"] == ("GC602:c.act",)
    assert causes([early, make("GC602", "d.act")], recording)["GC101:*"] == ()


def test_parameters_outside_the_model_may_be_anywhere() -> None:
    recording = make_recording(parameters=DEEP | {"criterion.weight": (8, 8)}, probed=[f"layers.{i}" for i in range(6)])
    known = tuple(module for module in recording.modules if module.name != "criterion")
    unused = make("GC103", "criterion", called=False, parameters=["criterion.weight"])
    assert causes([VANISHING, make("GC602", "criterion"), unused], replace(recording, modules=known)) == {
        "GC602:criterion": (),
        "GC101:layers.*": ("GC602:criterion",),
        "GC103:criterion": (),
    }


def test_weights_that_begin_large_do_not_come_of_divergence_but_dead_units_may_come_of_their_growth() -> None:
    recording = make_recording(parameters=DEEP, steps=12)
    rows = len(recording.probes.steps)
    blowup = make("GC306", "layers.0", growth=20.0, growth_limit=10.0)
    dead = make("GC603", "layers.1", never_active=[1.0])
    for zero, because in (([0.4] * (rows - 2) + [1.0] * 2, ("GC306:layers.0",)), ([1.0] * rows, ())):
        measured = with_signals(recording, activations={Site("layers.1", "relu"): {"zero": zero}})
        assert causes([blowup, dead], measured)["GC603:layers.1"] == because


# What happens in time


def non_finite(parameter: int, loss: int, gradient: int, **last: Any) -> list[Finding]:
    """The three findings, each with its first step."""
    return [
        make("GC303", "layers.0", step=parameter, **last),
        make("GC301", step=loss),
        make("GC302", "layers.5", step=gradient, loss_is_finite=gradient < loss),
    ]


@pytest.mark.parametrize(
    ("findings", "chain"),
    [
        (non_finite(0, 0, 0), ["GC303:layers.0", "GC301", "GC302:layers.5"]),
        (non_finite(12, 12, 11), ["GC302:layers.5", "GC303:layers.0", "GC301"]),
        (non_finite(24, 24, 24, after_last_step=True), ["GC301", "GC302:layers.5", "GC303:layers.0"]),
    ],
    ids=["parameter first", "gradient first", "loss first"],
)
def test_what_was_not_finite_first_explains_the_rest(findings: list[Finding], chain: list[str]) -> None:
    found = causes(findings)
    assert list(found) == chain
    assert list(found.values()) == [(), (chain[0],), (chain[1],)]


def test_a_bad_batch_explains_the_loss_of_its_own_step_only() -> None:
    recording = make_recording(parameters=DEEP, nonfinite_inputs={4: 1})
    batch = make("GC304", step=4, nonfinite_steps=[4])
    assert causes([batch, make("GC301", step=4)], recording)["GC301"] == ("GC304",)
    assert causes([batch, make("GC301", step=9)], recording)["GC301"] == ()


def test_a_gradient_that_the_scaler_caught_does_not_explain_broken_weights() -> None:
    for caught, because in ((True, ()), (False, ("GC302",))):
        gradient = make("GC302", step=3, loss_is_finite=True, skipped_by_scaler=caught)
        assert causes([gradient, make("GC303", step=4)])["GC303"] == because


def test_only_a_run_that_ran_away_overflows() -> None:
    for loss, because in (([2.0] * 9 + [NAN], ()), ([2.0 * 2**n for n in range(9)] + [NAN], ("GC102:layers.*",))):
        recording = make_recording(parameters=DEEP, steps=10, loss=loss)
        assert causes([EXPLODING, make("GC301", step=9)], recording)["GC301"] == because


def test_spikes_follow_the_batch_then_the_update() -> None:
    assert causes([make("GC201", step=5), make("GC202", step=5)]) == {"GC202": (), "GC201": ("GC202",)}
    assert causes([make("GC201", step=5), make("GC202", step=6)]) == {"GC201": (), "GC202": ("GC201",)}
    assert causes([make("GC201", step=5), make("GC202", step=20)]) == {"GC201": (), "GC202": ()}


def test_a_spike_in_the_rise_of_a_diverging_loss_is_a_part_of_it() -> None:
    recording = make_recording(parameters=DEEP, loss=[2.0] * 20 + [2.0 * 1.5**n for n in range(10)])
    assert causes([DIVERGENCE, make("GC202", step=28)], recording)["GC202"] == ("GC203",)
    assert causes([DIVERGENCE, make("GC202", step=10)], recording)["GC202"] == ()


def test_large_norms_are_explained_by_growth_only_if_they_began_small() -> None:
    for first, because in ((1.0, ("GC204",)), (1e4, ())):
        recording = make_recording(parameters=DEEP, grad_norm=[first * 2**n for n in range(30)])
        growth, large = make("GC204", severity="warning"), make("GC107", severity="info", limit=100.0)
        assert causes([growth, large], recording)["GC107"] == because


def test_a_scaled_gradient_moves_the_weights_under_sgd_only() -> None:
    scaled, update = make("GC611", ratio=1024.0), make("GC609", severity="warning", which="too large")
    for optimizer, because in (("SGD", ("GC611",)), ("AdamW", ())):
        recording = make_recording(parameters=DEEP, optimizer=optimizer)
        assert causes([scaled, update], recording)["GC609"] == because


# Whatever is found


CODES = sorted({kind.partition(" ")[0] for kind in CAUSES} | {"GC106", "GC304", "GC605", "GC607", "GC611", "GC612"})
EVIDENCE: dict[str, st.SearchStrategy[Any]] = {
    "explained_decades": st.floats(-9, 9),
    "ratio": st.floats(1e-9, 1e9),
    "which": st.sampled_from(["too small", "too large"]),
    "probes": st.just(3),
    "first_logit_std": st.just(1.0),
    "growth": st.floats(0, 100),
    "growth_limit": st.just(10.0),
    "limit": st.floats(0, 10),
    "never_active": st.lists(st.sampled_from([0.9, 1.0])),
    "parameters_with_gradient": st.lists(st.just("layers.1.bias"), max_size=1),
    "siblings_with_gradient": st.lists(st.just("layers.2.weight"), max_size=1),
    "nonfinite_steps": st.lists(st.integers(0, 29)),
    "loss_is_finite": st.booleans(),
    "after_last_step": st.booleans(),
    "faded_after_steps": st.integers(1, 9),
    "layers": st.lists(st.sampled_from(["layers.0", "layers.4", "", "gone"]), max_size=2),
}
findings = st.lists(
    st.builds(
        Finding,
        code=st.sampled_from(CODES),
        name=st.just("a-rule"),
        severity=st.sampled_from(tuple(Severity)),
        message=st.just(""),
        hint=st.just(""),
        layer=st.sampled_from([None, "", "layers.*", "layers.1", "layers.5.weight", "all Linear layers"]),
        step=st.none() | st.integers(0, 29),
        evidence=st.fixed_dictionaries({}, optional=EVIDENCE),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(findings=findings, loss=st.lists(st.floats(0, 1e9) | st.just(NAN), min_size=30, max_size=30))
def test_whatever_is_found_nothing_is_lost_and_nothing_goes_in_a_circle(
    findings: list[Finding], loss: list[float]
) -> None:
    linked = link(findings, make_recording(parameters=DEEP, loss=loss))
    assert sorted(map(describe, linked)) == sorted(map(describe, findings))
    seen: set[str] = set()
    explains = {finding.fingerprint: set(finding.explains) for finding in linked}
    for finding in linked:
        assert set(finding.because) <= seen
        assert all(finding.fingerprint in explains[cause] for cause in finding.because)
        seen.add(finding.fingerprint)


def describe(finding: Finding) -> str:
    return f"{finding.fingerprint} {finding.severity} {finding.step} {finding.evidence}"


# What is diagnosed


def test_a_diagnosis_is_linked(monkeypatch: pytest.MonkeyPatch) -> None:
    losses: Mapping[str, Any] = {"loss": [2.0] * 4 + [NAN] * 2, "norms": {"fc1.weight": [0.1] * 4 + [NAN] * 2}}
    recording = make_recording(steps=6, nonfinite_inputs={4: 1}, **losses)
    found = diagnose(recording).findings
    assert [finding.code for finding in found if finding.severity is Severity.ERROR] == ["GC304", "GC301", "GC302"]
    assert [finding.because for finding in found[:3]] == [(), ("GC304:",), ("GC301:",)]
    assert diagnose(recording, ignore=["GC304"]).findings[0].because == ()


def test_a_gradient_is_lost_where_the_layer_itself_is_cut_off() -> None:
    lost = make("GC804", "layers.2", layers=["layers.2"])
    own = make("GC103", "layers.2", parameters=["layers.2.weight"])
    other = make("GC103", "aux", severity="warning", parameters=["aux.weight"])  # never ran, so it lies anywhere
    assert causes([other, own, lost])["GC804:layers.2"] == ("GC103:layers.2",)
    assert causes([other, lost])["GC804:layers.2"] == ()
