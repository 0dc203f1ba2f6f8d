"""A plain loop, with validation between epochs. The fault: a softmax that saturates, and the logarithm of its 0."""

from __future__ import annotations

import torch
from logbook import Logbook, arguments, gradient_norm, samples
from torch import nn
from torch.utils.data import DataLoader


def main() -> None:
    args = arguments(__doc__)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loader = DataLoader(samples(96), batch_size=16, shuffle=True)
    log, step = Logbook(), 0
    for _ in range(4):
        model.train()
        for inputs, targets in loader:
            sharpness = 1e5 if step == args.bad_step else 1.0
            probabilities = (sharpness * model(inputs)).softmax(dim=1)
            loss = -torch.log(probabilities).gather(1, targets[:, None]).mean()  # origin
            optimizer.zero_grad()
            loss.backward()
            log.note("", loss, gradient_norm(model))
            optimizer.step()
            step += 1
        print(f"accuracy {accuracy(model, loader):.2f}")
    log.save(args.out, model)


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader[tuple[torch.Tensor, ...]]) -> float:
    model.eval()
    return sum(float((model(x).argmax(dim=1) == y).float().mean()) for x, y in loader) / len(loader)


if __name__ == "__main__":
    main()
