"""A loop with Accelerate, accumulating and clipping. The fault: a distance of 0, whose root has no derivative."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from logbook import Logbook, arguments, gradient_norm, samples
from torch import nn
from torch.utils.data import DataLoader


def main() -> None:
    args = arguments(__doc__)
    set_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    loader = DataLoader(samples(96), batch_size=8, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    log, step = Logbook(), 0
    for _ in range(2):
        total = 0.0
        for inputs, classes in loader:
            with accelerator.accumulate(model):
                outputs = model(inputs)
                is_bad = step == args.bad_step and accelerator.sync_gradients
                targets = outputs.detach() if is_bad else torch.eye(3)[classes]
                loss = (outputs - targets).square().sum(dim=1).sqrt().mean()  # origin
                accelerator.backward(loss)
                total += loss.item() / 2
                if accelerator.sync_gradients:
                    norm = gradient_norm(model)
                    accelerator.clip_grad_norm_(model.parameters(), 1.3)
                    log.note("", total, norm, gradient_norm(model))
                    total, step = 0.0, step + 1
                optimizer.step()
                optimizer.zero_grad()
    log.save(args.out, accelerator.unwrap_model(model))


if __name__ == "__main__":
    main()
