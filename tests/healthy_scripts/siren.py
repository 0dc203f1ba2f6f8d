import math

import torch
import torch.nn as nn

torch.manual_seed(0)


class Sine(nn.Module):
    def __init__(s, i, o, first=False):
        super().__init__()
        s.l = nn.Linear(i, o)
        b = 1 / i if first else math.sqrt(6 / i) / 30
        nn.init.uniform_(s.l.weight, -b, b)

    def forward(s, x):
        return torch.sin(30 * s.l(x))


m = nn.Sequential(Sine(2, 128, True), Sine(128, 128), Sine(128, 128), nn.Linear(128, 1))
opt = torch.optim.Adam(m.parameters(), 1e-4)
g = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij"), -1).view(-1, 2)
y = torch.sin(8 * g[:, :1]) * torch.cos(9 * g[:, 1:])
for _ in range(150):
    opt.zero_grad()
    ((m(g) - y) ** 2).mean().backward()
    opt.step()
