"""Sound: accumulation over four micro-batches, fp16 with a GradScaler, and clipping, as in PyTorch's examples."""

from __future__ import annotations

import torch
from script_data import arguments, batches, classifier
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset()


MICRO_BATCHES = 4


def main() -> None:
    args = arguments(__doc__)
    model = classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scaler = torch.amp.GradScaler("cpu")
    for step, (pixels, labels) in enumerate(batches(args.steps * MICRO_BATCHES, batch_size=8), start=1):
        with torch.autocast("cpu", torch.float16):
            loss = cross_entropy(model(pixels), labels) / MICRO_BATCHES
        scaler.scale(loss).backward()
        if step % MICRO_BATCHES == 0:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.3)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()


if __name__ == "__main__":
    main()
