"""Faulty: the mean losses of four micro-batches are added up and not divided by four."""

from __future__ import annotations

import torch
from script_data import arguments, batches, classifier
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset({"GC503"})


MICRO_BATCHES = 4


def main() -> None:
    args = arguments(__doc__)
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03)
    for step, (pixels, labels) in enumerate(batches(args.steps * MICRO_BATCHES, batch_size=8), start=1):
        loss = cross_entropy(model(pixels), labels)
        loss.backward()
        if step % MICRO_BATCHES == 0:
            optimizer.step()
            optimizer.zero_grad()


if __name__ == "__main__":
    main()
