"""Faults inside kernels that torch runs as one operation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, AdamW

from tests.nan_corpus.corpus import case

ATTENTION = (
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_attention_math",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::scaled_dot_product_attention",
)


@case(phase="forward", op=ATTENTION, cause="attention-overflow", samples=(1,))
def attention_logits_overflow() -> dict[str, Any]:
    """Queries and keys of 1e20 give logits beyond float32: softmax of Inf - Inf, inside the kernel."""

    class SelfAttention(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.qkv = nn.Linear(width, 3 * width)
            self.proj = nn.Linear(width, width)

        def forward(self, x: Tensor) -> Tensor:
            batch, length, width = x.shape
            q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(q, k, v)  # origin
            return torch.relu(self.proj(mixed.transpose(1, 2).reshape(batch, length, width)))

    model = SelfAttention(8, 2)
    x = torch.randn(3, 4, 8)
    x[1] *= 1e20
    batches = [(x, torch.rand(3, 4, 8))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.L1Loss(), "optimizer": AdamW(model.parameters())}


@case(phase="backward", op=("aten::mkldnn_rnn_layer", "aten::lstm", "aten::mm"), kind="inf", cause="gradient-overflow")
def lstm_gradient_overflow() -> dict[str, Any]:
    """Times in nanoseconds and a loss scale from another model: their product is beyond float32."""

    class Forecaster(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(2, 4, batch_first=True)
            self.head = nn.Linear(4, 1)
            nn.init.zeros_(self.lstm.weight_ih_l0)  # type: ignore[arg-type]

        def forward(self, series: Tensor) -> Tensor:
            states, _ = self.lstm(series)  # origin
            return torch.squeeze(self.head(states[:, -1]), 1)

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.l1_loss(model(batch[0]), batch[1]) * 2.0**100

    model = Forecaster()
    times = 1.7e18 + 1e9 * torch.arange(6.0)
    batches = [(torch.stack([times, torch.randn(6)], dim=1).expand(4, 6, 2), torch.randn(4))]
    optimizer = SGD(model.parameters(), 1e-9 / 2.0**100)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="parameter", kind="inf", cause="parameter-nonfinite", source="parameter:lstm.weight_hh_l0")
def lstm_with_infinite_weight() -> dict[str, Any]:
    """A checkpoint holds one infinite weight: 0 * Inf inside the kernel, where the state is still 0."""

    class Forecaster(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4)  # origin
            self.head = nn.Linear(4, 1)

        def forward(self, series: Tensor) -> Tensor:
            states, _ = self.lstm(series)
            return torch.squeeze(self.head(states[-1]), 1)

    model = Forecaster()
    checkpoint = model.state_dict()
    checkpoint["lstm.weight_hh_l0"] = checkpoint["lstm.weight_hh_l0"].clone()
    checkpoint["lstm.weight_hh_l0"][5, 1] = float("inf")
    model.load_state_dict(checkpoint)
    batches = [(torch.randn(5, 4, 3), torch.randn(4))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": SGD(model.parameters(), 1e-3)}


@case(phase="forward", op="aten::native_layer_norm", cause="norm-without-eps", samples=(0, 3))
def layer_norm_without_eps() -> dict[str, Any]:
    class Tower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(6, eps=0.0)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.head(self.norm(x)))  # origin

    model = Tower()
    x = torch.randn(5, 6)
    x[[0, 3]] = 1.0
    batches = [(x, torch.randint(0, 3, (5,)))]
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@case(phase="forward", op="aten::native_batch_norm", kind="inf", cause="variance-overflow", step=1)
def batch_norm_variance_overflow() -> dict[str, Any]:
    """The output stays finite, 0, but the running variance is infinite from then on."""

    class Stem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)
            self.head = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.head(self.norm(x)))  # origin

    model = Stem()
    batches = [(torch.randn(6, 3), torch.randint(0, 2, (6,))) for _ in range(3)]
    batches[1][0][:, 2] = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 1e25])
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@case(phase="loss", op="aten::nll_loss_forward", cause="class-weights-zero", step=1)
def class_weights_without_weight() -> dict[str, Any]:
    """A batch of nothing but the class that counts for 0."""

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        weight = torch.tensor([0.0, 1.0, 2.0])
        log_probs = model(batch[0]).log_softmax(-1)
        return functional.nll_loss(log_probs, batch[1], weight)  # origin

    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    batches = [(torch.randn(4, 4), torch.tensor([0, 1, 2, 1])), (torch.randn(4, 4), torch.zeros(4, dtype=torch.int64))]
    optimizer = AdamW(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="loss", op=("aten::_ctc_loss", "aten::_cudnn_ctc_loss"), kind="inf", cause="ctc-target-too-long")
def ctc_repeated_letters() -> dict[str, Any]:
    """Four frames are enough for four letters, but not when two in a row are the same: they need a blank between."""

    class Listener(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(3, 8, batch_first=True)
            self.letters = nn.Linear(8, 5)

        def forward(self, frames: Tensor) -> Tensor:
            states, _ = self.rnn(frames)
            return functional.log_softmax(self.letters(states), dim=-1).transpose(0, 1)

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        log_probs = model(batch["frames"])
        lengths = torch.full((len(batch["words"]),), 4)
        return functional.ctc_loss(log_probs, batch["words"], lengths, lengths, blank=0)  # origin

    model = Listener()
    words = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1], [1, 2, 2, 3]])
    batches = [{"frames": torch.randn(3, 4, 3), "words": words}]
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}
