import torch, torch.nn as nn, torch.nn.functional as F, this
torch.manual_seed(0)
t=(this.s*20); cs=sorted(set(t)); d=torch.tensor([cs.index(c) for c in t]); B=16; d=d[:len(d)//B*B].view(B,-1)
class R(nn.Module):
    def __init__(s): super().__init__(); s.e=nn.Embedding(len(cs),64); s.r=nn.GRU(64,128,2,batch_first=True,dropout=.2); s.o=nn.Linear(128,len(cs))
    def forward(s,x,h=None): z,h=s.r(s.e(x),h); return s.o(z),h
m=R(); opt=torch.optim.RMSprop(m.parameters(),2e-3)
for e in range(5):
    h=None
    for i in range(0,d.shape[1]-33,32):
        o,h=m(d[:,i:i+32],h); h=h.detach(); loss=F.cross_entropy(o.reshape(-1,len(cs)),d[:,i+1:i+33].reshape(-1)); opt.zero_grad(); loss.backward(); nn.utils.clip_grad_norm_(m.parameters(),5.); opt.step()
