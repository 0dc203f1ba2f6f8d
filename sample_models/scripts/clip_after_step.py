"""Faulty: the gradients are clipped after the step has used them."""

from __future__ import annotations

import torch
from script_data import arguments, batches, classifier
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset({"GC501"})


def main() -> None:
    args = arguments(__doc__)
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for pixels, labels in batches(args.steps):
        loss = cross_entropy(model(pixels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)


if __name__ == "__main__":
    main()
