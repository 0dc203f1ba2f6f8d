import torch
import torch.nn as nn

torch.manual_seed(0)
vgg = (
    nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1))
    .eval()
    .requires_grad_(False)
)
img = torch.randn(1, 3, 32, 32, requires_grad=True)
target = vgg(torch.randn(1, 3, 32, 32))
opt = torch.optim.Adam([img], lr=0.05)
for i in range(100):
    opt.zero_grad()
    nn.functional.mse_loss(vgg(img), target).backward()
    opt.step()
    with torch.no_grad():
        img.clamp_(-3, 3)
