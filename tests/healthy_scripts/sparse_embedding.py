import torch
import torch.nn as nn

torch.manual_seed(0)


class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(5000, 32, sparse=True)
        self.fc = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, u, i):
        return self.fc(torch.cat([self.emb(u), self.emb(i + 2500)], 1)).squeeze(1)


m = M()
a = torch.optim.SparseAdam(m.emb.parameters(), 1e-2)
b = torch.optim.Adam(m.fc.parameters(), 1e-3)
w = torch.randn(2500)
for s in range(120):
    u, i = torch.randint(0, 2500, (2, 256))
    y = (w[u] * w[i] > 0).float()
    loss = nn.functional.binary_cross_entropy_with_logits(m(u, i), y)
    a.zero_grad()
    b.zero_grad()
    loss.backward()
    a.step()
    b.step()
