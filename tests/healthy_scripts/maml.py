import torch
import torch.nn as nn
from torch.func import functional_call

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))
opt = torch.optim.Adam(net.parameters(), 1e-3)
for it in range(80):
    outer = 0
    for task in range(4):
        A, ph = torch.rand(1) * 4 + 0.1, torch.rand(1) * 3.14
        f = lambda x: A * torch.sin(x + ph)
        x = torch.rand(10, 1) * 10 - 5
        p = dict(net.named_parameters())
        l = nn.functional.mse_loss(functional_call(net, p, (x,)), f(x))
        g = torch.autograd.grad(l, p.values(), create_graph=True)
        fast = {k: v - 0.01 * gg for (k, v), gg in zip(p.items(), g)}
        x = torch.rand(10, 1) * 10 - 5
        outer = outer + nn.functional.mse_loss(functional_call(net, fast, (x,)), f(x))
    opt.zero_grad()
    (outer / 4).backward()
    opt.step()
