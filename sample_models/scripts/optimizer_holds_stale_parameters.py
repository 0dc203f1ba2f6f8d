"""Faulty: the head is replaced after the optimizer was made, which goes on holding the old one."""

from __future__ import annotations

import torch
from script_data import arguments, batches, classifier
from torch import nn
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset({"GC513"})


def main() -> None:
    args = arguments(__doc__)
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model[3] = nn.Linear(64, 10)
    for pixels, labels in batches(args.steps):
        loss = cross_entropy(model(pixels), labels)
        model.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main()
