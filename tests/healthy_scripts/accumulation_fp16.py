import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
dl = DataLoader(TensorDataset(torch.tensor(d.data, dtype=torch.float32) / 16, torch.tensor(d.target)), 32, shuffle=True)
m = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.LayerNorm(128), nn.Linear(128, 10))
opt = torch.optim.AdamW(m.parameters(), 2e-3)
scaler = torch.amp.GradScaler("cpu")
K = 4
sched = torch.optim.lr_scheduler.OneCycleLR(opt, 1e-2, total_steps=3 * ((len(dl) + K - 1) // K))
for e in range(3):
    for i, (x, y) in enumerate(dl):
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(m(x), y)
        last = len(dl) % K if i >= len(dl) - len(dl) % K else K
        scaler.scale(loss / last).backward()
        if (i + 1) % K == 0 or i + 1 == len(dl):
            scaler.unscale_(opt)
            nn.utils.clip_grad_norm_(m.parameters(), 1.0)
            scaler.step(opt)
            scaler.update()
            opt.zero_grad()
            sched.step()
