"""Actor and critic, an optimizer each, on a bandit. The fault: rewards that are all equal, divided by their deviation.

Only the actor's gradients are clipped.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from logbook import Logbook, arguments, gradient_norm
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_


class Config(dict[str, Any]):
    __getattr__ = dict.__getitem__


class Agent:
    def __init__(self, lr: float) -> None:
        self.actor = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
        self.critic = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=lr)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=lr)
        self.log = Logbook()

    def update(self, seen: Tensor, arms: Tensor, rewards: Tensor) -> None:
        returns = (rewards - rewards.mean()) / rewards.std()  # origin
        values = self.critic(seen).squeeze(1)
        choices = torch.distributions.Categorical(logits=self.actor(seen))
        advantages = (returns - values).detach()
        actor_loss = -(choices.log_prob(arms) * advantages).mean() - 0.01 * choices.entropy().mean()
        self.actor_optimizer.zero_grad()
        actor_loss.backward()
        norm = gradient_norm(self.actor)
        clip_grad_norm_(self.actor.parameters(), 0.65)
        self.log.note("actor", actor_loss, norm, gradient_norm(self.actor))
        self.actor_optimizer.step()

        critic_loss = mse_loss(values, returns)
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.log.note("critic", critic_loss, gradient_norm(self.critic))
        self.critic_optimizer.step()


def main() -> None:
    args = arguments(__doc__)
    torch.manual_seed(0)
    random.seed(0)
    config = Config(steps=120, lr=1e-2)
    agent = Agent(config.lr)
    for step in range(config.steps):
        seen = torch.randn(32, 4)
        with torch.no_grad():
            arms = torch.distributions.Categorical(logits=agent.actor(seen)).sample()
        rewards = (arms == (seen[:, 0] > 0)).float() + 0.1 * torch.randn(32) + random.gauss(0, 0.1)
        if step == args.bad_step:
            rewards = torch.ones(32)
        agent.update(seen, arms, rewards)
    agent.log.save(args.out, agent.actor, agent.critic)


if __name__ == "__main__":
    main()
