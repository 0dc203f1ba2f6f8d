import copy

import torch
import torch.nn as nn

torch.manual_seed(0)
mlp = lambda i, o: nn.Sequential(nn.Linear(i, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, o))
actor = mlp(3, 2)
q1, q2 = mlp(4, 1), mlp(4, 1)
t1, t2 = copy.deepcopy(q1), copy.deepcopy(q2)
log_alpha = torch.zeros(1, requires_grad=True)
oa = torch.optim.Adam(actor.parameters(), 3e-4)
oq = torch.optim.Adam([*q1.parameters(), *q2.parameters()], 3e-4)
ol = torch.optim.Adam([log_alpha], 3e-4)


def act(s):
    m, ls = actor(s).chunk(2, 1)
    d = torch.distributions.Normal(m, ls.clamp(-5, 2).exp())
    u = d.rsample()
    a = torch.tanh(u)
    return a, (d.log_prob(u) - torch.log(1 - a**2 + 1e-6)).sum(1, keepdim=True)


for step in range(150):
    s = torch.randn(64, 3)
    a = torch.rand(64, 1) * 2 - 1
    r = -((s[:, :1] - a) ** 2)
    n = torch.randn(64, 3)
    with torch.no_grad():
        na, lp = act(n)
        y = r + 0.99 * (torch.min(t1(torch.cat([n, na], 1)), t2(torch.cat([n, na], 1))) - log_alpha.exp() * lp)
    sa = torch.cat([s, a], 1)
    lq = ((q1(sa) - y) ** 2).mean() + ((q2(sa) - y) ** 2).mean()
    oq.zero_grad()
    lq.backward()
    oq.step()
    pa, lp = act(s)
    la = (log_alpha.exp().detach() * lp - torch.min(q1(torch.cat([s, pa], 1)), q2(torch.cat([s, pa], 1)))).mean()
    oa.zero_grad()
    la.backward()
    oa.step()
    ll = -(log_alpha * (lp.detach() - 1)).mean()
    ol.zero_grad()
    ll.backward()
    ol.step()
    with torch.no_grad():
        for t, q in ((t1, q1), (t2, q2)):
            for x, z in zip(t.parameters(), q.parameters()):
                x.lerp_(z, 0.005)
