"""What was made while the entrypoint ran, and where."""

from __future__ import annotations

import copy
import gc

import torch
from torch import nn
from torch.optim.lr_scheduler import ChainedScheduler, LambdaLR, LRScheduler, ReduceLROnPlateau, SequentialLR

from gradcheck_cli.observe.nan.births import Births


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))  # first line
        self.scale = nn.Parameter(torch.zeros(1))  # second line
        self.register_buffer("mask", torch.zeros(1))  # buffer line
        self.inner = nn.Linear(1, 1)  # inner line


def test_lines_of_parameters_buffers_and_optimizers() -> None:
    births = Births()
    with births.noted():
        model = Net()
        optimizer = torch.optim.Adam(model.parameters())  # optimizer line
    named = {"scale": "second line", "mask": "buffer line", "inner.weight": "inner line"}
    for name, mark in named.items():
        frame = births.of_tensor(model, name)
        assert frame is not None
        assert mark in frame.code
    frame = births.of_optimizer(optimizer)
    assert frame is not None
    assert "optimizer line" in frame.code
    assert births.of_tensor(model, "inner.nothing") is None


def test_what_is_made_elsewhere_is_not_noted() -> None:
    births = Births()
    before = Net()
    optimizer = torch.optim.SGD(before.parameters())
    with births.noted():
        pass
    assert births.modules == []
    assert births.optimizers == []
    assert births.of_optimizer(optimizer) is None
    assert births.of_tensor(before, "scale") is None


def test_copies_register_nothing_and_are_noted_all_the_same() -> None:
    """A teacher is often a copy of the student."""
    model = Net()
    births = Births()
    with births.noted():
        teacher = copy.deepcopy(model)
        recurrent = copy.deepcopy(nn.LSTM(1, 1))
    assert {id(m) for m in births.modules} >= {id(teacher), id(teacher.inner), id(recurrent)}
    assert id(model) not in {id(m) for m in births.modules}


def test_schedulers_of_every_kind() -> None:
    births = Births()
    with births.noted():
        optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
        one, other = LambdaLR(optimizer, lambda _: 1.0), LambdaLR(optimizer, lambda _: 1.0)
        sequence = SequentialLR(optimizer, [one, other], [1])
        made: list[LRScheduler] = [one, other, sequence, ChainedScheduler([one]), ReduceLROnPlateau(optimizer)]
    assert births.schedulers == made


def test_what_is_gone_is_not_held() -> None:
    births = Births()
    with births.noted():
        Net(), torch.optim.SGD(nn.Linear(1, 1).parameters())
    gc.collect()
    assert (births.modules, births.optimizers) == ([], [])


def test_torch_is_as_it_was() -> None:
    """Also what conftest's fixture does not look at."""
    kinds = (LRScheduler, ReduceLROnPlateau, SequentialLR, ChainedScheduler)
    before = [nn.Module.__setstate__, *(kind.__init__ for kind in kinds)]
    with Births().noted():
        assert nn.Module.__setstate__ is not before[0]
    assert [nn.Module.__setstate__, *(kind.__init__ for kind in kinds)] == before
