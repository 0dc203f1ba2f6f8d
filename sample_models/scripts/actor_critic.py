"""Sound: actor and critic with an optimizer each, on a two-armed bandit whose better arm depends on what is seen."""

from __future__ import annotations

import torch
from script_data import arguments
from torch import nn
from torch.nn.functional import mse_loss

EXPECTED: frozenset[str] = frozenset()


def main() -> None:
    args = arguments(__doc__)
    actor = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))
    critic = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=1e-2)
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    for _ in range(args.steps):
        seen = torch.randn(64, 4)
        choices = torch.distributions.Categorical(logits=actor(seen))
        arms = choices.sample()
        rewards = (arms == (seen[:, 0] > 0)).float() + 0.1 * torch.randn(64)
        values = critic(seen).squeeze(1)
        advantages = (rewards - values).detach()

        actor_optimizer.zero_grad()
        (-(choices.log_prob(arms) * advantages).mean() - 0.01 * choices.entropy().mean()).backward()
        actor_optimizer.step()
        critic_optimizer.zero_grad()
        mse_loss(values, rewards).backward()
        critic_optimizer.step()


if __name__ == "__main__":
    main()
