"""Training under watch is bit-identical to the plain loop, also when a window was run again and found innocent."""

from __future__ import annotations

import copy
import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, RandomSampler

from gradcheck_cli.drive.workload import Workload, make_workload
from gradcheck_cli.observe.nan import watch
from gradcheck_cli.tracing import run
from tests.observe.test_neutrality import assert_same
from tests.observe.workloads import WORKLOADS, Mixed, Tied, images, language, next_token_loss, tokens, vectors
from tests.tracing.hunts import hunt, seed, train

Make = Callable[[], Workload]

MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "fp16 with a scaler": {"precision": "fp16"},
    "accumulation": {"accumulate": 4},
    "clipping": {"max_norm": 0.5},
    "everything": {"precision": "fp16", "accumulate": 3, "max_norm": 0.1},
}


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that seven steps are three windows."""
    monkeypatch.setattr(watch, "WINDOW", 3)


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many steps each window had that was run again."""
    lengths: list[int] = []
    locate = run.locate

    def counting(session: Any, steps: Any, start: Any) -> Any:
        lengths.append(len(steps))
        return locate(session, steps, start)

    monkeypatch.setattr(run, "locate", counting)
    return lengths


def randomness() -> Any:
    """The states of all generators, and what they give next: NumPy keeps every second normal number."""
    states = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    return states, np.random.randn(), random.gauss(0, 1)


def state_of(workload: Workload, scaler: Any) -> dict[str, Any]:
    """All that training changes."""
    return {
        "weights": workload.model.state_dict(),
        "gradients": {name: p.grad for name, p in workload.model.named_parameters()},
        "optimizer": workload.optimizer.state_dict(),
        "scheduler": workload.scheduler.state_dict() if workload.scheduler else None,
        "scaler": scaler.state_dict(),
        "random": randomness(),
        "more": [value() for value in getattr(workload.model, "more", [])],
    }


def assert_neutral(make: Make, **mode: Any) -> None:
    seed()
    torch._dynamo.reset() if make is WORKLOADS["compiled"] else None
    bare = state_of(*train(make, **mode))
    seed()
    torch._dynamo.reset() if make is WORKLOADS["compiled"] else None
    ending, session, hunted = hunt(make, **mode)
    assert ending.error is None
    assert ending.trace.clean
    assert len(hunted.watch.history) == 7
    assert_same(bare, state_of(session.workload, session.scaler))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", WORKLOADS)
def test_bit_identical(name: str, mode: str) -> None:
    if name == "complex" and "fp16" in MODES[mode].get("precision", ""):
        pytest.skip("torch has no GradScaler for complex gradients")
    if name == "tied" and MODES[mode].get("precision") == "fp16":
        pytest.skip("torch has no LSTM in fp16 on the CPU")
    if name == "compiled" and mode not in ("fp32", "accumulation"):
        pytest.skip("compiling takes seconds; two modes show it")
    if name == "sparse" and MODES[mode].get("max_norm"):
        pytest.skip("torch cannot clip sparse gradients")
    assert_neutral(WORKLOADS[name], **MODES[mode])


# What draws random numbers


class Augmented(Dataset[Any]):
    """Draws from every generator for each sample."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        noise = torch.rand(6) + np.random.randn() + random.random()
        return noise.float(), index % 5


def random_loader(workers: int = 0) -> DataLoader[Any]:
    data = Augmented()
    return DataLoader(data, batch_size=8, sampler=RandomSampler(data), num_workers=workers)


def drawing_step(model: nn.Module, batch: Any) -> Tensor:
    noise = torch.randn(6) * np.random.randn() * random.gauss(0, 1) * 0.01
    return functional.cross_entropy(model(batch[0] + noise.float()), batch[1])


def drawing() -> Workload:
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 5))
    optimizer = torch.optim.Adam(model.parameters())
    return make_workload(
        {"model": model, "dataloader": random_loader(), "training_step": drawing_step, "optimizer": optimizer}
    )


@pytest.mark.parametrize("mode", ["fp32", "everything"])
def test_loaders_and_steps_that_draw_random_numbers(mode: str) -> None:
    assert_neutral(drawing, **MODES[mode])


# Windows that are run again and found innocent


def loud(make: Make) -> Make:
    """The same with a loss so large that the norms of its finite gradients overflow in float32."""

    def made() -> Workload:
        workload = make()
        step = workload.training_step
        for group in workload.optimizer.param_groups:
            group["lr"] = 1e-30
        return make_workload(
            {
                "model": workload.model,
                "dataloader": workload.dataloader,
                "training_step": lambda model, batch: step(model, batch) * 1e25,
                "optimizer": workload.optimizer,
                "scheduler": workload.scheduler,
                "loss_fn": workload.loss_fn,
            }
        )

    return made


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", ["mixed", "tied", "switching", "checkpoint", "parametrized", "sgd", "drawing"])
def test_gradients_whose_norm_overflows(name: str, accumulate: int, examined: list[int]) -> None:
    assert_neutral(loud({**WORKLOADS, "drawing": drawing}[name]), accumulate=accumulate)
    assert examined == [3]  # from then on every element is looked at


@pytest.mark.parametrize("accumulate", [1, 2])
def test_steps_that_the_scaler_skips(accumulate: int, examined: list[int]) -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        return functional.cross_entropy(model(batch[0]), batch[1]) * 100

    def make() -> Workload:
        model = Mixed()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        return make_workload({"model": model, "dataloader": images(), "training_step": step, "optimizer": optimizer})

    assert_neutral(make, precision="fp16", accumulate=accumulate)
    assert examined[0] == 3


class Stateful(nn.Module):
    """Everything that a step may change besides parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.rnn, self.out = nn.Embedding(11, 6), nn.LSTM(6, 6, batch_first=True), nn.Linear(6, 11)
        self.register_buffer("seen", torch.zeros(11))
        self.register_buffer("expanded", torch.zeros(1).expand(4))
        self.hidden: Any = None
        self.recent: deque[float] = deque(maxlen=4)
        self.counts: dict[str, Any] = {"calls": 0, "rows": []}
        self.scale = np.ones(2)
        self.losses = [0.0] * 100
        self.more: list[Callable[[], Any]] = [
            lambda: [part.detach() for part in self.hidden],
            lambda: (list(self.recent), self.counts, self.scale.tolist(), self.losses, self.lazy),
        ]

    def forward(self, numbers: Tensor) -> Tensor:
        if not hasattr(self, "lazy"):
            self.lazy = torch.rand(())
        self.lazy = self.lazy * 0.9
        self.counts["calls"] += 1
        self.counts["rows"].append(len(numbers))
        self.scale += 0.5
        self.seen = self.seen + torch.bincount(numbers.flatten(), minlength=11)
        self.expanded = self.expanded + 1
        state = None if self.hidden is None else tuple(part.detach() for part in self.hidden)
        mixed, self.hidden = self.rnn(self.embedding(numbers) * self.lazy + self.expanded.mean(), state)
        self.recent.append(float(mixed.detach().mean()))
        self.losses.append(float(self.scale.sum()))
        return self.out(mixed)


def stateful() -> Workload:
    """A step that keeps a teacher, a second optimizer and its schedule to itself."""
    model = Stateful()
    teacher = copy.deepcopy(nn.Linear(6, 6))
    critic = nn.Linear(11, 1)
    second = torch.optim.Adam(critic.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(second, patience=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def step(model: nn.Module, batch: Tensor) -> Tensor:
        second.zero_grad()
        judged = critic(functional.one_hot(batch, 11).float()).square().mean()
        judged.backward()
        second.step()
        schedule.step(1.0)
        with torch.no_grad():
            for one, other in zip(teacher.parameters(), model.rnn.parameters(), strict=False):  # type: ignore[union-attr]
                one.mul_(0.9).add_(other.flatten()[: one.numel()].view_as(one) if other.numel() >= one.numel() else 0)
        model.out.weight.data = model.out.weight.data.clamp(-1, 1)  # type: ignore[union-attr]
        return next_token_loss(model, batch) + teacher(torch.ones(6)).sum().detach()

    model.more.append(lambda: [*critic.parameters(), *teacher.parameters(), schedule.state_dict(), second.state_dict()])
    return make_workload(
        {"model": model, "dataloader": tokens(), "training_step": step, "optimizer": optimizer, "scheduler": None}
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_state_besides_the_parameters(accumulate: int, examined: list[int]) -> None:
    assert_neutral(stateful, accumulate=accumulate)
    assert examined == []
    assert_neutral(loud(stateful), accumulate=accumulate)
    assert examined == [3]


def test_layers_that_thaw_and_groups_that_are_added(examined: list[int]) -> None:
    """A replay begins before the layer was thawed."""

    def make() -> Workload:
        model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(), nn.Linear(6, 5))
        model[0].requires_grad_(False)
        optimizer = torch.optim.Adam(model[2].parameters(), lr=1e-3)
        model.calls = 0  # type: ignore[assignment]

        def step(model: nn.Module, batch: Any) -> Tensor:
            model.calls += 1  # type: ignore[operator]
            if model.calls == 2:
                model[0].requires_grad_(True)  # type: ignore[operator]
                optimizer.add_param_group({"params": model[0].parameters(), "lr": 1e-4})  # type: ignore[operator]
            return functional.cross_entropy(model(batch[0]), batch[1])

        return make_workload({"model": model, "dataloader": vectors(), "training_step": step, "optimizer": optimizer})

    assert_neutral(loud(make))
    assert examined == [3]


def test_what_a_step_keeps_in_its_closure(examined: list[int]) -> None:
    """Counters, iterators and generators of its own go on where they were, whatever was run again."""

    def make() -> Workload:
        calls, turns, own = 0, itertools.cycle([1.0, 2.0, 3.0]), torch.Generator().manual_seed(3)
        numbers, average = np.random.default_rng(3), torch.zeros(())

        def step(model: nn.Module, batch: Any) -> Tensor:
            nonlocal calls, average
            calls += 1
            average = average * 0.9 + calls
            noise = torch.rand((), generator=own) + numbers.normal()
            return functional.cross_entropy(model(batch[0] + noise), batch[1]) * (next(turns) + average)

        model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.1))
        vars(model)["more"] = [lambda: (calls, average, next(turns), own.get_state(), numbers.normal())]
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-30)
        return make_workload({"model": model, "dataloader": vectors(), "training_step": step, "optimizer": optimizer})

    assert_neutral(loud(make))
    assert examined == [3]


def test_the_batches_stay_the_users_own() -> None:
    """Changed in place by the step, they are changed in the user's list, too, as without a watch."""

    def step(model: nn.Module, batch: Any) -> Tensor:
        batch[0].mul_(1.1)
        return functional.cross_entropy(model(batch[0]), batch[1])

    def make() -> Workload:
        model = nn.Linear(6, 5)
        return make_workload(
            {
                "model": model,
                "dataloader": vectors(3),
                "training_step": step,
                "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
            }
        )

    assert_neutral(make)
    plain, _ = train(make)
    _, session, _ = hunt(make)
    assert_same([list(batch) for batch in plain.dataloader], [list(batch) for batch in session.workload.dataloader])


def test_a_recurrent_network_on_the_way_through_a_snapshot() -> None:
    """Tied weights and the LSTM's list of them stay the same tensors."""
    _, session, _ = hunt(lambda: language(Tied()))
    model: Any = session.workload.model
    before = [id(p) for p in (*model.parameters(), *model.rnn._flat_weights)]
    session.snapshot().restore()
    assert [id(p) for p in (*model.parameters(), *model.rnn._flat_weights)] == before
    assert model.out.weight is model.embedding.weight
