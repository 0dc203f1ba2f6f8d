"""Faults in the forward pass or the loss: masks applied too late, and rows in which everything is masked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW

from tests.nan_corpus.corpus import case


@case(phase="loss", op="aten::log", kind="inf", cause="zero-times-inf", samples=(1, 2))
def mask_after_log() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        predicted: Tensor = model(batch["features"]).squeeze(-1)
        error = (predicted - batch["demand"].log()) * batch["observed"]  # origin
        return error.square().mean()

    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 1))
    demand = torch.rand(4, 5) + 0.5
    demand[1, 3] = demand[2, 0] = 0  # a missing day is written as 0
    batch = {"features": torch.randn(4, 5, 3), "demand": demand, "observed": (demand > 0).float()}
    optimizer = Adam(model.parameters(), 1e-3)
    return {"model": model, "dataloader": [batch], "training_step": training_step, "optimizer": optimizer}


@case(phase="loss", op="aten::reciprocal", kind="inf", cause="zero-times-inf", step=1, samples=(0,))
def mask_after_inverse_variance() -> dict[str, Any]:
    class WeightedLoss(nn.Module):
        def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
            value, sigma = target.unbind(-1)
            valid = sigma > 0
            weight = 1 / sigma.square()  # origin
            residual = (predicted.squeeze(-1) - value) * valid
            return (weight * residual.square()).mean()

    model = nn.Linear(3, 1)
    targets = torch.stack([torch.randn(8), torch.rand(8) + 0.5], dim=-1)
    targets[4] = 0  # no measurement
    inputs = torch.randn(8, 3)
    batches = [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]
    return {
        "model": model,
        "dataloader": batches,
        "loss_fn": WeightedLoss(),
        "optimizer": SGD(model.parameters(), 0.01),
    }


@case(phase="forward", op="aten::mul", cause="zero-times-inf", samples=(0, 1))
def additive_mask_from_zero_times_inf() -> dict[str, Any]:
    class Pointer(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            scores = self.query(x[:, :1]) @ self.key(x).transpose(1, 2)
            bias = (1 - mask) * float("-inf")  # origin
            return torch.log_softmax(scores.squeeze(1) + bias, dim=-1)

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return functional.nll_loss(model(batch["nodes"], batch["mask"]), batch["next"])

    model = Pointer(4)
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    batch = {"nodes": torch.randn(2, 3, 4), "mask": mask, "next": torch.tensor([2, 1])}
    optimizer = AdamW(model.parameters(), 1e-3)
    return {"model": model, "dataloader": [batch], "training_step": training_step, "optimizer": optimizer}


@case(phase="forward", op="aten::exp", kind="inf", cause="double-where", samples=(2,))
def softplus_behind_where() -> dict[str, Any]:
    """exp overflows in the branch not taken: the loss is finite, exp's derivative multiplies the Inf by 0."""

    class Softplus(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x > 20, x, torch.log1p(torch.exp(x)))  # origin

    linear = nn.Linear(2, 3, bias=False)
    nn.init.ones_(linear.weight)
    model = nn.Sequential(linear, Softplus(), nn.Linear(3, 1), nn.Flatten(0))
    x = torch.randn(4, 2)
    x[2] = 60
    batches = [(x, torch.randn(4))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.L1Loss(), "optimizer": SGD(model.parameters(), 1e-3)}


@case(phase="forward", op="aten::_softmax", cause="softmax-fully-masked", step=1, samples=(1,))
def pooling_over_empty_sequence() -> dict[str, Any]:
    class AttentionPooling(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.score = nn.Linear(width, 1)

        def forward(self, tokens: Tensor, padding: Tensor) -> Tensor:
            scores = self.score(tokens).squeeze(-1).masked_fill(padding, float("-inf"))
            weights = torch.softmax(scores, dim=-1)  # origin
            return torch.einsum("bt,btc->bc", weights, tokens)

    class SentenceClassifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 4, padding_idx=0)
            self.pool = AttentionPooling(4)
            self.head = nn.Linear(4, 2)

        def forward(self, ids: Tensor) -> Tensor:
            logits: Tensor = self.head(self.pool(self.embed(ids), ids == 0))
            return logits

    model = SentenceClassifier()
    full = torch.tensor([[1, 2, 3], [4, 5, 0], [6, 0, 0]])
    with_empty = torch.tensor([[7, 8, 9], [0, 0, 0], [1, 2, 0]])
    batches = [(ids, torch.tensor([0, 1, 1])) for ids in (full, with_empty)]
    optimizer = Adam(model.parameters(), 1e-3)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@case(phase="forward", op="aten::_softmax", cause="softmax-fully-masked", samples=(2,))
def attention_by_hand_over_padding() -> dict[str, Any]:
    class SelfAttention(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            b, t, c = x.shape
            q, k, v = self.qkv(x).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
            scores = q @ k.transpose(-2, -1) / (c // self.heads) ** 0.5
            visible = torch.arange(t) < lengths.view(b, 1, 1, 1)
            weights = torch.where(visible, scores, float("-inf")).softmax(dim=-1)  # origin
            return torch.add(x, self.out((weights @ v).transpose(1, 2).reshape(b, t, c)))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.attention, self.head = nn.LayerNorm(4), SelfAttention(4, 2), nn.Linear(4, 1)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            return torch.squeeze(self.head(self.attention(self.norm(x), lengths)), -1)

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return functional.mse_loss(model(batch["x"], batch["lengths"]), batch["y"])

    model = Block()
    batch = {"x": torch.randn(4, 3, 4), "lengths": torch.tensor([3, 1, 0, 2]), "y": torch.randn(4, 3)}
    optimizer = AdamW(model.parameters(), 1e-3)
    return {"model": model, "dataloader": [batch], "training_step": training_step, "optimizer": optimizer}


@case(phase="forward", op="aten::_softmax", cause="softmax-fully-masked", samples=(0,), settings={"clip": 1.0})
def multihead_attention_over_padding() -> dict[str, Any]:
    class CrossAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, query: Tensor, memory: Tensor, padding: Tensor) -> Tensor:
            attended, _ = self.attention(query, memory, memory, key_padding_mask=padding)  # origin
            logits: Tensor = self.head(query + attended).mean(1)
            return logits

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = model(batch["query"], batch["memory"], batch["padding"])
        return functional.cross_entropy(logits, batch["label"], label_smoothing=0.1)

    model = CrossAttention()
    batch = {
        "query": torch.randn(3, 2, 4),
        "memory": torch.randn(3, 3, 4),
        "padding": torch.tensor([[True, True, True], [False, False, True], [False, False, False]]),
        "label": torch.tensor([0, 1, 1]),
    }
    optimizer = AdamW(model.parameters(), 1e-3)
    return {"model": model, "dataloader": [batch], "training_step": training_step, "optimizer": optimizer}


@case(phase="loss", op="aten::sub", cause="categorical-fully-masked", step=1, samples=(3,))
def categorical_without_legal_action() -> dict[str, Any]:
    def policy_gradient(policy: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = policy(batch["observation"]).masked_fill(~batch["legal"], float("-inf"))
        actions = Categorical(logits=logits, validate_args=False)  # origin
        log_prob: Tensor = actions.log_prob(batch["action"])  # type: ignore[no-untyped-call]
        return -(log_prob * batch["advantage"]).mean()

    def rollout(legal: Tensor) -> dict[str, Tensor]:
        observation, action = torch.randn(4, 5), torch.tensor([0, 1, 0, 1])
        return {"observation": observation, "legal": legal, "action": action, "advantage": torch.randn(4)}

    policy = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    some = torch.tensor([[True, True, False]]).repeat(4, 1)
    finished = some.clone()
    finished[3] = False  # the episode is over
    batches = [rollout(some), rollout(finished)]
    optimizer = Adam(policy.parameters(), 3e-4)
    return {"model": policy, "dataloader": batches, "training_step": policy_gradient, "optimizer": optimizer}
