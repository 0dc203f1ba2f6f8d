"""Faults in a derivative: the forward pass is finite. Roots, powers and arcs at the end of their domain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.nan_corpus.corpus import case


@case(phase="backward", op="aten::sqrt", cause="sqrt-at-zero", samples=(2, 5))
def sqrt_of_zero() -> dict[str, Any]:
    class RmsNorm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / (1 + torch.sqrt(x.pow(2).mean(-1, keepdim=True)))  # origin

    model = nn.Sequential(nn.Linear(4, 8, bias=False), RmsNorm(), nn.Linear(8, 2))
    x = torch.randn(8, 4)
    x[[2, 5]] = 0
    batches = [(x, torch.randint(0, 2, (8,)))]
    return {
        "model": model,
        "dataloader": batches,
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), 0.1),
    }


@case(phase="backward", op="aten::sqrt", kind="inf", cause="sqrt-at-zero", samples=(0, 3))
def triplet_norm_by_hand() -> dict[str, Any]:
    def distance(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().sum(dim=-1).sqrt()  # origin

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        anchor, positive, negative = (model(batch[key]) for key in ("anchor", "positive", "negative"))
        return torch.relu(distance(anchor, positive) - distance(anchor, negative) + 4.0).mean()

    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 4))
    batch = {"anchor": torch.randn(6, 6), "positive": torch.randn(6, 6), "negative": torch.randn(6, 6)}
    batch["positive"][[0, 3]] = batch["anchor"][[0, 3]]  # the same picture was drawn twice
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    return {"model": model, "dataloader": [batch], "training_step": training_step, "optimizer": optimizer}


@case(phase="backward", op="aten::sqrt", cause="sqrt-at-zero")
def pairwise_distance_with_itself() -> dict[str, Any]:
    class RelationalLoss(nn.Module):
        def distances(self, embeddings: Tensor) -> Tensor:
            difference = embeddings.unsqueeze(0) - embeddings.unsqueeze(1)
            return (difference**2).sum(-1).sqrt()  # origin

        def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
            pairs = ~torch.eye(len(student), dtype=torch.bool)
            return functional.smooth_l1_loss(self.distances(student)[pairs], self.distances(teacher)[pairs])

    model = nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 3))
    return {
        "model": model,
        "dataloader": [(torch.randn(6, 5), torch.randn(6, 3))],
        "loss_fn": RelationalLoss(),
        "optimizer": torch.optim.AdamW(model.parameters(), 1e-3),
    }


@case(phase="backward", op="aten::sqrt", cause="sqrt-at-zero", step=1, samples=(3,))
def magnitude_of_silence() -> dict[str, Any]:
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.denoise = nn.Conv1d(1, 1, 3, padding=1, bias=False)

        def forward(self, audio: Tensor) -> Tensor:
            spectrum = torch.fft.rfft(self.denoise(audio).squeeze(1) * torch.hann_window(audio.shape[-1]))
            return torch.sqrt(spectrum.real.square() + spectrum.imag.square())  # origin

    model = Spectral()
    loud, quiet = torch.randn(4, 1, 16), torch.randn(4, 1, 16)
    quiet[3] = 0
    batches = [(audio, torch.fft.rfft(audio.squeeze(1)).abs()) for audio in (loud, quiet)]
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    return {"model": model, "dataloader": batches, "loss_fn": nn.L1Loss(), "optimizer": optimizer}


@case(phase="backward", op="aten::pow", kind="inf", cause="power-at-zero", samples=(1, 4))
def square_root_as_power() -> dict[str, Any]:
    class RootSift(nn.Module):
        def __init__(self, bins: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(bins))
            self.head = nn.Linear(bins, 3)

        def forward(self, histogram: Tensor) -> Tensor:
            logits: Tensor = self.head((self.weight * histogram) ** 0.5)  # origin
            return logits

    model = RootSift(6)
    histograms = torch.rand(6, 6) + 0.1
    histograms[1, 2] = histograms[4, 0] = 0
    return {
        "model": model,
        "dataloader": [(histograms, torch.randint(0, 3, (6,)))],
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), 0.01),
    }


@case(phase="backward", op="aten::pow", kind="inf", cause="power-at-zero", samples=(2,))
def generalized_mean_pooling() -> dict[str, Any]:
    class GeM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = nn.Parameter(torch.tensor(3.0))

        def forward(self, x: Tensor) -> Tensor:
            return x.relu().pow(self.p).mean(dim=(-2, -1)).pow(1 / self.p)  # origin

    conv = nn.Conv2d(1, 4, 3, bias=False)
    model = nn.Sequential(conv, GeM(), nn.Linear(4, 2))
    with torch.no_grad():
        conv.weight.abs_()
    images = torch.rand(5, 1, 6, 6)
    images[2] = 0
    return {
        "model": model,
        "dataloader": [{"image": images, "label": torch.tensor([0, 1, 0, 1, 1])}],
        "training_step": lambda net, batch: functional.cross_entropy(net(batch["image"]), batch["label"]),
        "optimizer": torch.optim.SGD(model.parameters(), 0.01, momentum=0.9),
    }


@case(
    phase="backward",
    op="aten::pow",
    kind="inf",
    cause="power-at-zero",
    micro_batch=1,
    samples=(0,),
    settings={"accumulate": 2},
)
def charbonnier_without_epsilon() -> dict[str, Any]:
    def charbonnier(flow: Tensor, target: Tensor) -> Tensor:
        return (flow - target).square().pow(0.45).mean()  # origin

    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False))
    frames, padded = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    targets = torch.randn(3, 2, 4, 4)
    padded[0] = 0
    padded_targets = targets.clone()
    padded_targets[0] = 0
    return {
        "model": model,
        "dataloader": [(frames, targets), (padded, padded_targets)],
        "loss_fn": charbonnier,
        "optimizer": torch.optim.Adam(model.parameters(), 1e-3),
    }


@case(phase="backward", op="aten::acos", kind="inf", cause="acos-at-one", samples=(1, 3))
def rotation_angle_at_identity() -> dict[str, Any]:
    class PoseNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
            self.quaternion = nn.Linear(8, 4)
            nn.init.zeros_(self.quaternion.weight)
            with torch.no_grad():
                self.quaternion.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))

        def forward(self, x: Tensor) -> Tensor:
            return functional.normalize(self.quaternion(self.body(x)), dim=-1)

    def geodesic_loss(predicted: Tensor, target: Tensor) -> Tensor:
        cosine = (predicted * target).sum(-1).abs().clamp(max=1)
        return 2 * torch.acos(cosine).mean()  # origin

    model = PoseNet()
    rotations = functional.normalize(torch.randn(5, 4), dim=-1)
    rotations[[1, 3]] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    return {
        "model": model,
        "dataloader": [(torch.randn(5, 4), rotations)],
        "loss_fn": geodesic_loss,
        "optimizer": optimizer,
    }


@case(phase="backward", op="aten::asin", kind="inf", cause="acos-at-one", samples=(0,), settings={"clip": 1.0})
def elevation_of_the_zenith() -> dict[str, Any]:
    class Elevation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(3))

        def forward(self, position: Tensor) -> Tensor:
            direction = functional.normalize(position * self.gain, dim=-1)
            return torch.asin(direction[..., 2])  # origin

    model = Elevation()
    position = torch.randn(4, 3)
    position[0] = torch.tensor([0.0, 0.0, 1.0])
    return {
        "model": model,
        "dataloader": [(position, torch.zeros(4))],
        "loss_fn": nn.MSELoss(),
        "optimizer": torch.optim.SGD(model.parameters(), 0.01),
    }


@case(phase="backward", op="aten::pow", kind="inf", cause="focal-power-at-zero", samples=(2,))
def focal_loss_below_gamma_one() -> dict[str, Any]:
    class FocalLoss(nn.Module):
        def __init__(self, gamma: float = 0.5) -> None:
            super().__init__()
            self.gamma = gamma

        def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
            cross_entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            p = torch.sigmoid(logits)
            p_true = p * targets + (1 - p) * (1 - targets)
            return (cross_entropy * (1 - p_true) ** self.gamma).mean()  # origin

    linear = nn.Linear(3, 1)
    nn.init.ones_(linear.weight)
    model = nn.Sequential(linear, nn.Flatten(0))
    x = torch.randn(5, 3)
    x[2] = 7
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    batches = [(x, torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0]))]
    return {"model": model, "dataloader": batches, "loss_fn": FocalLoss(), "optimizer": optimizer}
