"""Faulty: the scheduler steps before the optimizer does."""

from __future__ import annotations

import torch
from script_data import arguments, batches, classifier
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset({"GC511"})


def main() -> None:
    args = arguments(__doc__)
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    for pixels, labels in batches(args.steps):
        loss = cross_entropy(model(pixels), labels)
        optimizer.zero_grad()
        loss.backward()
        scheduler.step()
        optimizer.step()


if __name__ == "__main__":
    main()
