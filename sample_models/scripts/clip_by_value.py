"""Faulty: clipping by value, so low that the gradient points elsewhere."""

from __future__ import annotations

import torch
from script_data import arguments, batches, classifier
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset({"GC509"})


def main() -> None:
    args = arguments(__doc__)
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for pixels, labels in batches(args.steps):
        loss = cross_entropy(model(pixels), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(model.parameters(), 1e-3)
        optimizer.step()


if __name__ == "__main__":
    main()
