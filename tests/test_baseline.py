"""The gate: what has not changed passes on any seed and thread count, and what has become worse fails."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from gradcheck_cli import baseline_file, pipeline
from gradcheck_cli.baseline import Baseline, Section
from gradcheck_cli.comparison import Comparison
from gradcheck_cli.config import Settings
from gradcheck_cli.diagnose.baseline.comparing import make_section
from gradcheck_cli.judgement_baseline import compare, set_beside
from gradcheck_cli.records import Report

SEEDS = range(10)
CHANGING = "tests/diagnose/baseline/changing.py:build"
GATE = Settings(baseline="baseline.json", fail_on="warning")


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def kept(report: Report) -> Section:
    """The report as a baseline, as read back from its file."""
    return baseline_file.loads(baseline_file.dumps(Baseline((make_section(report),)))).sections[0]


def compared(report: Report, then: Report, settings: Settings = GATE) -> tuple[int, Comparison]:
    beside = compare(report, kept(then), settings)
    assert beside.comparison is not None
    return beside.exit_code, beside.comparison


def assert_all_pass(reports: list[Report]) -> None:
    """Every run beside the baseline of every other one; and a run beside its own has nothing to tell."""
    sections = [kept(report) for report in reports]
    for report, now in zip(reports, sections, strict=True):
        for then in sections:
            beside = set_beside(report, now, then, GATE)
            assert beside.exit_code == 0, beside.comparison
    _, itself = compared(reports[0], reports[0])
    assert replace(itself, known=()) == Comparison(GATE.baseline or "")


# What has not changed


@pytest.mark.parametrize(
    ("sample", "arguments", "findings", "most_threads"),
    [
        ("digits_cnn", {}, 0, 1),
        ("char_gpt", {"width": 32, "length": 32}, 0, 1),
        ("char_lstm", {"width": 32, "length": 24}, 0, 1),
        ("digits_mlp", {}, 0, 2),
        ("deep_sigmoid_mlp", {}, 3, 1),
        ("unused_head", {}, 1, 1),
    ],
)
def test_a_model_that_has_not_changed_passes_whatever_the_seed(
    sample: str, arguments: dict[str, Any], findings: int, most_threads: int
) -> None:
    reports = []
    for seed in SEEDS:
        with threads(most_threads if seed == 1 else 1):  # two on one busy core take their time
            asked = Settings(steps=30, seed=seed, set=arguments)
            reports.append(pipeline.profile(f"sample_models/{sample}.py:build", asked)[0])
    assert {len(report.diagnosis.findings) for report in reports} == {findings}
    assert_all_pass(reports)


@pytest.mark.parametrize("sample", ["digits_autoencoder", "clip_spiky"])
def test_advice_on_a_model_that_has_not_changed_passes_whatever_the_seed(sample: str) -> None:
    reports = []
    for seed in SEEDS:
        with threads(1):
            asked = Settings(steps=300, seed=seed)
            reports.append(pipeline.recommend_clip(f"sample_models/{sample}.py:build", asked)[0])
    assert sum(report.clip is not None and report.clip.max_norm is not None for report in reports) >= 8
    assert_all_pass(reports)


# What has


@functools.cache
def profiled(seed: int = 0, **arguments: Any) -> Report:
    with threads(1):
        return pipeline.profile(CHANGING, Settings(steps=25, seed=seed, set=arguments))[0]


@pytest.mark.parametrize(
    "before", [{}, {"scale": 1.0, "normed": False}], ids=["with norms", "with He's initialisation"]
)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"cut": True}, {"GC103:side", "GC804:side"}),
        ({"left_out": "layers.2"}, {"GC106:layers.2.linear"}),
        ({"activation": "Sigmoid"}, {"GC801:layers.*.linear", "GC802:layers.*.linear"}),
        ({"normed": False, "scale": 0.0}, {"GC801:layers.*.linear"}),
        ({"normed": False, "scale": 10.0}, {"GC102:layers.*.linear", "GC801:layers.*.linear"}),
        ({"normed": False, "scale": 0.1}, {"GC801:layers.*.linear", "GC802:layers.*.linear"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_what_has_become_worse_fails_and_is_named(
    before: dict[str, Any], change: dict[str, Any], expected: set[str]
) -> None:
    healthy = profiled(**before)
    assert not healthy.diagnosis.findings
    for seed in (0, 1):
        code, comparison = compared(profiled(seed, **{**before, **change}), healthy, Settings(baseline="b.json"))
        assert code == 1
        assert expected <= set(comparison.new)


def test_a_removed_normalisation_is_listed() -> None:
    _, comparison = compared(profiled(normed=False), profiled())
    assert set(comparison.removed) == {f"layers.{number}.norm" for number in range(10)}
    assert (comparison.added, comparison.renamed) == ((), {})


def test_a_renamed_model_passes_and_lists_the_names() -> None:
    code, comparison = compared(profiled(1, renamed=True), profiled())
    assert code == 0
    assert comparison.renamed["side"] == "backbone.shortcut"
    assert comparison.renamed["head"] == "backbone.head"
    assert comparison.renamed["layers.3.linear"] == "backbone.layers.3.linear"
    assert comparison.added == ("extra",)
    assert comparison.removed == ()


def test_findings_of_a_renamed_model_are_known_by_their_old_names() -> None:
    sick = {"left_out": "layers.2"}
    code, comparison = compared(profiled(renamed=True, left_out="backbone.layers.2"), profiled(**sick))
    assert code == 0
    assert set(comparison.known) == {"GC106:backbone.layers.2.linear", "GC106:backbone.layers.2.norm"}
    assert comparison.gone == ()


def test_a_renamed_model_that_became_worse_fails() -> None:
    code, comparison = compared(profiled(renamed=True, left_out="backbone.layers.2"), profiled())
    assert code == 1
    assert "GC106:backbone.layers.2.linear" in comparison.new


@pytest.mark.parametrize(
    "sick", [{"activation": "Sigmoid"}, {"normed": False}, {"cut": True}, {"left_out": "layers.2"}], ids=str
)
def test_a_model_that_became_better_passes_and_is_told_so(sick: dict[str, Any]) -> None:
    before = profiled(**sick)
    code, comparison = compared(profiled(1), before)
    assert code == 0
    assert set(comparison.gone) == {finding.fingerprint for finding in before.diagnosis.findings}
    assert comparison.better or "left_out" in sick  # an optimizer changes what is learnt, not what is measured


def test_what_became_better_is_said_in_words() -> None:
    _, comparison = compared(profiled(), profiled(cut=True))
    assert comparison.better == ("there is a gradient now at side",)
    _, comparison = compared(profiled(), profiled(activation="Sigmoid"))
    assert any(line.startswith("the depth slope of layers.*.linear is") for line in comparison.better)
