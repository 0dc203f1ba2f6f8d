"""Faults around autograd's own machinery: where, custom functions, checkpoints, second derivatives, compilation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam
from torch.utils.checkpoint import checkpoint

from tests.nan_corpus.corpus import case


@case(phase="backward", op="aten::log", cause="double-where", samples=(1, 4))
def log_of_magnitudes_behind_where() -> dict[str, Any]:
    """`where` hides the -inf of the forward pass, but multiplies the slope of log at 0 by 0."""

    class Compressor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Linear(4, 8, bias=False)
            self.decode = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.abs(self.encode(x))
            logs = torch.log(hidden)  # origin
            return torch.tanh(self.decode(torch.where(hidden > 0, logs, 0.0)))

    model = Compressor()
    x = torch.randn(6, 4)
    x[[1, 4]] = 0
    return {"model": model, "dataloader": [(x, x)], "loss_fn": nn.MSELoss(), "optimizer": Adam(model.parameters())}


@case(phase="backward", op="aten::div", cause="double-where", samples=(2,))
def ratio_behind_masked_fill() -> dict[str, Any]:
    class Ratio(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spend = nn.Linear(3, 1, bias=False)
            self.visits = nn.Linear(3, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            spend, visits = self.spend(x), self.visits(x)
            ratio = spend / visits  # origin
            return torch.tanh(ratio.masked_fill(visits == 0, 0.0)).squeeze(1)

    model = Ratio()
    x = torch.rand(4, 3)
    x[2] = 0
    batches = [(x, torch.rand(4))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.L1Loss(), "optimizer": SGD(model.parameters(), 1e-3)}


@case(phase="backward", op=("aten::div", "CubeRoot"), kind="inf", cause="custom-backward", samples=(0,))
def custom_function_backward() -> dict[str, Any]:
    class CubeRoot(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            root = x.sign() * x.abs().pow(1 / 3)
            ctx.save_for_backward(root)
            return root

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            slope: Tensor = 3 * ctx.saved_tensors[0] ** 2
            return gradients[0] / slope  # origin

    class Roots(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(3, 3, bias=False)
            self.head = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            roots: Tensor = CubeRoot.apply(self.mix(x))  # type: ignore[no-untyped-call]
            return torch.squeeze(self.head(roots), 1)

    model = Roots()
    x = torch.randn(3, 3)
    x[0] = 0
    batches = [(x, torch.randn(3))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": SGD(model.parameters(), 1e-3)}


@case(phase="forward", op="aten::log", kind="inf", cause="log-of-zero")
def checkpoint_forward_reentrant() -> dict[str, Any]:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return x + torch.relu(self.fc(x)).log()  # origin

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block = nn.Linear(4, 6), Block()

        def forward(self, x: Tensor) -> Tensor:
            hidden: Tensor = checkpoint(self.block, self.stem(x), use_reentrant=True)
            return hidden.mean(1)

    model = Network()
    batches = [(torch.randn(8, 4), torch.randn(8))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": SGD(model.parameters(), 1e-3)}


@case(phase="forward", op="aten::div", cause="zero-divided-by-zero", step=1, samples=(2,))
def checkpoint_forward() -> dict[str, Any]:
    """The fault is in a function, not a module, that is run again in backward."""

    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.key, self.value = nn.Linear(3, 4), nn.Linear(3, 4)

        def pool(self, x: Tensor, mask: Tensor) -> Tensor:
            weights = torch.sigmoid(self.key(x)).mean(-1) * mask
            weights = weights / weights.sum(1, keepdim=True)  # origin
            return torch.einsum("nt,ntd->nd", weights, self.value(x))

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            pooled: Tensor = checkpoint(self.pool, x, mask, use_reentrant=False)
            return pooled

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return functional.cross_entropy(model(batch["x"], batch["mask"]), batch["label"])

    model = Attend()
    masks = torch.ones(2, 4, 5)
    masks[0, 1, 3:] = 0
    masks[1, 2] = 0
    batches = [{"x": torch.randn(4, 5, 3), "mask": mask, "label": torch.randint(0, 4, (4,))} for mask in masks]
    optimizer = Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="backward", op="aten::sqrt", cause="sqrt-at-zero", samples=(3,))
def checkpoint_backward_reentrant() -> dict[str, Any]:
    class Norm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            length = x.square().sum(-1, keepdim=True).sqrt()  # origin
            return x / (1 + length)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(4, 6, bias=False), nn.Linear(6, 1)
            self.block = nn.Sequential(Norm(), nn.Linear(6, 6), nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            hidden: Tensor = checkpoint(self.block, self.stem(x), use_reentrant=True)
            return torch.squeeze(self.head(hidden), 1)

    model = Network()
    x = torch.randn(6, 4)
    x[3] = 0
    batches = [(x, torch.randn(6))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": SGD(model.parameters(), 0.01)}


@case(phase="backward", op="aten::pow", kind="inf", cause="power-at-zero", samples=(0, 2))
def checkpoint_backward() -> dict[str, Any]:
    class GemPool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift = nn.Linear(3, 5, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            pooled = torch.abs(self.lift(x)).mean(1)
            return pooled.pow(1 / 3)  # origin

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.head = GemPool(), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.head(checkpoint(self.pool, x, use_reentrant=False)))

    model = Network()
    x = torch.randn(4, 6, 3)
    x[[0, 2]] = 0
    batches = [(x, torch.randint(0, 2, (4,)))]
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}
