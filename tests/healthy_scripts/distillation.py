import torch, torch.nn as nn, torch.nn.functional as F
from sklearn.datasets import load_digits
torch.manual_seed(0)
d=load_digits(); X=torch.tensor(d.data,dtype=torch.float32)/16; Y=torch.tensor(d.target)
mk=lambda h: nn.Sequential(nn.Linear(64,h),nn.ReLU(),nn.Dropout(.2),nn.Linear(h,h),nn.ReLU(),nn.Dropout(.2),nn.Linear(h,10))
teacher,student=mk(256),mk(32)
def epochs(model,n,lossf):
    opt=torch.optim.AdamW(model.parameters(),1e-3)
    for _ in range(n):
        for idx in torch.randperm(len(X)).split(64):
            opt.zero_grad(); lossf(model,idx).backward(); opt.step()
epochs(teacher,4,lambda m,i:F.cross_entropy(m(X[i]),Y[i])); teacher.eval()
def kd(m,i):
    with torch.no_grad(): t=teacher(X[i])
    s=m(X[i]); return .5*F.cross_entropy(s,Y[i])+.5*4*F.kl_div(F.log_softmax(s/2,1),F.softmax(t/2,1),reduction="batchmean")
epochs(student,4,kd)
