"""The pytest plugin: what a test of the user's sees of it, and that it leaves everything as it was."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gradcheck_cli
from gradcheck_cli.config import Settings
from gradcheck_cli.errors import ConfigError, TargetError
from gradcheck_cli.judgement_baseline import open_gate
from tests.observe.test_neutrality import assert_same

PACKAGE = Path(gradcheck_cli.__file__).parent
BUILDS = """
import torch
from torch import nn

def build(trained=2):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
    batches = [(torch.randn(8, 6), torch.randint(5, (8,))) for _ in range(10)]
    return model, batches, nn.CrossEntropyLoss(), torch.optim.SGD(model[:trained].parameters(), lr=0.1)

def healthy():
    return build(3)

def sick():
    torch.set_default_dtype(torch.float64)  # for the process
    return build(1)
"""


class Net(nn.Module):
    """Buffers, random numbers, a counter: what training changes beside weights."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(8, 5)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(self.body(x))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def loader() -> DataLoader[Any]:
    data = TensorDataset(torch.randn(80, 6), torch.randint(5, (80,)))
    return DataLoader(data, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(1))


def failing_step(model: nn.Module, batch: Any) -> Tensor:
    raise ValueError("out of data")


def root_step(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch[0]) - 9).sqrt().mean()


# Assertions


def test_a_healthy_model_passes_and_gives_its_report(gradcheck: Any, net: Net, loader: DataLoader[Any]) -> None:
    optimizer = torch.optim.Adam(net.parameters())
    report = gradcheck.assert_healthy(net, loader, loss_fn=nn.CrossEntropyLoss(), optimizer=optimizer, steps=7)
    assert gradcheck.report is report
    assert (report.command, len(report.series), report.exit_code) == ("profile", 7, 0)


def test_a_sick_model_fails_with_the_findings(gradcheck: Any, net: Net, loader: DataLoader[Any]) -> None:
    sick: dict[str, Any] = {"loss_fn": nn.CrossEntropyLoss(), "optimizer": torch.optim.SGD(net.body.parameters(), 0.1)}
    with pytest.raises(AssertionError) as raised:
        gradcheck.assert_healthy(net, loader, **sick)
    first, *table = str(raised.value).splitlines()
    assert first == "GC106 parameter-not-optimized"
    assert any("✗ error  GC106" in line for line in table)
    assert "\x1b" not in str(raised.value)
    assert max(map(len, table)) <= 100
    gradcheck.assert_healthy(net, loader, **sick, ignore=["GC106"])
    gradcheck.assert_healthy(net, loader, **sick, select="GC3")
    gradcheck.assert_healthy(net, loader, **sick, fail_on="never")


def test_a_baseline_lets_pass_what_was_there_before(
    gradcheck: Any, net: Net, loader: DataLoader[Any], tmp_path: Path
) -> None:
    loss_fn, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(net.body.parameters(), 0.1)
    path = tmp_path / "baseline.json"
    report = gradcheck.assert_healthy(net, loader, loss_fn=loss_fn, optimizer=optimizer, fail_on="never")
    path.write_text(open_gate("profile", Settings(write_baseline=str(path))).renew(report))
    gradcheck.assert_healthy(net, loader, loss_fn=loss_fn, optimizer=optimizer, baseline=path)
    other = torch.optim.SGD(net.head.parameters(), 0.1)
    with pytest.raises(AssertionError, match="GC106 parameter-not-optimized"):
        gradcheck.assert_healthy(net, loader, loss_fn=loss_fn, optimizer=other, baseline=path)


def test_an_optimizer_may_be_a_name(gradcheck: Any, net: Net, loader: DataLoader[Any]) -> None:
    loss_fn = nn.CrossEntropyLoss()
    report = gradcheck.assert_healthy(net, loader, loss_fn=loss_fn, optimizer="sgd", lr=0.01, steps=3)
    assert (report.run.optimizer, report.series.lr[0, 0]) == ("SGD", 0.01)


def test_a_nan_fails_with_its_line(gradcheck: Any, net: Net, loader: DataLoader[Any]) -> None:
    gradcheck.assert_no_nan(net, loader, loss_fn=nn.CrossEntropyLoss())
    with pytest.raises(AssertionError) as raised:
        gradcheck.assert_no_nan(net, loader, training_step=root_step)
    assert str(raised.value).startswith("GC301 nonfinite-loss\n")
    assert f"test_pytest_plugin.py:{root_step.__code__.co_firstlineno + 1} in root_step" in str(raised.value)


@pytest.mark.parametrize("name", ["assert_healthy", "assert_no_nan"])
def test_an_exception_of_the_users_is_theirs(gradcheck: Any, net: Net, loader: DataLoader[Any], name: str) -> None:
    with pytest.raises(ValueError, match="out of data") as raised:
        getattr(gradcheck, name)(net, loader, training_step=failing_step)
    shown = [entry for entry in raised.traceback if not entry.ishidden(raised)]
    assert [entry.name for entry in shown[1:]] == ["failing_step"]
    assert not any(Path(entry.path).is_relative_to(PACKAGE) for entry in shown)


@pytest.mark.parametrize("name", ["assert_healthy", "assert_no_nan"])
def test_ctrl_c_is_no_passed_test(gradcheck: Any, net: Net, loader: DataLoader[Any], name: str) -> None:
    steps = []

    def step(model: nn.Module, batch: Any) -> Tensor:
        steps.append(batch)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return model(batch[0]).square().mean()

    with pytest.raises(KeyboardInterrupt):
        getattr(gradcheck, name)(net, loader, training_step=step)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ConfigError, "did you mean 'steps'?", lambda g, n: g.assert_healthy(n, [], stpes=3)),
        (ConfigError, "steps must be a whole number", lambda g, n: g.assert_healthy(n, [], steps=0)),
        (TargetError, "the dataloader is empty", lambda g, n: g.assert_healthy(n, [], loss_fn=nn.MSELoss())),
        (TargetError, "returned no dataloader", lambda g, n: g.assert_healthy(n)),
        (TargetError, "there is no file", lambda g, n: g.assert_healthy("absent.py:build")),
    ],
)
def test_what_cannot_be_run_says_why(
    gradcheck: Any, net: Net, error: type[Exception], words: str, call: Callable[[Any, Net], Any]
) -> None:
    with pytest.raises(error) as raised:
        call(gradcheck, net)
    assert words in str(raised.value)


# What stays as it was


def state_of(net: Net, optimizer: Any, scheduler: Any, loader: DataLoader[Any]) -> list[Any]:
    gradients = {name: p.grad if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    moments = {name: {k: torch.as_tensor(v).clone() for k, v in s.items()} for name, s in enumerate_state(optimizer)}
    return [
        weights,
        gradients,
        moments,
        [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups],
        scheduler.state_dict(),
        {name: module.training for name, module in net.named_modules()},
        {name: p.requires_grad for name, p in net.named_parameters()},
        net.calls,
        loader.generator.get_state(),
        [torch.get_rng_state(), str(np.random.get_state()), str(random.getstate())],
    ]


def enumerate_state(optimizer: Any) -> list[tuple[str, Any]]:
    return [(str(key), value) for key, value in optimizer.state_dict()["state"].items()]


@pytest.mark.parametrize("case", ["healthy", "sick", "raises", "nan"])
def test_everything_is_bit_for_bit_as_it_was(gradcheck: Any, net: Net, loader: DataLoader[Any], case: str) -> None:
    optimizer = torch.optim.Adam(net.parameters() if case != "sick" else net.body.parameters())
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer)
    for inputs, targets in list(loader)[:2]:
        nn.functional.cross_entropy(net(inputs), targets).backward()
        optimizer.step()
        scheduler.step()
    net.body.eval()
    before = state_of(net, optimizer, scheduler, loader)
    parameters = [(p, p.data_ptr()) for p in net.parameters()]
    parts: dict[str, Any] = {"loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer, "scheduler": scheduler}
    if case == "healthy":
        gradcheck.assert_healthy(net, loader, **parts)
    elif case == "sick":
        with pytest.raises(AssertionError):
            gradcheck.assert_healthy(net, loader, **parts)
    else:
        step = failing_step if case == "raises" else root_step
        check = gradcheck.assert_healthy if case == "raises" else gradcheck.assert_no_nan
        with pytest.raises((ValueError, AssertionError)):
            check(net, loader, **{**parts, "loss_fn": None}, training_step=step)
    assert_same(state_of(net, optimizer, scheduler, loader), before)
    assert all(p is q and p.data_ptr() == place for (p, place), q in zip(parameters, net.parameters(), strict=True))


def test_a_target_leaves_the_process_as_it_was(gradcheck: Any, tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(BUILDS)
    random_states = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    before = os.getcwd(), list(sys.path), list(sys.argv), torch.get_default_dtype(), "train" in sys.modules
    with pytest.raises(AssertionError, match="GC106"):
        gradcheck.assert_healthy(f"{path}:sick", steps=3)
    assert (os.getcwd(), sys.path, sys.argv, torch.get_default_dtype(), "train" in sys.modules) == before
    assert_same((torch.get_rng_state(), str(np.random.get_state()), random.getstate()), random_states)


# In sessions of pytest


TESTS = """
import pytest
import train

@pytest.mark.gradcheck(target="train.py:healthy", steps=4)
def test_marked(gradcheck):
    assert (gradcheck.report.run.target, len(gradcheck.report.series)) == ("train.py:healthy", 4)

@pytest.mark.gradcheck(target="named")
def test_named(gradcheck):
    assert len(gradcheck.report.series) == 3

class TestMarked:
    @pytest.mark.gradcheck(target="train.py:sick", steps=4)
    def test_sick(self):
        assert False, "its body must not run"

    @pytest.mark.gradcheck(target="train.py:sick", steps=4, ignore=["GC106"])
    def test_ignored(self):
        pass

def test_healthy(gradcheck):
    assert gradcheck.report is None
    gradcheck.assert_healthy(train.healthy(), steps=4)

def test_sick(gradcheck):
    gradcheck.assert_healthy(train.sick(), steps=4)

def test_user(gradcheck):
    def training_step(model, batch):
        raise ValueError("out of data")
    model, batches, _, _ = train.healthy()
    gradcheck.assert_healthy(model, batches, training_step=training_step)
"""


def test_a_session_shows_reports_callers_and_what_was_not_evaluated(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(train=BUILDS, test_train=TESTS)
    (pytester.path / "gradcheck.yaml").write_text("targets: {named: {target: 'train.py:healthy', steps: 3}}\n")
    result = pytester.runpytest_subprocess("-n", "2", "--strict-markers", "-W", "error")
    result.assert_outcomes(passed=4, failed=3)
    result.stdout.fnmatch_lines_random(
        [
            "*_ TestMarked.test_sick _*",
            "gradcheck profile  train.py:sick",
            "E *✗ error  GC106 parameter-not-optimized  2",
            "gradcheck: rules that could not judge, and in how many runs: GC101 (6), *",
            "FAILED test_train.py::TestMarked::test_sick - *GC106 *",
            "FAILED test_train.py::test_sick - AssertionError: GC106 *",
            "FAILED test_train.py::test_user - ValueError: out of data",
        ]
    )
    text = result.stdout.str()
    assert ">       gradcheck.assert_healthy(train.sick(), steps=4)" in text
    assert ">       raise ValueError(" in text
    assert "its body must not run" not in text
    assert str(PACKAGE) not in text


MARKERS = {
    'target="train.py:build", stpes=3': "there is no setting 'stpes'; did you mean 'steps'?",
    'target="train.py:build", output="x.json"': "there is no setting 'output'*",
    'target="train.py:build", steps=0': "steps must be a whole number of at least 1, not 0",
    "steps=3": 'write @pytest.mark.gradcheck(target="train.py:build")',
    '"train.py:build"': 'write @pytest.mark.gradcheck(target="train.py:build")',
}


def test_markers_that_cannot_be_understood_end_the_session(pytester: pytest.Pytester) -> None:
    for number, marker in enumerate(MARKERS):
        source = f"import pytest\n@pytest.mark.gradcheck({marker})\ndef test_it():\n    pass\n"
        pytester.makepyfile(**{f"test_{number}": source})
    result = pytester.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        [f"test_{number}.py::test_it: {words}" for number, words in enumerate(MARKERS.values())]
    )


def test_a_session_that_does_not_use_it_loads_next_to_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import sys\n"
        "def test_modules():\n"
        "    assert 'gradcheck_cli.pytest_plugin' in sys.modules\n"
        "    heavy = {'torch', 'numpy', 'rich', 'yaml', 'gradcheck_cli.pipeline', 'gradcheck_cli.config'}\n"
        "    assert heavy.isdisjoint(sys.modules)\n"
    )
    result = pytester.runpytest_subprocess("-p", "no:hypothesispytest")
    result.assert_outcomes(passed=1)
    assert "gradcheck" not in result.stdout.lines[-1]
