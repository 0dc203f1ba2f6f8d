"""Which of several ranks' failures is the cause: no processes are needed to tell."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from gradcheck_cli.drive.ranks.group import lost
from gradcheck_cli.drive.ranks.outcomes import Death, Outcome, judge, load, save
from gradcheck_cli.errors import GradcheckError, UserCodeError
from tests.report.reports import clean

GONE = lost(RuntimeError("Connection reset"))
LATE = UserCodeError("backward failed in step 2: RuntimeError: Timed out", "no hint", "gloo/transport/tcp: Timed out")
RAISED = UserCodeError("training failed in step 3: ValueError: no", "look", "File train.py, line 7")


def failed(rank: int, error: GradcheckError, at: float = 0.0) -> Outcome:
    return Outcome(rank, 3, "node", at, error=error)


def complaint(*outcomes: Outcome, death: Death | None = None) -> GradcheckError:
    with pytest.raises(GradcheckError) as caught:
        judge(outcomes, 3, "node", death)
    return caught.value


def test_the_cause_is_told_and_not_what_came_of_it() -> None:
    """Whatever the order of the ranks, and although the others failed first."""
    for a, b, c in permutations(range(3)):
        ranks = sorted((failed(a, GONE, 0), failed(b, LATE, 1), failed(c, RAISED, 2)), key=lambda one: one.rank)
        error = complaint(*ranks)
        assert error.message == f"rank {c} of 3 on node: {RAISED.message}"
        assert (error.hint, error.details) == (RAISED.hint, RAISED.details)


def test_of_several_causes_the_first_is_told() -> None:
    assert complaint(failed(0, RAISED, 2), failed(1, RAISED, 1)).message.startswith("rank 1 of 3")


def test_a_process_that_left_no_word_is_named_with_its_signal() -> None:
    error = complaint(failed(0, GONE), death=Death(1, -9))
    assert error.message == "rank 1 of 3 on node: its process was ended by SIGKILL"
    assert "memory" in error.hint
    assert "exit code 3" in complaint(death=Death(2, 3)).message


def test_a_death_with_a_word_is_no_cause_of_its_own() -> None:
    assert RAISED.message in complaint(failed(1, RAISED), death=Death(1, 2)).message


def test_ranks_that_never_answered_or_too_late_are_named() -> None:
    """A rank that was stopped fails only once it is woken."""
    late = failed(1, GONE, at=9.0)
    for outcomes in ((failed(0, LATE), failed(2, LATE)), (failed(0, LATE), late, failed(2, LATE))):
        error = complaint(*outcomes, death=Death(0, 2))
        assert error.message.startswith("rank 1 of 3 does not answer. rank 0 of 3 on node: backward failed")
        assert "--timeout" in error.hint


def test_if_all_only_lost_each_other_that_is_said() -> None:
    assert "no rank says why" in complaint(*(failed(rank, GONE) for rank in range(3))).message


def test_outcomes_survive_their_files(tmp_path: Path) -> None:
    for rank in (1, 0):
        save(failed(rank, RAISED, at=rank), tmp_path)
    found = load(tmp_path)
    assert [one.rank for one in found] == [0, 1]
    assert (found[0].error.message, found[0].error.details) == (RAISED.message, RAISED.details)  # type: ignore[union-attr]


def test_a_report_of_rank_0_is_kept_with_the_cause() -> None:
    good = clean()
    report, error = judge([Outcome(0, 2, "node", 0, good), failed(1, RAISED)], 2, "node", None)
    assert error is not None
    assert (report.error, report.exit_code, report.series) == (error.message, 2, good.series)
    report, error = judge([Outcome(0, 2, "node", 0, good), Outcome(1, 2, "node", 0)], 2, "node", None)
    assert (report is good, error) == (True, None)
