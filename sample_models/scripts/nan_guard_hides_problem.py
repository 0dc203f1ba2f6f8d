"""Faulty: now and then the loss is NaN, and the script throws such steps away without a word."""

from __future__ import annotations

import torch
from script_data import arguments, batches, classifier
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset({"GC516"})


def main() -> None:
    args = arguments(__doc__)
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step, (pixels, labels) in enumerate(batches(args.steps)):
        if step % 10 == 7:
            pixels[0, 0] = float("nan")
        loss = cross_entropy(model(pixels), labels)
        optimizer.zero_grad()
        loss.backward()
        if torch.isfinite(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)):
            optimizer.step()


if __name__ == "__main__":
    main()
