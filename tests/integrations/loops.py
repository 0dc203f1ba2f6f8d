"""What is trained in these tests, and the numbers that a loop written by hand gives for it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn import functional

from gradcheck_cli.records import Recording


def run_example(word: str) -> None:
    """Run the one block of code with this word on the page of integrations."""
    page = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")
    (source,) = [text for text in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) if word in text]
    exec(compile(source, "integrations.md", "exec"), {"__name__": "__main__"})


def network() -> nn.Sequential:
    """The same weights every time; dropout, so that random numbers matter."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 5))


def vectors(count: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(8, 6, generator=generator), torch.randint(5, (8,), generator=generator)) for _ in range(count)]


@dataclass
class Numbers:
    """What each step of a loop has, taken down in the loop itself."""

    loss: list[float] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)
    clipped: list[float] = field(default_factory=list)

    def assert_recorded(self, recording: Recording, rtol: float = 1e-6) -> None:
        series = recording.series
        assert len(series) == len(self.loss) > 0
        np.testing.assert_allclose(series.loss, self.loss, rtol=rtol)
        np.testing.assert_allclose(series.grad_norm, self.norm, rtol=rtol)
        np.testing.assert_allclose(series.grad_norm_clipped, self.clipped, rtol=rtol)


def total_norm(parameters: Iterable[Tensor]) -> float:
    """In float64, one parameter after the other."""
    return math.sqrt(sum(float(p.grad.double().square().sum()) for p in parameters if p.grad is not None))


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Any],
    loss_of: Any,
    accumulate: int = 1,
    clip: float | None = None,
    bf16: bool = False,
    scaler: GradScaler | None = None,
) -> Numbers:
    """One pass over the batches."""
    numbers, parameters = Numbers(), list(model.parameters())
    scaler = scaler or GradScaler(enabled=False)
    precision: Any = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()
    for start in range(0, len(batches), accumulate):
        losses = []
        optimizer.zero_grad()
        for batch in batches[start : start + accumulate]:
            with torch.autocast("cpu", torch.float16) if scaler.is_enabled() else precision:
                loss = loss_of(model, batch) / accumulate
            losses.append(float(loss.detach()))
            scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        numbers.loss.append(sum(losses))
        numbers.norm.append(total_norm(parameters))
        if clip:
            nn.utils.clip_grad_norm_(parameters, clip)
        numbers.clipped.append(total_norm(parameters))
        scaler.step(optimizer)
        scaler.update()
    return numbers


def classify(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What must not depend on being watched."""
    return {
        "weights": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }
