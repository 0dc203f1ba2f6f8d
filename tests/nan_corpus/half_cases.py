"""Faults in the forward pass: numbers beyond the range of 16 bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, relu, softmax

from tests.nan_corpus.corpus import case

FP16 = {"precision": "fp16"}
BF16 = {"precision": "bf16"}


@case(phase="forward", op="aten::_to_copy", kind="inf", cause="mask-overflow", samples=(2,), settings=FP16)
def mask_of_1e9_cast_to_half() -> dict[str, Any]:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            scores = self.query(x) @ self.key(x).mT / 2
            scores = scores + (-1e9 * (1 - mask[:, None])).to(scores.dtype)  # origin
            pooled: Tensor = (softmax(scores, -1) @ self.value(x)).mean(1)
            return pooled

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return cross_entropy(model(batch["x"], batch["mask"]).float(), batch["y"])

    model = Attention()
    mask = torch.ones(4, 5)
    mask[1, 3:] = 0
    mask[2] = 0
    batches = [{"x": torch.randn(4, 5, 4), "mask": mask, "y": torch.randint(0, 3, (4,))}]
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adam}


@case(phase="forward", op="aten::masked_fill", kind="finite", cause="mask-overflow", error=True, settings=FP16)
def mask_of_1e9_filled_in_half() -> dict[str, Any]:
    class CausalAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(4, 12)

        def forward(self, x: Tensor) -> Tensor:
            query, key, value = self.qkv(x).chunk(3, -1)
            scores = query @ key.mT / 2
            future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(future, -1e9)  # origin
            context: Tensor = softmax(scores, -1) @ value
            return context

    def training_step(model: nn.Module, x: Tensor) -> Tensor:
        return mse_loss(model(x)[:, :-1].float(), x[:, 1:])

    model = CausalAttention()
    batches = [torch.randn(4, 5, 4) for _ in range(2)]
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adam}


@case(phase="forward", op="aten::add", kind="inf", cause="mask-sum-overflow", samples=(1,), step=1, settings=BF16)
def two_masks_of_the_smallest_number() -> dict[str, Any]:
    def bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor, segments: Tensor) -> Tensor:
            padding = segments == 0
            scores = self.query(x) @ self.key(x).mT / 2
            same_segment = (segments[:, :, None] == segments[:, None]) & ~padding[:, :, None]
            masks = bias(same_segment, scores.dtype) + bias(~padding[:, None], scores.dtype)  # origin
            pooled: Tensor = (softmax(scores + masks, -1) @ self.value(x)).mean(1)
            return pooled

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, segments, y = batch
        return cross_entropy(model(x, segments).float(), y)

    model = Block()
    segments = torch.tensor([[1, 1, 2, 2, 2], [1, 1, 1, 1, 1], [1, 2, 2, 3, 3]])
    batches = [(torch.randn(3, 5, 4), segments.clone(), torch.randint(0, 3, (3,))) for _ in range(2)]
    batches[1][1][1] = 0
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adam}


@case(
    phase="forward",
    op=("aten::mm", "aten::bmm", "aten::matmul"),
    kind="inf",
    cause="half-matmul-overflow",
    samples=(0, 2),
    settings=FP16,
)
def scores_without_scale() -> dict[str, Any]:
    class Matcher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(8, 2)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            scores = left @ right.mT  # origin
            context = softmax(scores, -1) @ right
            logits: Tensor = self.out(context.mean(1) / 100)
            return logits

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return cross_entropy(model(batch["left"], batch["right"]), batch["y"])

    model = Matcher()
    left, right = torch.randn(2, 4, 3, 8)
    left[[0, 2]] = right[[0, 2]] = 200 + torch.rand(2, 3, 8)
    batches = [{"left": left, "right": right, "y": torch.randint(0, 2, (4,))}]
    sgd = torch.optim.SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": sgd}


@case(
    phase="forward", op=("aten::addmm", "aten::linear"), kind="inf", cause="half-matmul-overflow", samples=(3,), step=1
)
def linear_layer_in_half() -> dict[str, Any]:
    class Regressor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(4, 64), nn.Linear(64, 1)
            nn.init.constant_(self.inner.weight, 0.5)
            nn.init.constant_(self.outer.weight, 0.125)

        def forward(self, x: Tensor) -> Tensor:
            hidden = relu(self.inner(x))
            out: Tensor = self.outer(hidden)  # origin
            return out

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return nn.functional.l1_loss(model(x).float(), y)

    model = Regressor().half()
    batches = [(torch.rand(4, 4).half(), torch.rand(4, 1)) for _ in range(2)]
    batches[1][0][3] = 9_000
    sgd = torch.optim.SGD(model.parameters(), 1e-4)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": sgd}


@case(
    phase="forward",
    op=("aten::square", "aten::pow"),
    kind="inf",
    cause="half-square-overflow",
    samples=(1,),
    settings=FP16,
)
def squared_relu_in_half() -> dict[str, Any]:
    class FeedForward(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(4, 8), nn.Linear(8, 4)
            nn.init.constant_(self.inner.weight, 0.5)

        def forward(self, x: Tensor) -> Tensor:
            hidden = relu(self.inner(x)).square()  # origin
            out: Tensor = self.outer(hidden)
            return x + out

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return cross_entropy(model(x), y)

    model = nn.Sequential(FeedForward(), nn.Linear(4, 2))
    x = torch.randn(6, 4)
    x[1] = 900
    batches = [(x, torch.randint(0, 2, (6,)))]
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adam}


@case(phase="forward", op="aten::add", kind="inf", cause="half-residual-overflow", settings=FP16)
def residual_stream_in_half() -> dict[str, Any]:
    class Tower(nn.Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(depth))
            self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 2)
            for block in self.blocks:
                nn.init.eye_(block.get_parameter("weight"))

        def forward(self, x: Tensor) -> Tensor:
            x = x.half()
            for block in self.blocks:
                x = x + block(x)  # origin
            logits: Tensor = self.head(self.norm(x))
            return logits

    model = Tower(depth=20)
    batches = [(torch.randn(4, 4), torch.randint(0, 2, (4,)))]
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": sgd}
