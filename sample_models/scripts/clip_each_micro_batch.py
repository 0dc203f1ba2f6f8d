"""Faulty: the sum over micro-batches is clipped each time that one is added."""

from __future__ import annotations

import torch
from script_data import arguments, batches, classifier
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset({"GC508"})


MICRO_BATCHES = 4


def main() -> None:
    args = arguments(__doc__)
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step, (pixels, labels) in enumerate(batches(args.steps * MICRO_BATCHES, batch_size=8), start=1):
        (cross_entropy(model(pixels), labels) / MICRO_BATCHES).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        if step % MICRO_BATCHES == 0:
            optimizer.step()
            optimizer.zero_grad()


if __name__ == "__main__":
    main()
