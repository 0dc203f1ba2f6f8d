import random
from collections import deque

import torch
import torch.nn as nn

torch.manual_seed(0)
random.seed(0)


class DQN(nn.Module):
    def __init__(s):
        super().__init__()
        s.layer1 = nn.Linear(4, 128)
        s.layer2 = nn.Linear(128, 128)
        s.layer3 = nn.Linear(128, 2)

    def forward(s, x):
        return s.layer3(torch.relu(s.layer2(torch.relu(s.layer1(x)))))


policy_net, target_net = DQN(), DQN()
target_net.load_state_dict(policy_net.state_dict())
optimizer = torch.optim.AdamW(policy_net.parameters(), lr=3e-4, amsgrad=True)
memory = deque(maxlen=2000)


def env(s, a):
    s = s + 0.1 * torch.randn(4) + (0.1 if a else -0.1) * torch.tensor([0, 1.0, 0, 1.0])
    return s, 1.0, bool(s.abs().max() > 2)


def optimize():
    if len(memory) < 128:
        return
    b = random.sample(memory, 128)
    s, a, r, n = map(list, zip(*b))
    mask = torch.tensor([x is not None for x in n])
    q = policy_net(torch.stack(s)).gather(1, torch.tensor(a)[:, None])
    v = torch.zeros(128)
    with torch.no_grad():
        v[mask] = target_net(torch.stack([x for x in n if x is not None])).max(1).values
    loss = nn.SmoothL1Loss()(q, (v * 0.99 + torch.tensor(r))[:, None])
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_value_(policy_net.parameters(), 100)
    optimizer.step()


for ep in range(60):
    s = torch.zeros(4)
    for t in range(20):
        with torch.no_grad():
            a = policy_net(s[None]).argmax().item() if random.random() > 0.3 else random.randrange(2)
        n, r, done = env(s, a)
        memory.append((s, a, r, None if done else n))
        s = n
        optimize()
        td, pd = target_net.state_dict(), policy_net.state_dict()
        for k in pd:
            td[k] = pd[k] * 0.005 + td[k] * 0.995
        target_net.load_state_dict(td)
        if done:
            break
