"""Faulty: the gradients are removed before every micro-batch, so that only the last one reaches the step."""

from __future__ import annotations

import torch
from script_data import arguments, batches, classifier
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset({"GC505"})


MICRO_BATCHES = 4


def main() -> None:
    args = arguments(__doc__)
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step, (pixels, labels) in enumerate(batches(args.steps * MICRO_BATCHES, batch_size=8), start=1):
        optimizer.zero_grad()
        loss = cross_entropy(model(pixels), labels) / MICRO_BATCHES
        loss.backward()
        if step % MICRO_BATCHES == 0:
            optimizer.step()


if __name__ == "__main__":
    main()
