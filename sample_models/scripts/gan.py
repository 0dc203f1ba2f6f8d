"""Sound: a GAN with two optimizers. The generator's loss leaves gradients in the discriminator, which removes them."""

from __future__ import annotations

import torch
from script_data import arguments, batches
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as adversarial

EXPECTED: frozenset[str] = frozenset()


def main() -> None:
    args = arguments(__doc__)
    generator = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64))
    discriminator = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    real, fake = torch.ones(32, 1), torch.zeros(32, 1)
    for pixels, _ in batches(args.steps):
        images = generator(torch.randn(32, 16))
        discriminator_optimizer.zero_grad()
        adversarial(discriminator(pixels), real).backward()
        adversarial(discriminator(images.detach()), fake).backward()
        discriminator_optimizer.step()

        generator_optimizer.zero_grad()
        adversarial(discriminator(images), real).backward()
        generator_optimizer.step()


if __name__ == "__main__":
    main()
