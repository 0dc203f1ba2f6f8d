"""What cannot be asked of ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Gradcheck, assert_refused

LAUNCHED = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.mark.parametrize("command", ["profile", "recommend-clip", "nan-trace"])
def test_a_script_starts_its_own_ranks(gradcheck: Gradcheck, folder: Path, command: str) -> None:
    (folder / "train.py").write_text("raise SystemExit('it must not run')")
    assert_refused(gradcheck(command, "train.py", "--nproc", "2"), "train.py", "--nproc", "torchrun")
    assert_refused(gradcheck(command, "train.py", "--strategy", "ddp"), "--strategy", "train.py:build")


def test_a_launcher_has_started_the_ranks(gradcheck: Gradcheck, environment: dict[str, str], folder: Path) -> None:
    environment.update(LAUNCHED)
    assert_refused(gradcheck("profile", "healthy.py:build", "--nproc", "2"), "--nproc", "launcher")
    (folder / "gradcheck.yaml").write_text("targets: {healthy: 'healthy.py:build'}\n")
    assert_refused(gradcheck("profile", "--all"), "one target together", "--nproc")


def test_nothing_is_run_for_a_list_of_norms(gradcheck: Gradcheck, folder: Path) -> None:
    (folder / "norms.csv").write_text("norm\n1\n2\n")
    for flag, value in (("--nproc", "2"), ("--strategy", "none")):
        assert_refused(gradcheck("recommend-clip", "--norms", "norms.csv", flag, value), flag, "norms.csv")


@pytest.mark.parametrize(("flag", "value"), [("--nproc", "0"), ("--strategy", "fsdp1"), ("--timeout", "0")])
def test_values_out_of_range_are_refused(gradcheck: Gradcheck, flag: str, value: str) -> None:
    assert_refused(gradcheck("profile", "healthy.py:build", flag, value), flag)
