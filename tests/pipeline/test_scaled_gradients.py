"""Scripts that clip or step while the loss scale is in their gradients: reports give norms without it, and say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradcheck_cli.config import Settings
from gradcheck_cli.drive import script as scripts
from gradcheck_cli.pipeline import profile, recommend_clip
from gradcheck_cli.records import Report
from gradcheck_cli.targets import Script

SCRIPTS = Path(__file__).parents[2] / "sample_models" / "scripts"
SCALE = 1024.0
NAMES = ("clip_before_unscale", "step_bypasses_scaler")


def script(name: str) -> Script:
    return Script(str(SCRIPTS / f"{name}.py"), ("--steps", "12"))


def report_of(command: Callable[..., Any], name: str) -> Report:
    report: Report
    report, error = command(script(name), Settings(to_the_end=True), lambda progress: None)
    assert error is None
    return report


@contextmanager
def norms_noted() -> Iterator[list[float]]:
    """What a backward leaves, in float64, by the gradients of all its leaves."""
    norms: list[float] = []
    original = torch.autograd.backward

    def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
        original(tensors, *args, **kwargs)
        norms.append(sum(float(leaf.grad.double().square().sum()) for leaf in leaves(tensors.grad_fn)) ** 0.5)

    torch.autograd.backward = backward
    try:
        yield norms
    finally:
        torch.autograd.backward = original


def leaves(node: Any) -> set[Any]:
    """The tensors that a graph ends in."""
    ahead, found = [node], set()
    while ahead:
        node = ahead.pop()
        found |= {node.variable} if hasattr(node, "variable") else set()
        ahead += [inner for inner, _ in node.next_functions if inner is not None]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_norms_are_those_of_the_unscaled_gradients(name: str) -> None:
    with norms_noted() as norms:
        scripts.run(script(name))
    report = report_of(profile, name)
    np.testing.assert_allclose(report.series.grad_norm, np.array(norms) / SCALE, rtol=1e-6)
    assert all(layer.grad_rms < 0.1 for layer in report.layers)


@pytest.mark.parametrize("command", [profile, recommend_clip], ids=lambda command: command.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_the_report_says_so(name: str, command: Callable[..., Any]) -> None:
    (note,) = report_of(command, name).run.notes
    assert "loss scale, 1024" in note
    assert "norms are given without it" in note


def test_the_scripts_max_norm_is_judged_as_what_it_acts_as() -> None:
    """Every norm lies between 0.1 and 10: a clip at 1 would not always act, the one at 1 / SCALE does."""
    report = report_of(recommend_clip, "clip_before_unscale")
    assert report.clip is not None
    assert report.clip.judged is not None
    assert report.clip.judged.max_norm == 1 / SCALE
    assert report.clip.judged.effect == "normalises"
    assert ((report.series.grad_norm > 0.1) & (report.series.grad_norm < 10)).all()


def test_the_advice_unscales_first() -> None:
    assert report_of(recommend_clip, "step_bypasses_scaler").run.uses_scaler
