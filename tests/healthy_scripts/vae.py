import torch, torch.nn as nn, torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
from sklearn.datasets import load_digits
torch.manual_seed(0)
class VAE(nn.Module):
    def __init__(self):
        super().__init__(); self.fc1=nn.Linear(64,128); self.mu=nn.Linear(128,8); self.lv=nn.Linear(128,8); self.fc3=nn.Linear(8,128); self.fc4=nn.Linear(128,64)
    def forward(self,x):
        h=F.relu(self.fc1(x)); mu,lv=self.mu(h),self.lv(h); z=mu+torch.randn_like(mu)*(0.5*lv).exp()
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))),mu,lv
m=VAE(); opt=torch.optim.Adam(m.parameters(),1e-3)
dl=DataLoader(TensorDataset(torch.tensor(load_digits().data,dtype=torch.float32)/16),128,shuffle=True)
def test():
    m.eval()
    with torch.no_grad():
        for (x,) in dl: m(x)
for epoch in range(10):
    m.train()
    for i,(x,) in enumerate(dl):
        opt.zero_grad(); r,mu,lv=m(x)
        loss=F.binary_cross_entropy(r,x,reduction="sum")-0.5*torch.sum(1+lv-mu.pow(2)-lv.exp())
        loss.backward(); opt.step()
    test()
