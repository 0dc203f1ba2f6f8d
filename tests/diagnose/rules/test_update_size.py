from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gradcheck_cli.diagnose.rules import update_size
from gradcheck_cli.records import Recording, Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording
from tests.diagnose.signals import with_signals

RULE = update_size.check
SHAPES = {"a.weight": (8, 8), "a.bias": (8,), "b.weight": (8, 8), "c.weight": (8, 8)}
WEIGHTS = ("a.weight", "b.weight", "c.weight")
FLAT = [2.3] * 50


def recorded(ratios: Mapping[str, Any], stds: Mapping[str, float] | None = None, **recording: Any) -> Recording:
    """50 steps, seven of them probed; weights of std 0.2 unless said otherwise."""
    fans = {name: ((stds or {}).get(name, 0.2), 8.0, 8.0) for name in WEIGHTS}
    return with_signals(
        make_recording(**{"steps": 50, "parameters": SHAPES, "update_ratio": ratios, **recording}), weights=fans
    )


def alike(ratio: Any) -> dict[str, Any]:
    return dict.fromkeys(WEIGHTS, ratio)


def test_usual_updates_get_nothing() -> None:
    for ratio in (1e-4, 1e-3, 1e-2, 0.08):
        assert silent(RULE, recorded(alike(ratio)))


def test_large_updates_are_a_warning() -> None:
    (found,) = findings(RULE, recorded(alike(0.5)))
    assert found.severity is Severity.WARNING
    assert found.message.startswith("update too large")
    assert found.evidence["median_update_ratio"] == 0.5
    assert "50 times" in found.hint


def test_a_large_first_update_alone_is_a_warning() -> None:
    (found,) = findings(RULE, recorded(alike([0.31] + [0.01] * 6)))
    assert found.step == 0
    assert "warm" in found.hint
    assert silent(RULE, recorded(alike([0.29] + [0.01] * 6)))


def test_a_large_first_update_that_did_no_harm_is_information() -> None:
    ratios = alike([0.39] + [0.01] * 6)
    (found,) = findings(RULE, recorded(ratios, loss=[3.8, 3.5, 3.4, 3.2] + [2.0] * 46))
    assert found.severity is Severity.INFO
    (found,) = findings(RULE, recorded(ratios, loss=[3.8, 3.5, 4.4, 5.2] + [2.0] * 46))
    assert found.severity is Severity.WARNING
    (found,) = findings(RULE, recorded(alike(0.39), loss=[3.8, 3.5, 3.4, 3.2] + [2.0] * 46))
    assert found.severity is Severity.WARNING


def test_the_median_over_the_steps_counts() -> None:
    assert findings(RULE, recorded(alike([0.01] * 3 + [0.11] * 4)))
    assert silent(RULE, recorded(alike([0.01] * 3 + [0.09] * 4)))
    assert silent(RULE, recorded(alike([0.01] * 4 + [9.0] * 3)))


def test_the_median_over_the_weights_counts() -> None:
    assert silent(RULE, recorded({"a.weight": 0.9}))
    assert findings(RULE, recorded({"a.weight": 0.9, "b.weight": 0.9}))


def test_weights_that_begin_at_zero_have_to_grow() -> None:
    assert silent(RULE, recorded(alike(0.9), stds=dict.fromkeys(WEIGHTS, 0.0)))
    assert silent(RULE, recorded({"a.weight": 0.9, "b.weight": 0.9}, stds={"a.weight": 1e-6, "b.weight": 1e-6}))


def test_vectors_do_not_count() -> None:
    assert silent(RULE, recorded({"a.bias": 10.0}))


def test_each_optimizer_group_is_judged() -> None:
    recording = recorded({"c.weight": 0.9})
    infos = [replace(p, group=int(p.name == "c.weight")) for p in recording.parameters]
    (found,) = findings(RULE, replace(recording, parameters=tuple(infos)))
    assert (found.layer, found.evidence["group"]) == ("c", 1)


def test_small_updates_while_the_loss_is_flat() -> None:
    (found,) = findings(RULE, recorded(alike(1e-9), loss=FLAT))
    assert found.severity is Severity.WARNING
    assert found.message.startswith("update too small")
    assert findings(RULE, recorded(alike(0.0), loss=FLAT))
    assert silent(RULE, recorded(alike(1e-9)))  # the loss falls


def test_the_limits_of_small_updates() -> None:
    assert findings(RULE, recorded(alike(9e-8), loss=FLAT))[0].severity is Severity.WARNING
    assert findings(RULE, recorded(alike(2e-7), loss=FLAT))[0].severity is Severity.INFO
    assert silent(RULE, recorded(alike(2e-6), loss=FLAT))


def test_layers_that_lag_behind_are_not_for_this_rule() -> None:
    assert silent(RULE, recorded({"a.weight": 1e-9, "b.weight": 1e-9}, loss=FLAT))


def test_a_warm_up_begins_with_tiny_steps() -> None:
    assert silent(RULE, recorded(alike(1e-9), loss=FLAT, lr=np.linspace(1e-9, 1e-7, 50)))


def test_zero_gradients_are_not_for_this_rule() -> None:
    norms = dict.fromkeys(SHAPES, 0.0)
    assert silent(RULE, recorded(alike(0.0), loss=FLAT, norms=norms))


def test_what_cannot_be_judged() -> None:
    assert reasons(RULE, make_recording())
    assert reasons(RULE, recorded(alike(1.0), has_optimizer=False)) == ["the run has no optimizer"]
    assert reasons(RULE, recorded(alike(0.2), probe_steps=[0, 1]))
    assert reasons(RULE, recorded({name: [float("nan")] * 5 + [0.2] * 2 for name in WEIGHTS}))


def test_one_update_is_enough_for_a_first_step_that_is_too_large() -> None:
    (found,) = findings(RULE, recorded(alike(1.0), probe_steps=[0]))
    assert "on the first step" in found.message


@pytest.mark.parametrize("probe_steps", [[], [0], [0, 1]])
def test_too_few_probed_steps(probe_steps: list[int]) -> None:
    (reason,) = reasons(RULE, recorded(alike(0.2), probe_steps=probe_steps))
    assert reason == f"weights were updated on {len(probe_steps)} probed steps, 3 are needed"
