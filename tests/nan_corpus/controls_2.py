"""Inf and NaN that are meant, masked, overwritten or never used: nothing here may be reported."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn import functional
from torch.optim import SGD, Adam

from tests.nan_corpus.corpus import control


@control()
def causal_attention() -> dict[str, Any]:
    """The mask is a buffer of -inf above the diagonal."""

    class Attention(nn.Module):
        mask: Tensor

        def __init__(self, length: int, width: int) -> None:
            super().__init__()
            self.qkv = nn.Linear(width, 3 * width)
            self.register_buffer("mask", torch.full((length, length), float("-inf")).triu(1))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5 + self.mask
            return torch.matmul(torch.softmax(scores, dim=-1), v)

    model = Attention(5, 4)
    x = torch.randn(3, 5, 4)
    return {"model": model, "dataloader": [(x, x)], "loss_fn": nn.MSELoss(), "optimizer": Adam(model.parameters())}


@control()
def fused_attention_with_masked_row() -> dict[str, Any]:
    """Of a row without anything to attend to, the fused kernel makes zeros."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.head = nn.Linear(4, 12), nn.Linear(4, 1)

        def forward(self, x: Tensor, padding: Tensor) -> Tensor:
            q, k, v = self.qkv(x)[:, None].chunk(3, dim=-1)
            allowed = (padding[:, None, :, None] & padding[:, None, None, :]).expand(-1, 1, -1, -1)
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
            return torch.squeeze(self.head(mixed.mean(dim=(1, 2))), 1)

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return functional.mse_loss(model(batch["x"], batch["padding"]), batch["y"])

    model = Attention()
    padding = torch.ones(3, 5, dtype=torch.bool)
    padding[1, 2:] = False
    batches = [{"x": torch.randn(3, 5, 4), "padding": padding, "y": torch.randn(3)}]
    optimizer = Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@control()
def top_k_filtering() -> dict[str, Any]:
    """A mixture of the two best experts: the others' logits are -inf."""

    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.experts = nn.Linear(4, 6), nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            logits = self.gate(x)
            lowest_kept = logits.topk(2, dim=-1).values[:, -1:]
            weights = torch.where(logits < lowest_kept, float("-inf"), logits).softmax(-1)
            return torch.sum(weights * self.experts(x), dim=-1)

    model = Mixture()
    batches = [(torch.randn(6, 4), torch.randn(6))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": Adam(model.parameters())}


@control()
def illegal_moves() -> dict[str, Any]:
    """-inf for moves that are not allowed, through log_softmax, a distribution and its entropy."""

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = model(batch["board"]).masked_fill(~batch["legal"], float("-inf"))
        entropy: Tensor = Categorical(logits=logits).entropy()  # type: ignore[no-untyped-call]
        return functional.cross_entropy(logits, batch["move"]) - 0.01 * entropy.mean()

    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5))
    legal = torch.rand(6, 5) > 0.5
    legal[:, 0] = True
    batches = [{"board": torch.randn(6, 4), "legal": legal, "move": torch.zeros(6, dtype=torch.int64)}]
    optimizer = Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@control()
def maximum_from_minus_infinity() -> dict[str, Any]:
    """-inf is what a maximum begins with."""

    class PointPool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, points: Tensor, owner: Tensor) -> Tensor:
            features = self.fc(points)
            start = torch.full((3, 4), float("-inf"))
            pooled = start.index_reduce(0, owner, features, "amax")
            best = torch.full((4,), float("-inf"))
            for row in features.detach():
                best = torch.maximum(best, row)
            return torch.tanh(self.head(pooled - best))

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return functional.cross_entropy(model(batch["points"], batch["owner"]), batch["label"])

    model = PointPool()
    owner = torch.tensor([0, 0, 1, 1, 1, 2])
    batches = [{"points": torch.randn(6, 3), "owner": owner, "label": torch.tensor([0, 1, 1])}]
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@control()
def smallest_loss_so_far() -> dict[str, Any]:
    """A buffer that is Inf until the first value comes."""

    class Normalized(nn.Module):
        lowest: Tensor
        highest: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)
            self.register_buffer("lowest", torch.full((3,), float("inf")))
            self.register_buffer("highest", torch.full((3,), float("-inf")))

        def forward(self, x: Tensor) -> Tensor:
            self.lowest.copy_(torch.minimum(self.lowest, x.amin(0)))
            torch.maximum(self.highest, x.amax(0), out=self.highest)
            return torch.relu(self.fc((x - self.lowest) / (self.highest - self.lowest)))

    model = Normalized()
    batches = [(torch.randn(6, 3), torch.randint(0, 2, (6,))) for _ in range(2)]
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@control()
def log_of_zero_for_the_record() -> dict[str, Any]:
    """Logs and ratios for a report that nobody differentiates: entropy in bits, perplexity, signal to noise."""

    class Codebook(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 6)
            self.report: dict[str, float] = {}

        def forward(self, x: Tensor) -> Tensor:
            logits = self.fc(x)
            usage = functional.one_hot(logits.argmax(-1), 6).float().mean(0)
            self.report["rarest"] = usage.log().min().item()
            self.report["perplexity"] = torch.exp(1e3 * logits.detach().abs().max()).item()
            self.report["signal to noise"] = float(x.mean() / x.new_zeros(()))
            return torch.tanh(logits)

    model = Codebook()
    batches = [(torch.randn(5, 3), torch.randint(0, 6, (5,)))]
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@control()
def infinity_that_vanishes() -> dict[str, Any]:
    """1/0 and log 0 of the data, made finite by the next function."""

    class Bearing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            features = [torch.atan(x[:, 0] / x[:, 1]), torch.exp(x[:, 1].log()), (1 / x[:, 1]).clamp(max=10)]
            return torch.relu(self.fc(torch.stack(features, dim=1)))

    model = Bearing()
    x = torch.rand(4, 2) + 0.5
    x[1, 1] = 0
    batches = [(x, torch.randint(0, 2, (4,)))]
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}
