"""Two micro-batches a step, fp16 under a GradScaler, and clipping. The fault: a batch too large for fp16's squares."""

from __future__ import annotations

import torch
from logbook import Logbook, arguments, gradient_norm, samples
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

MICRO_BATCHES = 2


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.hidden(inputs)
        gated = hidden * hidden  # origin
        return self.head(gated)


def main() -> None:
    args = arguments(__doc__)
    torch.manual_seed(0)
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu")
    log, total = Logbook(), 0.0
    for number, (inputs, targets) in enumerate(DataLoader(samples(256), batch_size=8)):
        step, micro_batch = divmod(number, MICRO_BATCHES)
        if step == args.bad_step and micro_batch == 1:
            inputs = inputs * 1e4
        with torch.autocast("cpu", torch.float16):
            loss = cross_entropy(model(inputs), targets) / MICRO_BATCHES
        scaler.scale(loss).backward()
        total += loss.item()
        if micro_batch == MICRO_BATCHES - 1:
            scaler.unscale_(optimizer)
            norm = gradient_norm(model)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.75)
            log.note("", total, norm, gradient_norm(model))
            total = 0.0
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    log.save(args.out, model)


if __name__ == "__main__":
    main()
