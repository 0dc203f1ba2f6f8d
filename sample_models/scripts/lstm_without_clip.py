"""Faulty: an LSTM whose gradient norm spikes where a sequence is a hundred times too loud, and nothing clips it."""

from __future__ import annotations

import torch
from script_data import arguments
from torch import Tensor, nn
from torch.nn.functional import mse_loss

EXPECTED: frozenset[str] = frozenset({"GC515"})


LOUD = 31


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, signal: Tensor) -> Tensor:
        return self.head(self.lstm(signal)[0])


def main() -> None:
    args = arguments(__doc__)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(args.steps):
        signal = torch.sin(torch.arange(33.0)[:, None, None] / 3 + 6 * torch.rand(1, 16, 4))
        signal = signal * (100 if step == LOUD else 1)
        optimizer.zero_grad()
        mse_loss(model(signal[:-1]), signal[1:]).backward()
        optimizer.step()


if __name__ == "__main__":
    main()
