"""Faulty: the loss is scaled, but the optimizer steps on its own."""

from __future__ import annotations

import torch
from script_data import arguments, batches, classifier
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset({"GC506"})


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
        optimizer.step()


if __name__ == "__main__":
    main()
