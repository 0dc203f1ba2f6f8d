"""Numbers of another kind: complex ones, halves made by autocast, and Python floats between two tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD

from tests.nan_corpus.corpus import case


@case(phase="forward", op="aten::div", cause="zero-divided-by-zero", samples=(2,))
def complex_phase_of_silence() -> dict[str, Any]:
    class PhaseFeatures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.window = nn.Linear(8, 8, bias=False)
            self.head = nn.Linear(5, 1)

        def forward(self, audio: Tensor) -> Tensor:
            spectrum = torch.fft.rfft(self.window(audio))
            phase = spectrum / spectrum.abs()  # origin
            return torch.squeeze(self.head(phase.real), 1)

    model = PhaseFeatures()
    audio = torch.randn(4, 8)
    audio[2] = 0
    batches = [(audio, torch.randn(4))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": SGD(model.parameters(), 0.1)}


@case(phase="backward", op="aten::sqrt", cause="sqrt-at-zero", samples=(0,))
def complex_root_of_zero() -> dict[str, Any]:
    class RootFilter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(4))

        def forward(self, signal: Tensor) -> Tensor:
            spectrum = torch.fft.fft(signal * self.gain)
            return torch.sqrt(spectrum).abs().sum(1)  # origin

    model = RootFilter()
    signal = torch.randn(3, 4)
    signal[0] = 0
    batches = [(signal, torch.randn(3))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": SGD(model.parameters(), 0.01)}


@case(phase="forward", op=("aten::_to_copy", "aten::to"), kind="inf", cause="fp16-cast-overflow", samples=(3,))
def autocast_overflow_on_the_cast() -> dict[str, Any]:
    """The activations fit float32; autocast makes them half for the second layer."""

    class Regressor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.price = nn.Linear(2, 4)
            self.head = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                hidden = torch.relu(self.price(x))
            with torch.autocast("cpu", torch.float16):
                return torch.squeeze(self.head(hidden.float()), 1)  # origin

    model = Regressor()
    nn.init.constant_(model.price.weight, 1.0)
    x = torch.rand(4, 2)
    x[3] = 1e5
    batches = [(x, torch.rand(4))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.L1Loss(), "optimizer": SGD(model.parameters(), 1e-3)}


@case(
    phase="forward",
    op=("aten::_to_copy", "aten::to"),
    kind="inf",
    cause="fp16-cast-overflow",
    step=1,
    samples=(1,),
    settings={"precision": "fp16"},
)
def half_overflow_on_the_cast() -> dict[str, Any]:
    """An id column of 4e6 goes into a linear layer, which autocast feeds in half precision."""

    class Clicks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(3, 6)
            self.head = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.relu(self.hidden(x))  # origin
            return torch.tanh(self.head(hidden))

    model = Clicks()
    batches = [(torch.randn(4, 3), torch.randint(0, 2, (4,))) for _ in range(2)]
    batches[1][0][1] = 4e6
    optimizer = SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@case(phase="forward", op="aten::exp", kind="inf", cause="exp-overflow", step=1)
def infinite_python_float() -> dict[str, Any]:
    """The Inf leaves the graph as a float and comes back as a factor."""

    class Annealed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            sharpness = x.abs().max().exp().item()  # origin
            return torch.relu(self.score(x)) * sharpness

    model = Annealed()
    batches = [(torch.randn(6, 3), torch.randint(0, 4, (6,))) for _ in range(2)]
    batches[1][0][4, 2] = 93.0
    optimizer = SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@case(phase="forward", op="aten::mean", cause="mean-of-empty", step=1)
def nan_as_python_float() -> dict[str, Any]:
    """The mean of an empty selection goes by `float()` into a plain Python sum."""

    class Balanced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 1)

        def forward(self, x: Tensor, positive: Tensor) -> Tensor:
            rate = float(x[positive].mean())  # origin
            shift = 0.5 * rate + 0.1
            return torch.squeeze(self.head(x - shift), 1)

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, labels = batch
        return functional.binary_cross_entropy_with_logits(model(x, labels > 0), labels)

    model = Balanced()
    batches = [(torch.randn(4, 3), torch.tensor([0.0, 1.0, 1.0, 0.0])), (torch.randn(4, 3), torch.zeros(4))]
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}
