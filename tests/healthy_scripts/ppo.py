import torch
import torch.nn as nn

torch.manual_seed(0)


class AC(nn.Module):
    def __init__(s):
        super().__init__()
        L = lambda i, o, g: (lambda l: (nn.init.orthogonal_(l.weight, g), nn.init.zeros_(l.bias), l)[2])(
            nn.Linear(i, o)
        )
        s.critic = nn.Sequential(L(4, 64, 2**0.5), nn.Tanh(), L(64, 64, 2**0.5), nn.Tanh(), L(64, 1, 1.0))
        s.actor = nn.Sequential(L(4, 64, 2**0.5), nn.Tanh(), L(64, 64, 2**0.5), nn.Tanh(), L(64, 2, 0.01))

    def go(s, x, a=None):
        d = torch.distributions.Categorical(logits=s.actor(x))
        a = d.sample() if a is None else a
        return a, d.log_prob(a), d.entropy(), s.critic(x).squeeze(1)


m = AC()
opt = torch.optim.Adam(m.parameters(), 2.5e-4, eps=1e-5)
for up in range(8):
    x = torch.randn(512, 4)
    with torch.no_grad():
        a, lp, _, v = m.go(x)
    r = ((a == 1) == (x[:, 0] > 0)).float()
    adv = r - v
    ret = r
    for ep in range(4):
        for i in torch.randperm(512).split(128):
            _, nl, en, nv = m.go(x[i], a[i])
            ratio = (nl - lp[i]).exp()
            A = (adv[i] - adv[i].mean()) / (adv[i].std() + 1e-8)
            loss = (
                torch.max(-A * ratio, -A * ratio.clamp(0.8, 1.2)).mean()
                - 0.01 * en.mean()
                + 0.5 * 0.5 * ((nv - ret[i]) ** 2).mean()
            )
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(m.parameters(), 0.5)
            opt.step()
