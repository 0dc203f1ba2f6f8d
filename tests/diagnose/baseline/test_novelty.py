"""Which findings are new: not those that another seed could bring about, nor those that are known or accepted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from gradcheck_cli.baseline import AcceptedFinding, LayerMeasure, Measures, RunConditions, Section, SlopeMeasure
from gradcheck_cli.diagnose.baseline.change import Change
from gradcheck_cli.diagnose.baseline.margins import BEYOND, beyond
from gradcheck_cli.diagnose.baseline.matching import match
from gradcheck_cli.diagnose.baseline.novelty import remember, sort_out
from gradcheck_cli.diagnose.diagnosis import ALL_RULES
from gradcheck_cli.records import Finding, Severity

RUN = RunConditions(50, "fp32", 1, True)


def make(code: str, layer: str | None = None, severity: str = "error", **evidence: Any) -> Finding:
    return Finding(code, "a-rule", Severity(severity), "message", "hint", layer, evidence=evidence)


def spike(norm: float) -> Finding:
    return make("GC201", severity="warning", grad_norm=norm, threshold=1.0)


def states(
    now: list[Finding], then: list[Finding], accepted: Mapping[str, str] | None = None, change: Change | None = None
) -> list[str]:
    known = tuple(map(remember, then))
    reasons = tuple(AcceptedFinding(name, reason) for name, reason in (accepted or {}).items())
    section = Section("profile", "", RUN, known, reasons)
    found = sort_out(now, section, change or Change(Measures(), Measures(), match((), ())))
    return [found[finding.fingerprint] for finding in now]


def test_what_was_there_is_known_and_what_was_not_is_new() -> None:
    assert states([make("GC103", "aux"), make("GC103", "head")], [make("GC103", "aux")]) == ["known", "new"]


def test_accepted_findings_need_not_be_in_the_baseline_otherwise() -> None:
    assert states([make("GC103", "aux")], [], {"GC103:aux": "kept for export"}) == ["accepted"]
    assert states([make("GC103", "aux")], [], {"GC103:head": "why not"}) == ["new"]


def test_like_findings_that_name_some_of_the_same_layers_are_one() -> None:
    whole = make("GC604", "blocks.*.attention", modules=["blocks.0.attention", "blocks.1.attention"])
    part = make("GC604", "blocks.0.attention", modules=["blocks.0.attention"])
    other = make("GC604", "decoder.attention", modules=["decoder.attention"])
    assert states([part], [whole]) == states([whole], [part]) == ["known"]
    assert states([part], [whole], {"GC604:blocks.*.attention": "trained like that"}) == ["accepted"]
    assert states([other], [whole]) == ["new"]


@pytest.mark.parametrize(("norm", "state"), [(1.5, "uncertain"), (1.99, "uncertain"), (2.1, "new"), (50.0, "new")])
def test_a_new_finding_near_its_threshold_is_uncertain(norm: float, state: str) -> None:
    assert states([spike(norm)], []) == [state]


@pytest.mark.parametrize(
    ("now", "then", "state"),
    [
        (make("GC103", "a", "error"), make("GC103", "a", "warning"), "new"),
        (make("GC103", "a", "warning"), make("GC103", "a", "error"), "known"),
        (replace(spike(3.0), severity=Severity.ERROR), spike(2.5), "known"),
        (replace(spike(9.0), severity=Severity.ERROR), spike(2.5), "new"),
    ],
)
def test_a_known_finding_that_is_more_severe_counts_where_its_number_is_worse(
    now: Finding, then: Finding, state: str
) -> None:
    assert states([now], [then]) == [state]


def test_the_measure_that_decided_tells_more_than_the_threshold() -> None:
    vanishing = make("GC101", "layers.*", "warning", group="layers.*", depth_slope_decades=3.6, warning_at=3.0)
    for before, state in ((2.9, "uncertain"), (0.5, "new")):
        old, new = (
            Measures(slopes=(SlopeMeasure("layers.*", "Linear", "layers.0", "layers.9", slope, 0.02),))
            for slope in (before, 3.6)
        )
        assert states([vanishing], [], change=Change(old, new, match((), ()))) == [state]


def test_what_follows_from_a_known_finding_is_uncertain_unless_it_is_worse_or_a_shift() -> None:
    cause = replace(make("GC605", "blocks.*"), explains=("GC613:",))
    for code, severity, state in (
        ("GC613", "warning", "uncertain"),
        ("GC104", "error", "uncertain"),
        ("GC801", "error", "new"),
    ):
        effect = replace(make(code, severity=severity), because=(cause.fingerprint,))
        assert states([cause, effect], [cause]) == ["known", state]
        assert states([cause, effect], []) == ["new", "new"]
        assert states([cause, effect], [], {"GC605:blocks.*": "why not"}) == [
            "accepted",
            "new" if state == "new" else "accepted",
        ]
    mild = replace(cause, severity=Severity.WARNING)
    effect = replace(make("GC613"), because=(cause.fingerprint,))
    assert states([mild, effect], [mild]) == ["known", "new"]


def test_names_of_the_baseline_are_translated() -> None:
    def measured(*names: str) -> Measures:
        return Measures(tuple(LayerMeasure(name, "Linear", ((n, n),), 0.0, 0.1, 1, 9) for n, name in enumerate(names)))

    old, new = measured("aux", "head"), measured("net.aux", "net.head")
    change = Change(old, new, match(old.layers, new.layers))
    found = [make("GC103", "net.aux"), make("GC106", "net.head")]
    then = [make("GC103", "aux")]
    assert states(found, then, {"GC106:head": "why not"}, change) == ["known", "accepted"]


def test_codes_with_a_margin_exist() -> None:
    assert set(BEYOND) <= {rule.code for rule in ALL_RULES}


def test_what_is_not_finite_or_has_no_number_is_certain() -> None:
    assert beyond(make("GC103", "a")) is None
    assert beyond(make("GC203", became_nonfinite=True, end=1.0, limit=2.0)) is None
    assert beyond(make("GC102", forward_slope_decades=9.0, forward_error_at=4.0)) == 5.0
    assert beyond(make("GC201")) is None
