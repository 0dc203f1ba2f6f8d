"""Ctrl-C during the steps: the first ends the run after the current step, the second at once."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from gradcheck_cli.errors import GradcheckError
from tests.drive.conftest import Run

Profile = Callable[..., Run]

SOURCE = """
    import os, signal
    from tiny import *

    def build():
        calls, ends = [], []
        def step(model, batch):
            calls.append(0)
            for _ in range({signals} if len(calls) == {at} else 0):
                os.kill(os.getpid(), signal.SIGINT)
            return mse(model(batch[0]), batch[1])
        return {{"model": net(), "dataloader": data(), "training_step": step}}
"""


@pytest.mark.parametrize(("signals", "steps"), [(1, 3), (2, 2)])
def test_what_was_recorded_is_reported_as_cut_short(profile_file: Profile, signals: int, steps: int) -> None:
    report, error = profile_file(SOURCE.format(signals=signals, at=3), steps=20)
    assert error is None
    assert len(report.series) == steps
    assert report.run.ended == "interrupted"
    assert report.exit_code == 0


def test_before_the_first_step_there_is_nothing_to_report(profile_file: Profile) -> None:
    with pytest.raises(GradcheckError, match="interrupted before the first step"):
        profile_file(SOURCE.format(signals=2, at=1))


def test_the_handler_of_before_is_back(profile_file: Profile) -> None:
    before = signal.getsignal(signal.SIGINT)
    profile_file(SOURCE.format(signals=1, at=2))
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_the_target_is_imported_is_no_error_of_the_users(profile_file: Profile) -> None:
    with pytest.raises(KeyboardInterrupt):
        profile_file("raise KeyboardInterrupt")
