"""A GAN with two optimizers. The fault: a term for diversity that divides by 0 where both halves are the same."""

from __future__ import annotations

import torch
from logbook import Logbook, arguments, gradient_norm
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as adversarial


def main() -> None:
    args = arguments(__doc__)
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 6))
    discriminator = nn.Sequential(nn.Linear(6, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    ones, zeros = torch.ones(16, 1), torch.zeros(16, 1)
    log = Logbook()
    for step in range(16):
        noise = torch.randn(16, 4)
        if step == args.bad_step:
            noise[8:] = noise[:8]
        images = generator(noise)

        optimizer_d.zero_grad()
        loss_real = adversarial(discriminator(torch.randn(16, 6) + 1), ones)
        loss_real.backward()
        loss_fake = adversarial(discriminator(images.detach()), zeros)
        loss_fake.backward()
        log.note("discriminator", loss_real + loss_fake, gradient_norm(discriminator))
        optimizer_d.step()

        optimizer_g.zero_grad()
        sameness = 1 / (images[:8] - images[8:]).abs().mean()  # origin
        loss_g = adversarial(discriminator(images), ones) + 0.01 * sameness
        loss_g.backward()
        log.note("generator", loss_g, gradient_norm(generator))
        optimizer_g.step()
    log.save(args.out, generator, discriminator)


if __name__ == "__main__":
    main()
