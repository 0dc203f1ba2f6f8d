"""Faulty: the optimizer steps after four micro-batches, the scheduler after each."""

from __future__ import annotations

import torch
from script_data import arguments, batches, classifier
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset({"GC511"})


MICRO_BATCHES = 4


def main() -> None:
    args = arguments(__doc__)
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    for step, (pixels, labels) in enumerate(batches(args.steps * MICRO_BATCHES, batch_size=8), start=1):
        (cross_entropy(model(pixels), labels) / MICRO_BATCHES).backward()
        if step % MICRO_BATCHES == 0:
            optimizer.step()
            optimizer.zero_grad()
        scheduler.step()


if __name__ == "__main__":
    main()
