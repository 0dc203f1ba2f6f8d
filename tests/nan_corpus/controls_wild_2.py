"""Held out while nan-trace was made: what users do with Inf and NaN and is harmless."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.nan_corpus.corpus import control

Batch = dict[str, Tensor]


def train(model: nn.Module, batches: list[Any], step: Callable[[Any, Any], Tensor], lr: float = 0.01) -> dict[str, Any]:
    """The parts of a run with SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr)
    return {"model": model, "dataloader": batches, "training_step": step, "optimizer": optimizer}


def regress(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The mean squared error."""
    return functional.mse_loss(model(batch[0]), batch[1])


@control()
def batch_skipped_by_its_loss() -> dict[str, Any]:
    """A bad batch gives a loss of 0 that hangs on the parameters, and no NaN is used."""

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        with torch.no_grad():
            trial = functional.mse_loss(model(batch[0]), batch[1])
        if not torch.isfinite(trial):
            return sum((p.sum() * 0.0 for p in model.parameters()), torch.zeros(()))
        return functional.mse_loss(model(batch[0]), batch[1])

    batches = [(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(2)]
    batches[1][0][2, 1] = torch.nan
    return train(nn.Linear(3, 1), batches, training_step)


@control(clip=1.0)
def dropout_of_everything() -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(1.0), nn.LayerNorm(4), nn.AlphaDropout(1.0), nn.Linear(4, 1))
    return train(model, [(torch.randn(4, 3), torch.randn(4, 1))], regress)


@control()
def quantities_logged_as_nan() -> dict[str, Any]:
    """Metrics over classes that are absent, kept beside the loss."""
    history: list[Tensor] = []

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits = model(batch[0])
        per_class = torch.stack([(logits.argmax(1)[batch[1] == k] == k).float().mean() for k in range(4)])
        history.append(per_class.nanmean())
        return functional.cross_entropy(logits, batch[1])

    return train(nn.Linear(3, 4), [(torch.randn(6, 3), torch.randint(0, 3, (6,)))], training_step)


@control()
def product_of_determinants_at_zero() -> dict[str, Any]:
    class Volume(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frame = nn.Linear(4, 4, bias=False)

        def forward(self, x: Tensor) -> Any:
            frames = self.frame(x).view(-1, 2, 2)
            return torch.linalg.det(frames) + torch.linalg.matrix_norm(frames) + torch.linalg.pinv(frames).sum((1, 2))

    x = torch.randn(4, 4)
    x[1] = 0
    return train(Volume(), [(x, torch.rand(4))], regress, 1e-3)


@control(steps=8)
def bias_correction_from_the_first_step() -> dict[str, Any]:
    state: dict[str, Any] = {"average": torch.zeros(()), "step": 0}

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
        loss = regress(model, batch)
        state["step"] += 1
        state["average"] = 0.9 * state["average"] + 0.1 * loss.detach()
        return loss / (state["average"] / (1 - 0.9 ** state["step"]))

    return train(nn.Linear(3, 1), [(torch.randn(4, 3), torch.randn(4, 1))], training_step)


@control(precision="bf16")
def attention_with_the_smallest_number() -> dict[str, Any]:
    def training_step(model: nn.MultiheadAttention, batch: Batch) -> Tensor:
        mask = torch.zeros(3, 3).masked_fill(torch.ones(3, 3).triu(1).bool(), torch.finfo(torch.float32).min)
        mixed: Tensor = model(batch["x"], batch["x"], batch["x"], attn_mask=mask)[0]
        return mixed.float().square().mean()

    return train(nn.MultiheadAttention(4, 2, batch_first=True), [{"x": torch.randn(2, 3, 4)}], training_step)


@control()
def monotonic_alignment_from_a_constant() -> dict[str, Any]:
    """Where two impossible paths meet the slope is NaN, and nothing that is trained stands behind it."""

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        emissions = functional.log_softmax(model(batch[0]), -1)
        alpha = torch.cat((emissions[0, :1], torch.full((2,), -torch.inf)))
        for frame in emissions[1:]:
            alpha = torch.logaddexp(alpha, torch.cat((torch.full((1,), -torch.inf), alpha[:-1]))) + frame
        return -alpha[-1]

    return train(nn.Linear(4, 3), [(torch.randn(5, 4), torch.zeros(1))], training_step)


@control()
def logarithm_behind_relu() -> dict[str, Any]:
    """log of 0 clamped afterwards: its derivative is NaN, which relu's derivative does not let through."""

    class Vote(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores = nn.Linear(3, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return torch.log(torch.relu(self.scores(x)).sum(1)).clamp(min=-100.0)

    x = torch.rand(4, 3)
    x[2] = 0
    return train(Vote(), [(x, torch.zeros(4))], regress, 1e-3)
