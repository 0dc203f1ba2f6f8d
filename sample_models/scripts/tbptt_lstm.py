"""Sound: an LSTM trained by truncated backpropagation through time, its state handed on without its graph."""

from __future__ import annotations

import torch
from script_data import arguments
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset()


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 16)
        self.lstm = nn.LSTM(16, 32)
        self.head = nn.Linear(32, 8)

    def forward(self, tokens: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        outputs, state = self.lstm(self.embedding(tokens), state)
        return self.head(outputs), state


def main() -> None:
    args = arguments(__doc__)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    tokens = (torch.arange(16 * args.steps + 1)[:, None] * torch.arange(1, 9)).remainder(8)
    state = torch.zeros(1, 8, 32), torch.zeros(1, 8, 32)
    for start in range(0, 16 * args.steps, 16):
        chunk = tokens[start : start + 17]
        state = state[0].detach(), state[1].detach()
        logits, state = model(chunk[:-1], state)
        loss = cross_entropy(logits.flatten(0, 1), chunk[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


if __name__ == "__main__":
    main()
