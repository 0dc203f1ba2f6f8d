"""Faulty: the first validation leaves the model in eval mode, and dropout is off from there on."""

from __future__ import annotations

import torch
from script_data import arguments, batches, classifier, digits
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset({"GC514"})


def main() -> None:
    args = arguments(__doc__)
    model = classifier(dropout=0.2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    pixels, labels = digits()
    for _ in range(4):
        for inputs, targets in batches(args.steps // 4):
            optimizer.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            print(f"loss {cross_entropy(model(pixels), labels):.3f}")


if __name__ == "__main__":
    main()
