"""Watch a loop in a session, or record it by recorders that are told what to watch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.observe.session import Session
from gradcheck_cli.observe.watched import Watched
from gradcheck_cli.records import Recording, RunInfo
from tests.observe.session_loops import Made, Trained

Loop = Callable[[Made], Trained]
RUN = RunInfo("loop", "cpu", "fp32", 0)
CALL, ZERO = nn.Module.__call__, (torch.optim.Optimizer.zero_grad, nn.Module.zero_grad)


@dataclass
class Seen:
    trained: Trained
    watched: list[Watched]

    @property
    def recordings(self) -> list[Recording]:
        return [one.recorder.recording(RUN) for one in self.watched if one.recorder.taken]


def nobody(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Is told of what a loop has made."""


def watch(loop: Loop, stepped: Callable[[Watched], None] = lambda one: None) -> Seen:
    torch.manual_seed(0)
    with Session(RecorderSettings(), stepped) as session:
        trained = loop(nobody)
    return Seen(trained, session.watched)


def record(loop: Loop) -> list[Recording]:
    """The same by recorders that are told what to watch."""
    torch.manual_seed(0)
    recorders = []
    with ExitStack() as stack:
        loop(lambda model, optimizer: recorders.append(stack.enter_context(Recorder(model, optimizer))))
    return [recorder.recording(RUN) for recorder in recorders]


def assert_equal(found: Any, expected: Any, names: str) -> None:
    for name in names.split():
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12, err_msg=name)


def state_of(trained: Trained) -> list[Any]:
    """What must not depend on being watched."""
    weights = [tensor for model in trained.models for tensor in model.state_dict().values()]
    states = [optimizer.state_dict()["state"] for optimizer in trained.optimizers]
    return [*weights, *leaves(states), torch.get_rng_state()]


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return leaves(list(value.values()))
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, (list, tuple)) else [value]


def assert_bare(models: Sequence[nn.Module]) -> None:
    modules = [module for model in models for module in model.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in modules)
    assert not any(p._backward_hooks for m in modules for p in m.parameters())
    assert nn.Module.__call__ is CALL
    assert (torch.optim.Optimizer.zero_grad, nn.Module.zero_grad) == ZERO
