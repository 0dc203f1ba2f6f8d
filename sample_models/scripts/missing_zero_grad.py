"""Faulty: nothing removes the gradients between steps."""

from __future__ import annotations

import torch
from script_data import arguments, batches, classifier
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset({"GC504"})


def main() -> None:
    args = arguments(__doc__)
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for pixels, labels in batches(args.steps):
        loss = cross_entropy(model(pixels), labels)
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main()
