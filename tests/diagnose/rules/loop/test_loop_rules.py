"""Each rule on the loop: what makes it fire, what its sound neighbour looks like, and when it cannot judge."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli.audit import EvalSeen, LoopAudit, LoopEvent, OptimizerSeen
from gradcheck_cli.diagnose.diagnosis import diagnose
from gradcheck_cli.diagnose.rule import Rule
from gradcheck_cli.diagnose.rules.loop import LOOP_RULES
from gradcheck_cli.records import Finding, Location, Recording, Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording
from tests.diagnose.rules.loop.audits import LINES, event, recorded, scaled
from tests.diagnose.rules.test_rules import is_plain

RULES: dict[str, Rule[Recording]] = {rule.code: rule for rule in LOOP_RULES}
PLAIN: tuple[str, ...] = ("zero", "backward", "step")
every_rule = pytest.mark.parametrize("rule", LOOP_RULES, ids=lambda rule: rule.name)
half, quarter = event("backward", factor=0.5, divisors=(2.0,)), event("backward", factor=0.25, divisors=(2.0, 2.0))


def found_by(code: str, recording: Recording) -> Finding:
    (found,) = findings(RULES[code], recording)
    assert found.location is None or found.location.file == "train.py"
    assert is_plain(dict(found.evidence))
    return found


def line(found: Finding) -> int | None:
    return found.location.line if found.location else None


@every_rule
@pytest.mark.parametrize("end", ["step", "skipped"])
def test_a_plain_loop_gets_nothing(rule: Rule[Recording], end: str) -> None:
    assert silent(rule, recorded("zero", "backward", end, repeat=9))
    assert silent(rule, recorded("backward", "clip-norm", end, "scheduler", "zero", repeat=9))


@every_rule
def test_an_accumulation_gets_nothing(rule: Rule[Recording]) -> None:
    assert silent(rule, recorded("zero", half, half, "clip-norm", "step", "scheduler", repeat=9))


@every_rule
def test_mixed_precision_in_its_order_gets_nothing(rule: Rule[Recording]) -> None:
    loop = ("zero", scaled("backward"), "unscale", scaled("clip-norm"), scaled("step"))
    assert silent(rule, recorded(*loop, repeat=9))


@every_rule
def test_without_a_step_nothing_is_found(rule: Rule[Recording]) -> None:
    assert findings(rule, recorded("zero", "backward", repeat=9)) == []
    assert bool(reasons(rule, recorded("zero", "backward", repeat=9))) is (rule.code not in {"GC509", "GC515"})


def test_the_rules_run_only_where_the_loop_was_watched() -> None:
    faulty = recorded("backward", "step", repeat=9)
    assert "GC504" in {found.code for found in diagnose(faulty).findings}
    own = diagnose(replace(faulty, audit=None))
    assert not [one for one in (*own.findings, *own.not_evaluated) if one.code.startswith("GC5")]


numbers = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 2.0, 1024.0, 1 / 1024]), st.floats())
several = st.lists(st.integers(0, 2), max_size=3, unique=True).map(tuple)
events = st.builds(
    LoopEvent,
    kind=st.sampled_from([*LINES]),
    optimizers=several,
    site=st.integers(-1, 3),
    measured=st.booleans(),
    loss=st.one_of(st.none(), numbers),
    reduction=st.sampled_from(["mean", "sum", ""]),
    factor=numbers,
    divisors=st.lists(numbers, max_size=2).map(tuple),
    scaled=st.booleans(),
    retains=st.booleans(),
    inactive=several,
    moved=st.booleans(),
    ratio=numbers,
    count=st.integers(0, 9),
    limit=numbers,
    norm=numbers,
    cosine=numbers,
    scale=numbers,
    failed=st.booleans(),
    scheduler=st.integers(-1, 1),
)
audits = st.builds(
    LoopAudit,
    st.builds(
        lambda once, times: tuple(replace(one) for one in once * times), st.lists(events, max_size=8), st.integers(1, 4)
    ),
    st.just((OptimizerSeen("SGD"), OptimizerSeen("Adam"))),
    st.just((EvalSeen("Net", ("Dropout",), None, (0,), (1,)),)),
    st.booleans(),
)


@every_rule
@settings(deadline=None, max_examples=40)
@given(audit=audits)
def test_no_audit_breaks_a_rule(rule: Rule[Recording], audit: LoopAudit) -> None:
    for found in findings(rule, replace(make_recording(), audit=audit)):
        assert found.message
        assert found.hint
        assert is_plain(dict(found.evidence)), found.evidence
        assert not [value for value in found.evidence.values() if isinstance(value, float) and not math.isfinite(value)]


# GC501


def test_a_clip_after_the_step_is_found() -> None:
    found = found_by("GC501", recorded(*PLAIN, "clip-norm", repeat=3))
    assert (found.severity, line(found)) == (Severity.ERROR, 5)
    assert found.evidence["clips_after_step"] == 3


def test_a_clip_after_zero_grad_is_found() -> None:
    assert found_by("GC501", recorded("zero", "clip-norm", "backward", "step", repeat=3))


def test_measuring_after_the_step_and_clipping_in_time_as_well_is_no_late_clip() -> None:
    assert silent(RULES["GC501"], recorded(*PLAIN, event("clip-norm", limit=float("inf")), repeat=3))
    both = recorded("zero", "backward", "clip-norm", "step", "clip-norm", repeat=3)
    assert silent(RULES["GC501"], both)


# GC502


def test_a_clip_of_scaled_gradients_is_found_with_what_it_really_clips_at() -> None:
    loop = ("zero", scaled("backward"), scaled("clip-norm", limit=2.0), "unscale", scaled("step"))
    found = found_by("GC502", recorded(*loop, repeat=3))
    assert (found.severity, line(found)) == (Severity.ERROR, 5)
    assert found.evidence["limit_applied"] == 2.0 / 1024
    assert "0.00195" in found.message


def test_gradients_unscaled_by_hand_may_be_clipped() -> None:
    loop = ("zero", scaled("backward"), event("edit", ratio=1 / 1024), scaled("clip-norm"), "step")
    assert silent(RULES["GC502"], recorded(*loop, repeat=3))
    unmeasured = ("zero", scaled("backward"), scaled("clip-norm", measured=False), scaled("step"))
    assert silent(RULES["GC502"], recorded(*unmeasured, repeat=3))


# GC503


def test_means_that_are_added_up_undivided_are_found() -> None:
    found = found_by("GC503", recorded("zero", *["backward"] * 4, "step", repeat=3))
    assert (found.severity, line(found)) == (Severity.WARNING, 2)
    assert found.evidence["micro_batches"] == 4
    assert found.hint == "(loss / 4).backward()"


@pytest.mark.parametrize(
    "losses",
    [
        [half, half],
        [event("backward", reduction="sum")] * 2,
        [event("backward", line=2), event("backward", line=3)],
        [event("backward", retains=True), event("backward")],
    ],
    ids=["divided", "sums", "two lines", "one graph"],
)
def test_other_sums_of_losses_are_sound(losses: list[LoopEvent]) -> None:
    assert silent(RULES["GC503"], recorded("zero", *losses, "step", repeat=3))


def test_gradients_divided_after_they_were_added_are_sound() -> None:
    loop = ("zero", "backward", "backward", event("edit", ratio=0.5), "step")
    assert silent(RULES["GC503"], recorded(*loop, repeat=3))


def test_losses_of_which_nothing_is_known_are_not_judged() -> None:
    unknown = event("backward", reduction="")
    (reason,) = reasons(RULES["GC503"], recorded("zero", unknown, unknown, "step", repeat=3))
    assert "autograd graph" in reason


# GC504


def test_gradients_that_nothing_removes_are_found() -> None:
    found = found_by("GC504", recorded("backward", "step", repeat=5))
    assert (found.severity, line(found)) == (Severity.ERROR, 2)
    assert found.evidence["steps_with_old_gradients"] == 4


def test_gradients_that_another_loss_left_do_no_harm_when_removed_in_time() -> None:
    """A discriminator, number 1, in which the generator's backward leaves gradients."""
    loop = [
        event("zero", optimizers=[1]),
        event("backward", line=11, optimizers=[1]),
        event("step", optimizers=[1]),
        event("zero", optimizers=[0]),
        event("backward", line=12, optimizers=[0, 1]),
        event("step", optimizers=[0]),
    ]
    two = [OptimizerSeen("Adam"), OptimizerSeen("Adam")]
    assert all(silent(rule, recorded(*loop, repeat=5, optimizers=two)) for rule in LOOP_RULES)
    forgotten = [one for one in loop if one.kind != "zero" or one.optimizers == (0,)]
    found = found_by("GC504", recorded(*forgotten, repeat=5, optimizers=two))
    assert found.evidence["optimizer"] == "Adam (optimizer 2 of 2)"


def test_what_was_not_measured_or_left_out_is_no_missing_zero_grad() -> None:
    unmeasured = recorded("backward", event("step", measured=False), repeat=5)
    assert silent(RULES["GC504"], unmeasured)
    assert silent(RULES["GC504"], recorded("backward", "step", event("gap", optimizers=()), repeat=5))


# GC505


def test_micro_batches_thrown_away_at_every_step_are_found() -> None:
    found = found_by("GC505", recorded("zero", half, "zero", half, "zero", half, "step", repeat=4))
    assert (found.severity, line(found)) == (Severity.ERROR, 2)
    assert (found.evidence["thrown_away"], found.evidence["backwards"]) == (2, 3)


def test_two_passes_with_moved_parameters_or_by_other_lines_throw_nothing_away() -> None:
    moved = event("zero", moved=True)
    assert silent(RULES["GC505"], recorded("zero", "backward", moved, "backward", "step", repeat=4))
    attack = event("backward", line=20)
    assert silent(RULES["GC505"], recorded("zero", attack, "zero", "backward", "step", repeat=4))
    by_hand = recorded("zero", "backward", "zero", "backward", "edit", "step", repeat=4)
    assert silent(RULES["GC505"], by_hand)


# GC506


def test_a_direct_step_on_scaled_gradients_is_found() -> None:
    loop = ("zero", scaled("backward"), event("step", scale=1024.0))
    found = found_by("GC506", recorded(*loop, repeat=3))
    assert (found.severity, line(found)) == (Severity.ERROR, 7)
    assert "1024 times too large" in found.message


def test_a_direct_step_after_unscale_is_found_too() -> None:
    loop = ("zero", scaled("backward"), "unscale", event("step", scale=1024.0))
    assert found_by("GC506", recorded(*loop, repeat=3)).evidence["unscaled"] is True


def test_a_direct_step_on_gradients_unscaled_by_hand_is_sound() -> None:
    loop = ("zero", scaled("backward"), event("edit", ratio=1 / 1024), event("step", scale=1024.0))
    assert silent(RULES["GC506"], recorded(*loop, repeat=3))


# GC507


@pytest.mark.parametrize(
    ("loop", "said"),
    [
        (("zero", scaled("backward"), "unscale", "unscale", scaled("step")), "second time"),
        (("zero", scaled("backward"), event("edit", ratio=1 / 1024), "unscale", scaled("step")), "by hand as well"),
        (("zero", "backward", "unscale", scaled("step")), "no loss was multiplied"),
        (("zero", quarter, quarter, "step"), "divided by 2"),
        (("zero", half, half, event("edit", ratio=0.5), "step"), "divided by 2"),
    ],
    ids=["twice", "by hand", "never scaled", "loss twice", "loss and gradient"],
)
def test_a_division_too_many_is_found(loop: tuple[str | LoopEvent, ...], said: str) -> None:
    found = found_by("GC507", recorded(*loop, repeat=3))
    assert found.severity is Severity.ERROR
    assert said in found.message


def test_a_refused_unscale_is_found_though_the_script_ends_with_it() -> None:
    once = ("zero", scaled("backward"), "unscale", scaled("step"))
    refused = event("unscale", failed=True)
    assert found_by("GC507", recorded(*once, scaled("backward"), "unscale", refused))


def test_a_loss_of_which_nothing_is_known_may_have_been_scaled() -> None:
    loop = ("zero", event("backward", reduction=""), "unscale", scaled("step"))
    assert silent(RULES["GC507"], recorded(*loop, repeat=3))


# GC508


def test_clipping_of_partial_sums_is_found() -> None:
    found = found_by("GC508", recorded("zero", *[half, "clip-norm"] * 3, "step", repeat=3))
    assert (found.severity, line(found)) == (Severity.WARNING, 5)
    assert found.evidence["partial_clips"] == 2


def test_clipping_of_each_gradient_on_its_own_is_sound() -> None:
    loop = ("zero", "backward", "clip-norm", "zero", "backward", "clip-norm", "step")
    assert silent(RULES["GC508"], recorded(*loop, repeat=3))
    measured = event("clip-norm", limit=float("inf"))
    assert silent(RULES["GC508"], recorded("zero", half, measured, half, "clip-norm", "step", repeat=3))


# GC509


@pytest.mark.parametrize(("cosine", "severity"), [(0.5, Severity.WARNING), (0.95, Severity.INFO)])
def test_value_clipping_that_turns_the_gradient_is_found(cosine: float, severity: Severity) -> None:
    loop = recorded("zero", "backward", event("clip-value", cosine=cosine), "step", repeat=3)
    found = found_by("GC509", loop)
    assert (found.severity, line(found)) == (severity, 6)


def test_value_clipping_of_what_is_not_finite_is_not_judged() -> None:
    loop = recorded("zero", "backward", event("clip-value", cosine=float("nan")), "step", repeat=3)
    assert reasons(RULES["GC509"], loop) == ["the gradients that were clipped by value were not finite"]


# GC511


def test_a_scheduler_before_the_first_step_is_found() -> None:
    found = found_by("GC511", recorded("zero", "backward", "scheduler", "step", repeat=3))
    assert (found.severity, line(found)) == (Severity.WARNING, 8)
    assert found.evidence["what"] == "before the first step"


@pytest.mark.parametrize("after", [True, False])
def test_a_scheduler_after_each_micro_batch_is_found(after: bool) -> None:
    loop = (
        [half, "scheduler", half, "step", "scheduler", "zero"] if after else [half, "scheduler"] * 2 + ["step", "zero"]
    )
    found = found_by("GC511", recorded(*loop, repeat=4))
    assert found.evidence["what"] == "once a micro-batch"
    assert found.evidence["scheduler_steps"] == 2


def test_a_schedule_wound_on_and_two_schedulers_are_sound() -> None:
    resumed = recorded(*[event("scheduler", line=30)] * 5, *[*PLAIN, "scheduler"] * 3)
    assert silent(RULES["GC511"], resumed)
    both = recorded("zero", half, half, "step", "scheduler", event("scheduler", line=9, scheduler=1), repeat=4)
    assert silent(RULES["GC511"], both)


# GC512

FULL = ("zero", *[event("backward", factor=1 / 3, divisors=(3.0,))] * 3, "step")
third = FULL[1]


def test_a_last_window_that_is_thrown_away_is_found() -> None:
    found = found_by("GC512", recorded(*FULL, *FULL, "zero", third, repeat=3))
    assert (found.severity, line(found)) == (Severity.INFO, 2)
    assert found.evidence["dropped"] == 3


def test_a_last_window_with_the_weight_of_a_full_one_is_found() -> None:
    found = found_by("GC512", recorded(*FULL, *FULL, *FULL, "zero", third, third, "step", repeat=3))
    assert (found.evidence["light"], found.evidence["dropped"]) == (3, 0)


def test_a_loop_that_was_stopped_and_a_right_weight_are_sound() -> None:
    assert silent(RULES["GC512"], recorded(*FULL, *FULL, *FULL, "zero", third, ended=False))
    right = recorded(*FULL, *FULL, *FULL, "zero", half, half, "step", repeat=3)
    assert silent(RULES["GC512"], right)


# GC513


def test_parameters_that_were_replaced_are_found() -> None:
    stale = OptimizerSeen("SGD", Location("train.py", 40), 4, ("head.weight", "head.bias"))
    found = found_by("GC513", recorded(*PLAIN, repeat=3, optimizers=[stale]))
    assert (found.severity, line(found)) == (Severity.ERROR, 40)
    assert found.evidence["parameters"] == ["head.weight", "head.bias"]


# GC514

inactive = event("backward", inactive=(0,))
WHOLE = EvalSeen("Net", ("Dropout",), Location("train.py", 50), optimizers=(0,))
PART = EvalSeen("Encoder", ("Dropout",), Location("train.py", 50), partly=(0,))


@pytest.mark.parametrize("module", [WHOLE, PART], ids=["whole", "part"])
def test_a_model_left_in_eval_mode_is_found(module: EvalSeen) -> None:
    after = [inactive, "step", "zero"] * 3
    found = found_by("GC514", recorded(*["backward", "step", "zero"] * 3, *after, evals=[module]))
    assert (found.severity, line(found)) == (Severity.WARNING, 50)
    assert (found.evidence["steps_in_eval_mode"], found.evidence["steps"]) == (3, 6)
    assert "validation" in found.message


def test_a_model_in_eval_mode_from_the_start_is_found_but_not_a_part_of_it() -> None:
    loop = [inactive, "step", "zero"] * 3
    assert "validation" not in found_by("GC514", recorded(*loop, evals=[WHOLE])).message
    assert silent(RULES["GC514"], recorded(*loop, evals=[PART]))


def test_batch_norm_frozen_on_the_way_is_sound() -> None:
    frozen = EvalSeen("Stem", ("BatchNorm2d",), Location("train.py", 50), partly=(0,))
    loop = [*["backward", "step", "zero"] * 3, *[inactive, "step", "zero"] * 3]
    assert silent(RULES["GC514"], recorded(*loop, evals=[frozen]))


# GC515

SPIKY = [1.0] * 25 + [500.0] + [1.0] * 4


def test_spikes_of_a_recurrent_network_without_a_clip_are_found() -> None:
    spiky = make_recording(grad_norm=SPIKY, modules={"rnn": "LSTM"})
    found = found_by("GC515", recorded(*PLAIN, repeat=3, recording=spiky))
    assert (found.severity, found.step, found.evidence["module"]) == (Severity.WARNING, 25, "LSTM")


def test_spikes_are_no_matter_of_its_with_a_clip_or_in_other_networks() -> None:
    spiky = make_recording(grad_norm=SPIKY, modules={"rnn": "LSTM"})
    assert silent(RULES["GC515"], recorded("zero", "backward", "clip-norm", "step", repeat=3, recording=spiky))
    assert silent(RULES["GC515"], recorded(*PLAIN, repeat=3, recording=make_recording(grad_norm=SPIKY)))


def test_where_spikes_cannot_be_judged_it_says_so() -> None:
    short = make_recording(steps=2, modules={"rnn": "LSTM"})
    assert reasons(RULES["GC515"], recorded(*PLAIN, recording=short)) != []


# GC516


def test_replaced_values_are_found() -> None:
    loop = ("zero", "backward", event("replace", count=3), "step")
    found = found_by("GC516", recorded(*loop, repeat=2))
    assert (found.severity, line(found)) == (Severity.WARNING, 9)
    assert found.evidence == {"replaced": 2, "skipped": 0}
    assert silent(RULES["GC516"], recorded("zero", "backward", event("replace", count=0), "step", repeat=2))


def test_steps_left_out_for_what_is_not_finite_are_found() -> None:
    nan = float("nan")
    by_loss = recorded(*PLAIN, "zero", event("backward", loss=nan), *PLAIN)
    by_norm = recorded(*PLAIN, "zero", "backward", event("clip-norm", norm=nan), *PLAIN)
    for recording in (by_loss, by_norm):
        assert found_by("GC516", recording).evidence == {"replaced": 0, "skipped": 1}
    assert silent(RULES["GC516"], recorded(*PLAIN, "zero", "backward", *PLAIN))
    assert silent(RULES["GC516"], recorded("zero", scaled("backward", loss=nan), "skipped", repeat=3))
