"""Faulty: the gradients are divided by the loss scale by hand, and again by the scaler."""

from __future__ import annotations

import torch
from script_data import arguments, batches, classifier
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset({"GC507"})


def main() -> None:
    args = arguments(__doc__)
    model = classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for pixels, labels in batches(args.steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = cross_entropy(model(pixels), labels)
        scaler.scale(loss).backward()
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad /= scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()


if __name__ == "__main__":
    main()
