"""An entrypoint of a healthy deep network on handwritten digits, and what can go wrong with it one day."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

DEPTH = 10
WIDTH = 32


class Layer(nn.Module):
    def __init__(self, fan_in: int, activation: type[nn.Module], normed: bool, scale: float) -> None:
        super().__init__()
        self.linear = nn.Linear(fan_in, WIDTH)
        self.norm = nn.LayerNorm(WIDTH) if normed else nn.Identity()
        self.activation = activation()
        if scale:
            nn.init.kaiming_normal_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)
            with torch.no_grad():
                self.linear.weight.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.linear(x)))


class Network(nn.Module):
    def __init__(self, layers: list[nn.Module], cut: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.side = nn.Linear(64, 10)
        self.head = nn.Linear(WIDTH, 10)
        self.cut = cut

    def forward(self, x: Tensor) -> Tensor:
        side, hidden = self.side(x), x
        for layer in self.layers:
            hidden = layer(hidden)
        return self.head(hidden) + (side.detach() if self.cut else side)


class Renamed(nn.Module):
    """The same within a module, with another name for one layer and one more of another kind."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.backbone = network
        self.backbone.shortcut = self.backbone.side
        del self.backbone.side
        self.extra = nn.Linear(10, 10)
        nn.init.eye_(self.extra.weight)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x
        for layer in self.backbone.layers:
            hidden = layer(hidden)
        return self.extra(self.backbone.head(hidden) + self.backbone.shortcut(x))


def build(
    scale: float = 0.0,
    activation: str = "ReLU",
    normed: bool = True,
    cut: bool = False,
    left_out: str = "",
    renamed: bool = False,
) -> dict[str, Any]:
    """`scale` times He's initialisation, or torch's own for 0."""
    fans = [64] + [WIDTH] * (DEPTH - 1)
    network = Network([Layer(fan, getattr(nn, activation), normed, scale) for fan in fans], cut)
    model = Renamed(network) if renamed else network
    bunch = load_digits()
    pixels = torch.tensor(bunch.data, dtype=torch.float32)
    data = TensorDataset((pixels - pixels.mean()) / pixels.std(), torch.tensor(bunch.target))
    held = [p for name, p in model.named_parameters() if not (left_out and name.startswith(left_out))]
    return {
        "model": model,
        "dataloader": DataLoader(data, batch_size=32, shuffle=True, drop_last=True),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.AdamW(held, lr=1e-3),
    }
