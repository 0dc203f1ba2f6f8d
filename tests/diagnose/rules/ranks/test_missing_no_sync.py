from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gradcheck_cli.diagnose.rules.ranks import missing_no_sync
from gradcheck_cli.records import Recording, Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.rules.loop.audits import recorded
from tests.diagnose.rules.ranks.runs import make_ranks, run_of

RULE = missing_no_sync.check


def accumulated(syncs: int, accumulate: int = 4, **different: Any) -> Recording:
    counts = np.full((40, 4), syncs, dtype=np.int64)
    return run_of(make_ranks(syncs=counts, **different), accumulate=accumulate)


def test_a_synchronisation_for_every_micro_batch_is_counted_and_costed() -> None:
    (found,) = findings(RULE, accumulated(4))
    assert found.severity is Severity.WARNING
    assert (found.evidence["superfluous"], found.evidence["synchronisations"]) == (120, 160)
    assert found.evidence["superfluous_seconds_per_step"] == pytest.approx(0.006)
    assert found.evidence["share_of_step"] == pytest.approx(0.6)
    assert "120 of 160" in found.message
    assert "6 ms a step, 60%" in found.message
    assert "no_sync()" in found.hint


def test_the_counterpart_of_fsdp2_is_another() -> None:
    recording = accumulated(4)
    assert recording.ranks
    (found,) = findings(RULE, replace(recording, ranks=replace(recording.ranks, strategy="fsdp2")))
    assert "set_requires_gradient_sync" in found.hint
    assert "no_sync" not in found.hint


def test_one_synchronisation_a_window_is_right() -> None:
    assert silent(RULE, accumulated(1))


def test_without_accumulation_several_have_another_reason() -> None:
    assert silent(RULE, accumulated(2, accumulate=1))


def test_a_few_windows_with_more_are_silent() -> None:
    counts = np.ones((40, 4), dtype=np.int64)
    counts[:20] = 4
    assert silent(RULE, run_of(make_ranks(syncs=counts), accumulate=4))
    counts[20] = 4
    assert findings(RULE, run_of(make_ranks(syncs=counts), accumulate=4))


def test_a_script_s_accumulation_is_known_from_its_loop() -> None:
    script = recorded("zero", "backward", "backward", "step", repeat=9)
    ranks = make_ranks(steps=9, syncs=np.full((9, 4), 2, dtype=np.int64))
    (found,) = findings(RULE, replace(script, ranks=ranks))
    assert found.evidence["micro_batches"] == 2
    assert silent(RULE, replace(recorded("zero", "backward", "step", repeat=9), ranks=ranks))


def test_a_cost_that_is_not_known_is_said_to_be() -> None:
    (found,) = findings(RULE, accumulated(4, sync_seconds=float("nan")))
    assert "was not measured" in found.message
    assert found.evidence["superfluous_seconds_per_step"] is None
    assert found.severity is Severity.WARNING


def test_what_costs_next_to_nothing_is_information() -> None:
    (found,) = findings(RULE, accumulated(4, sync_seconds=1e-5))
    assert found.severity is Severity.INFO


def test_uncounted_synchronisations_are_not_evaluated() -> None:
    (reason,) = reasons(RULE, accumulated(-1))
    assert "not known" in reason
