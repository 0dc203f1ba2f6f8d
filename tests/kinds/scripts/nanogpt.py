# ruff: noqa: A001, N812, N817, SIM115 -- written as nanoGPT is
"""In the style of nanoGPT's train.py: compiled, ready for DDP, with its configuration in globals.

The fault: a row of attention that may look at nothing.
"""

import math
import os
from contextlib import nullcontext

import torch
from logbook import Logbook, gradient_norm
from torch import nn
from torch.distributed import destroy_process_group, init_process_group
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel as DDP

out = "out.pt"
bad_step = -1
eval_interval = 3
eval_iters = 2
batch_size = 4
block_size = 8
gradient_accumulation_steps = 4
n_layer = 1
n_head = 2
n_embd = 16
dropout = 0.1
vocab_size = 11
learning_rate = 1e-3
max_iters = 10
warmup_iters = 4
weight_decay = 1e-1
grad_clip = 0.25
backend = "gloo"
device = "cpu"
dtype = "bfloat16"
compile = True
config_keys = [k for k, v in globals().items() if not k.startswith("_") and isinstance(v, (int, float, bool, str))]
exec(open("configurator.py").read())
config = {k: globals()[k] for k in config_keys}

ddp = int(os.environ.get("RANK", -1)) != -1
if ddp:
    init_process_group(backend=backend)
    ddp_world_size = int(os.environ["WORLD_SIZE"])
    seed_offset = int(os.environ["RANK"])
    assert gradient_accumulation_steps % ddp_world_size == 0
    gradient_accumulation_steps //= ddp_world_size
else:
    seed_offset = 0
torch.manual_seed(1337 + seed_offset)
device_type = "cuda" if "cuda" in device else "cpu"
ptdtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
ctx = nullcontext() if dtype == "float32" else torch.amp.autocast(device_type=device_type, dtype=ptdtype)


class CausalSelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(n_embd, 3 * n_embd), nn.Linear(n_embd, n_embd)
        self.resid_dropout = nn.Dropout(dropout)

    def forward(self, x, mask):
        q, k, v = (part.unflatten(2, (n_head, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, dim=2))
        att = (q @ k.transpose(-2, -1)) / math.sqrt(k.size(-1))
        att = att.masked_fill(~mask, float("-inf"))
        att = F.softmax(att, dim=-1)  # origin
        return self.resid_dropout(self.c_proj((att @ v).transpose(1, 2).flatten(2)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = nn.LayerNorm(n_embd), CausalSelfAttention(), nn.LayerNorm(n_embd)
        self.mlp = nn.Sequential(nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd))

    def forward(self, x, mask):
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab_size, n_embd), nn.Embedding(block_size, n_embd)
        self.h = nn.ModuleList([Block() for _ in range(n_layer)])
        self.ln_f, self.lm_head = nn.LayerNorm(n_embd), nn.Linear(n_embd, vocab_size, bias=False)
        self.wte.weight = self.lm_head.weight
        self.apply(self._init_weights)

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, idx, targets, mask):
        x = self.wte(idx) + self.wpe(torch.arange(block_size, device=idx.device))
        for block in self.h:
            x = block(x, mask)
        logits = self.lm_head(self.ln_f(x))
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def configure_optimizers(self):
        params = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in params if p.dim() >= 2], "weight_decay": weight_decay},
            {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=True)


def get_batch(bad=False):
    start = torch.randint(vocab_size, (batch_size, 1))
    tokens = (start + torch.arange(block_size + 1) * torch.randint(1, 3, (batch_size, 1))) % vocab_size
    mask = torch.ones(block_size, block_size, dtype=torch.bool).tril(-1 if bad else 0)
    return tokens[:, :-1], tokens[:, 1:], mask


@torch.no_grad()
def estimate_loss():
    model.eval()
    losses = torch.zeros(eval_iters)
    for k in range(eval_iters):
        with ctx:
            losses[k] = model(*get_batch())[1].item()
    model.train()
    return losses.mean()


def get_lr(it):
    return learning_rate * min(1.0, (it + 1) / (warmup_iters + 1))


model = GPT().to(device)
scaler = torch.amp.GradScaler(device_type, enabled=(dtype == "float16"))
optimizer = model.configure_optimizers()
if compile:
    model = torch.compile(model, backend="eager")
if ddp:
    model = DDP(model)
raw_model = model.module if ddp else model
book = Logbook()
batch = get_batch()
iter_num = 0
while True:
    for param_group in optimizer.param_groups:
        param_group["lr"] = get_lr(iter_num)
    if iter_num % eval_interval == 0:
        print(f"step {iter_num}: val loss {estimate_loss():.4f}")
    lossf = 0.0
    for micro_step in range(gradient_accumulation_steps):
        if ddp:
            model.require_backward_grad_sync = micro_step == gradient_accumulation_steps - 1
        with ctx:
            logits, loss = model(*batch)
            loss = loss / gradient_accumulation_steps
        batch = get_batch(bad=iter_num == bad_step and micro_step == 0)
        scaler.scale(loss).backward()
        lossf += loss.item()
    if grad_clip != 0.0:
        scaler.unscale_(optimizer)
        before = gradient_norm(raw_model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
        book.note("", lossf, before, gradient_norm(raw_model))
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    iter_num += 1
    if iter_num >= max_iters:
        break
book.save(out, raw_model)
if ddp:
    destroy_process_group()
