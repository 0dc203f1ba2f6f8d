"""An LSTM, its state handed on from chunk to chunk without its graph. The fault: an exponential that overflows."""

from __future__ import annotations

import torch
from logbook import Logbook, arguments, gradient_norm
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

State = tuple[Tensor, Tensor]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm, self.head = nn.Embedding(8, 8), nn.LSTM(8, 16), nn.Linear(16, 8)

    def forward(self, tokens: Tensor, state: State, log_scale: Tensor) -> tuple[Tensor, State]:
        outputs, state = self.lstm(self.embedding(tokens), state)
        scale = log_scale.exp()  # origin
        return self.head(outputs) * scale, state


def main() -> None:
    args = arguments(__doc__)
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    tokens = torch.randint(3, (8 * 16 + 1, 4)).cumsum(dim=0).remainder(8)
    state = torch.zeros(1, 4, 16), torch.zeros(1, 4, 16)
    log = Logbook()
    for step in range(16):
        chunk = tokens[8 * step : 8 * step + 9]
        state = state[0].detach(), state[1].detach()
        logits, state = model(chunk[:-1], state, torch.tensor(100.0 if step == args.bad_step else 0.0))
        loss = cross_entropy(logits.flatten(0, 1), chunk[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        norm = gradient_norm(model)
        nn.utils.clip_grad_norm_(model.parameters(), 0.29)
        log.note("", loss, norm, gradient_norm(model))
        optimizer.step()
    log.save(args.out, model)


if __name__ == "__main__":
    main()
