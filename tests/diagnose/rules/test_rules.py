"""What holds for every rule."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gradcheck_cli.diagnose.baseline.rules import SHIFT_RULES
from gradcheck_cli.diagnose.clip.rules import CLIP_RULES
from gradcheck_cli.diagnose.diagnosis import ALL_RULES
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Rule
from gradcheck_cli.diagnose.rules import RULES
from gradcheck_cli.diagnose.rules.loop import LOOP_RULES
from gradcheck_cli.diagnose.rules.ranks import RANK_RULES
from gradcheck_cli.examination import Examination, SampleGradients, ScaleCheck
from gradcheck_cli.records import Finding, Recording, Severity
from gradcheck_cli.signals import RecurrentMatrix, Site
from tests.diagnose.outcomes import findings
from tests.diagnose.recordings import make_recording
from tests.diagnose.signals import with_signals

SECTIONS = ["What it detects", "Why it matters", "How to fix", "How it decides"]
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
every_documentation = pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.name)


def test_codes_are_unique_and_in_order() -> None:
    for rules in (RULES, CLIP_RULES, LOOP_RULES, RANK_RULES, SHIFT_RULES, ALL_RULES):
        codes = [rule.code for rule in rules]
        assert codes == sorted(set(codes))
        assert len({rule.name for rule in rules}) == len(codes)
    families = (RULES, CLIP_RULES, LOOP_RULES, RANK_RULES, SHIFT_RULES)
    assert len(ALL_RULES) == sum(map(len, families))


@every_documentation
def test_the_documentation_is_complete(rule: Rule) -> None:
    assert rule.documentation.startswith(f"# {rule.code} {rule.name}\n")
    headings = re.findall(r"^## (.+)$", rule.documentation, flags=re.MULTILINE)
    assert headings == SECTIONS
    for start, end in pairwise([*SECTIONS, "\\Z"]):
        pattern = rf"## {start}\n\n(.+?)(?:\n\n## {end}|\Z)"
        section = re.search(pattern, rule.documentation, flags=re.DOTALL)
        assert section is not None
        assert len(section.group(1)) > 60, f"{start} says next to nothing"
    assert 40 < len(rule.info.summary) < 400


@every_documentation
def test_the_name_is_that_of_the_file(rule: Rule) -> None:
    assert re.fullmatch(r"GC\d{3}", rule.code)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.name)
    file = str(sys.modules[rule.check.__module__].__file__)
    assert file.endswith(f"/{rule.name.replace('-', '_')}.py")


@every_documentation
def test_documentation_refers_only_to_rules_that_exist(rule: Rule) -> None:
    known = {other.code for other in ALL_RULES}
    assert set(re.findall(r"GC\d{3}", rule.documentation)) <= known


@every_rule
@pytest.mark.parametrize("steps", [30, 300])
def test_a_healthy_run_gets_no_finding(rule: Rule, steps: int) -> None:
    assert findings(rule, make_recording(steps=steps)) == []
    assert findings(rule, make_recording(steps=steps, uses_scaler=True, skipped=[0, 1])) == []


names = ["a.0.weight", "a.0.bias", "a.1.weight", "a.1.bias", "scale"]
modules = ["", "a.0", "a.1"]
numbers = st.one_of(
    st.sampled_from([0.0, 1.0, 1.0, 1e-12, 1e3, float("nan"), float("inf"), -float("inf"), 5e-324, 1.7e308]),
    st.floats(allow_nan=True, allow_infinity=True),
)
sizes = numbers.map(abs)


def per(count: int, values: st.SearchStrategy[float], missing: bool = False) -> st.SearchStrategy[list[float | None]]:
    elements: st.SearchStrategy[float | None] = st.one_of(st.none(), values) if missing else values
    # Long runs repeat a short pattern: enough to pass the rules' minimum lengths.
    return st.lists(elements, min_size=1, max_size=6).map(lambda head: (head * (count + 1))[:count])


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    steps = draw(st.sampled_from([0, 1, 3, 4, 11, 22, 45]))
    rows = draw(st.sets(st.integers(0, steps - 1), max_size=steps)) if steps else set()
    recorded = draw(st.sampled_from([sorted(rows), list(range(steps))]))
    probe_steps = [step for step in recorded if step % 2 == 0]

    def columns(of: list[str], count: int, missing: bool = False) -> Mapping[str, Any]:
        chosen = draw(st.sets(st.sampled_from(of)))
        return {name: draw(per(count, sizes, missing)) for name in sorted(chosen)}

    frozen = draw(st.sets(st.sampled_from(names)))
    grad_norm = draw(st.one_of(st.none(), per(steps, sizes)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of making the recording
        recording = make_recording(
            steps=steps,
            parameters={name: (2,) if name.endswith("bias") else (3, 2) for name in names},
            frozen=frozen,
            not_optimized=draw(st.sets(st.sampled_from(names))),
            probed=draw(st.permutations(modules))[: draw(st.integers(0, 3))],
            compiled=draw(st.sets(st.sampled_from(modules))),
            loss=draw(per(steps, numbers)),
            grad_norm=grad_norm,
            lr=draw(per(steps, st.sampled_from([0.0, 1e-3, float("nan")]))),
            skipped=draw(st.sets(st.integers(0, 50))),
            loss_scale=draw(st.one_of(st.none(), per(steps, sizes))),
            nonfinite_inputs=draw(st.dictionaries(st.integers(0, 50), st.integers(0, 5))),
            recorded=recorded,
            norms=None if grad_norm is not None else columns(names, steps, missing=True),
            max_abs=columns(names, steps),
            nonfinite=columns(names, steps),
            parameter_norm=columns(names, steps),
            final_parameter_norm={name: draw(sizes) for name in names},
            probe_steps=probe_steps,
            parameter_max=columns(names, len(probe_steps)),
            has_optimizer=draw(st.booleans()),
            precision=draw(st.sampled_from(["fp32", "fp16"])),
        )
    examination = draw(st.one_of(st.none(), examinations(steps)))
    return replace(draw(st.one_of(st.just(recording), signalled(recording))), examination=examination)


def signalled(recording: Recording) -> st.SearchStrategy[Recording]:
    values = per(len(recording.probes.steps), sizes)

    def some(keys: list[Any], of: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[Any, Any]]:
        return st.dictionaries(st.sampled_from(keys), of) if keys else st.just({})

    def places(*kinds: str) -> list[Site]:
        return [Site(name, kind) for name in modules for kind in kinds]

    probed = [module.name for module in recording.probed]
    activity = {"saturated": values, "zero": values, "units": st.integers(0, 99), "never_active": sizes}
    matrices = st.builds(RecurrentMatrix, st.sampled_from(names), st.just("i"), st.just("tanh"), sizes, sizes)
    return st.builds(
        lambda **given: with_signals(recording, **given),
        input_rms=some(probed, values),
        activations=some(places("relu", "tanh"), st.fixed_dictionaries({**activity, "samples": st.integers(0, 999)})),
        attention=some(places("sdpa", "softmax"), st.tuples(values, values)),
        blocks=some(["a.0", "a.1", "a.2", "b.0"], st.tuples(values, values, values)),
        recurrence=some(places("lstm", "cell"), st.lists(sizes, max_size=6)),
        weights=some(names, st.tuples(sizes, sizes, sizes)),
        recurrent=st.lists(matrices, max_size=2),
        output_variation=values,
        same_class=values,
        classes=values,
        gradient_dot=some(names, values),
        gradient_square=some(names, values),
    )


def examinations(steps: int) -> st.SearchStrategy[Examination]:
    count = st.integers(0, 40)
    scales = st.builds(
        lambda norm, slopes, loss: ScaleCheck(norm, tuple(0.1**i for i in range(len(slopes))), slopes, loss, 1e-7),
        sizes,
        st.lists(numbers, max_size=6).map(tuple),
        numbers,
    )
    samples = st.builds(
        lambda step, rows, shares, agreement: SampleGradients(
            step, (3,) * rows, tuple(range(rows)), (1.0,) * rows, tuple((shares * 40)[:rows]), agreement
        ),
        st.integers(0, max(0, steps - 1)),
        count,
        st.lists(st.floats(-2, 2), min_size=1, max_size=6),
        numbers,
    )
    return st.builds(Examination, st.one_of(st.none(), scales), st.one_of(st.none(), samples))


def is_plain(value: Any) -> bool:
    """Whether a value is of the types that JSON knows, and no subclass: numpy's float64 is a float."""
    if type(value) is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    if type(value) is list:
        return all(is_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)


@settings(deadline=None, max_examples=400, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # shrinking takes long
@given(recording=recordings())
def test_no_recording_breaks_a_rule(recording: Recording) -> None:
    for rule in RULES:  # recordings take longer to make than to judge
        assert_sound(rule, recording)


def assert_sound(rule: Rule, recording: Recording) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcomes = list(rule.check(recording, Limits()))
    for outcome in outcomes:
        assert (outcome.code, outcome.name) == (rule.code, rule.name)
        if isinstance(outcome, Finding):
            assert outcome.message
            assert outcome.hint
            assert outcome.evidence
            assert is_plain(dict(outcome.evidence)), outcome.evidence
            assert isinstance(outcome.severity, Severity)
            assert outcome.step is None or (type(outcome.step) is int and 0 <= outcome.step < recording.steps)
            json.dumps(outcome.evidence)
        else:
            assert outcome.reason


@every_rule
def test_no_recording_at_all_is_judged_in_silence(rule: Rule) -> None:
    """Without a step a rule says that it can't judge, except for those that need none."""
    needs_no_steps = rule.code in {"GC105", "GC106"}
    needs_a_scaler = rule.code == "GC305"
    needs_to_be_asked = rule.code == "GC611"
    outcomes = list(rule.check(make_recording(steps=0), Limits()))
    assert bool(outcomes) is not (needs_no_steps or needs_a_scaler or needs_to_be_asked)
