"""Faulty: eleven batches an epoch, steps after four of them, and the last three are thrown away."""

from __future__ import annotations

import torch
from script_data import arguments, batches, classifier
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset({"GC512"})


MICRO_BATCHES = 4


def main() -> None:
    args = arguments(__doc__)
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(args.steps // 2):
        optimizer.zero_grad()
        for step, (pixels, labels) in enumerate(batches(11, batch_size=8), start=1):
            (cross_entropy(model(pixels), labels) / MICRO_BATCHES).backward()
            if step % MICRO_BATCHES == 0:
                optimizer.step()
                optimizer.zero_grad()


if __name__ == "__main__":
    main()
