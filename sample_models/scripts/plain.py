"""Sound: a plain loop with validation between epochs, and a scheduler after the optimizer."""

from __future__ import annotations

import torch
from script_data import arguments, batches, classifier, digits
from torch.nn.functional import cross_entropy

EXPECTED: frozenset[str] = frozenset()


def main() -> None:
    args = arguments(__doc__)
    model = classifier(dropout=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    for epoch in range(2):
        model.train()
        for pixels, labels in batches(args.steps // 2):
            loss = cross_entropy(model(pixels), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        print(f"epoch {epoch}: accuracy {accuracy(model):.3f}")


@torch.no_grad()
def accuracy(model: torch.nn.Module) -> float:
    pixels, labels = digits()
    model.eval()
    return float((model(pixels).argmax(dim=1) == labels).float().mean())


if __name__ == "__main__":
    main()
