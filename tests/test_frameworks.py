"""Scripts as people write them, plain and in frameworks, run unmodified: what is seen is what they log themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradcheck_cli import pipeline
from gradcheck_cli.config import Settings
from gradcheck_cli.drive import script
from gradcheck_cli.records import Report
from gradcheck_cli.targets import Script

STEPS = 6
pytestmark = pytest.mark.filterwarnings("ignore")

HEAD = """
    import json, math, random, sys, warnings
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F

    log = {"loss": [], "norm": [], "clipped": []}

    def norm(model):
        return math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None))

    def data(count):
        generator = torch.Generator().manual_seed(5)
        return [(torch.randn(6, generator=generator), i % 3) for i in range(count)]

    def finish(model):
        state = {name.removeprefix("_orig_mod."): value for name, value in model.state_dict().items()}
        torch.save({"state": state, "random": torch.get_rng_state(), **log}, sys.argv[1])
"""

NANOGPT = """
    out, steps, accumulate, max_norm, compile = sys.argv[1], 6, 3, 0.05, True
    device, dtype = "cpu", "bfloat16"
    config = {k: v for k, v in globals().items() if isinstance(v, (int, float, bool, str)) and k[0] != "_"}
    torch.manual_seed(1337)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln, self.fc, self.proj = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        def forward(self, x):
            return x + F.dropout(self.proj(F.gelu(self.fc(self.ln(x)))), 0.1, self.training)

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte, self.head = nn.Embedding(11, 8), nn.Linear(8, 11)
            self.h = nn.ModuleList([Block(), Block()])
            self.head.weight = self.wte.weight
        def forward(self, x, y):
            h = self.wte(x)
            for block in self.h:
                h = block(h)
            logits = self.head(h)
            return logits, F.cross_entropy(logits.flatten(0, 1), y.flatten())
        def configure_optimizers(self):
            decay = [p for p in self.parameters() if p.dim() >= 2]
            rest = [p for p in self.parameters() if p.dim() < 2]
            return torch.optim.AdamW([{"params": decay}, {"params": rest, "weight_decay": 0.0}], lr=1e-3, fused=True)

    def get_batch():
        tokens = torch.randint(11, (4, 9))
        return tokens[:, :-1], tokens[:, 1:]

    @torch.no_grad()
    def estimate_loss():
        model.eval()
        loss = sum(model(*get_batch())[1].item() for _ in range(2))
        model.train()
        return loss

    model = GPT()
    scaler = torch.amp.GradScaler(device, enabled=(dtype == "float16"))
    optimizer = model.configure_optimizers()
    raw = model
    if compile:
        model = torch.compile(model, backend="eager")
    ctx = torch.amp.autocast(device_type=device, dtype=torch.bfloat16)
    x, y = get_batch()
    for step in range(steps):
        if step % 3 == 0:
            estimate_loss()
        total = 0.0
        for micro in range(accumulate):
            with ctx:
                logits, loss = model(x, y)
                loss = loss / accumulate
            x, y = get_batch()
            scaler.scale(loss).backward()
            total += loss.item()
        log["loss"].append(total)
        log["norm"].append(norm(raw))
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        log["clipped"].append(norm(raw))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
    finish(model)
"""

LIGHTNING = """
    import lightning.pytorch as pl
    from torch.utils.data import DataLoader

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))
            self.losses = []
        def training_step(self, batch, index):
            loss = F.cross_entropy(self.model(batch[0]), batch[1])
            self.losses.append(loss.item() / 2)
            return loss
        def validation_step(self, batch, index):
            self.log("val", F.cross_entropy(self.model(batch[0]), batch[1]))
        def configure_gradient_clipping(self, optimizer, **given):
            log["norm"].append(norm(self))
            super().configure_gradient_clipping(optimizer, **given)
            log["clipped"].append(norm(self))
        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    if __name__ == "__main__":
        pl.seed_everything(0, verbose=False)
        module = Module()
        trainer = pl.Trainer(
            max_epochs=2, gradient_clip_val=0.1, accumulate_grad_batches=2, accelerator="cpu", logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(data(24), batch_size=4, shuffle=True), DataLoader(data(8), batch_size=4))
        log["loss"] = [a + b for a, b in zip(module.losses[::2], module.losses[1::2])]
        finish(module)
"""

TRANSFORMERS = """
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

    set_seed(0)
    config = GPT2Config(vocab_size=11, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    tokens = [torch.randint(11, (12,)) for _ in range(24)]
    arguments = TrainingArguments(
        output_dir=sys.argv[1] + ".d", report_to=[], use_cpu=True, max_steps=6, per_device_train_batch_size=2,
        gradient_accumulation_steps=2, max_grad_norm=0.5, logging_steps=1, save_strategy="no", disable_tqdm=True,
        learning_rate=1e-3,
    )
    model = GPT2LMHeadModel(config)
    trainer = Trainer(model=model, args=arguments, train_dataset=[{"input_ids": t, "labels": t} for t in tokens])
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    log["loss"], log["norm"] = [e["loss"] for e in history], [float(e["grad_norm"]) for e in history]
    log["clipped"] = [min(n, 0.5) for n in log["norm"]]
    finish(model)
"""

ACCELERATE = """
    from accelerate import Accelerator
    from accelerate.utils import set_seed
    from torch.utils.data import DataLoader

    def main():
        set_seed(0)
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        loader = DataLoader(data(24), batch_size=4, shuffle=True)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        for epoch in range(2):
            total = 0.0
            for inputs, targets in loader:
                with accelerator.accumulate(model):
                    loss = F.cross_entropy(model(inputs), targets)
                    accelerator.backward(loss)
                    total += loss.item() / 2
                    if accelerator.sync_gradients:
                        log["loss"].append(total)
                        log["norm"].append(norm(model))
                        total = 0.0
                        accelerator.clip_grad_norm_(model.parameters(), 0.1)
                        log["clipped"].append(norm(model))
                    optimizer.step()
                    optimizer.zero_grad()
        finish(accelerator.unwrap_model(model))

    if __name__ == "__main__":
        main()
"""

PARTS: dict[str, tuple[str, str, float, list[int]]] = {
    "nanogpt": (NANOGPT, "torch", 1e-5, [-1] * 6),
    "lightning": (LIGHTNING, "lightning", 1e-5, [0, 2, 4] * 2),
    "transformers": (TRANSFORMERS, "transformers", 1e-3, [0, 2, 4, 6, 8, 10]),
    "accelerate": (ACCELERATE, "accelerate", 1e-5, [0, 2, 4] * 2),
}
every = pytest.mark.parametrize("name", PARTS)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Report, dict[str, Any]]]:
    """Profile a script: the report, and what the script itself took down."""
    monkeypatch.chdir(tmp_path)

    def profile(name: str, out: str, **settings: Any) -> tuple[Report, dict[str, Any]]:
        source, package, *_ = PARTS[name]
        pytest.importorskip(package)
        torch._dynamo.reset()
        Path("train.py").write_text(textwrap.dedent(HEAD) + textwrap.dedent(source))
        if not settings:
            script.run(Script("train.py", (out,)))
            return None, torch.load(out)  # type: ignore[return-value]
        report, error = pipeline.profile(Script("train.py", (out,)), Settings(**settings))
        assert error is None
        return report, torch.load(out) if Path(out).exists() else {}

    return profile


@every
def test_to_its_end(name: str, run: Callable[..., Any]) -> None:
    _, bare = run(name, "bare.pt")
    report, own = run(name, "own.pt", to_the_end=True, keep_going=True)
    assert_logged(report, own, name)
    assert report.run.ended == "completed"
    assert report.exit_code == 0
    assert not report.others
    assert all(torch.equal(own["state"][key], value) for key, value in bare["state"].items())
    assert torch.equal(own["random"], bare["random"])
    assert own["loss"] == bare["loss"]


@every
def test_for_some_steps(name: str, run: Callable[..., Any]) -> None:
    _, own = run(name, "bare.pt")
    report, nothing = run(name, "own.pt", steps=4)
    assert not nothing
    assert_logged(report, own, name, 4)


def assert_logged(report: Report, own: dict[str, Any], name: str, steps: int = STEPS) -> None:
    """Losses, norms and batches of so many steps are those that the script took down."""
    _, _, tolerance, batches = PARTS[name]
    series = report.series
    assert len(series) == steps
    assert len(own["loss"]) == STEPS
    np.testing.assert_allclose(series.loss, own["loss"][:steps], rtol=tolerance)
    np.testing.assert_allclose(series.grad_norm, own["norm"][:steps], rtol=tolerance)
    np.testing.assert_allclose(series.grad_norm_clipped, own["clipped"][:steps], rtol=tolerance)
    assert series.batch.tolist() == batches[:steps]
    assert report.run.precision == ("bf16" if name == "nanogpt" else "fp32")
    assert report.run.training
    assert report.run.accumulate == (3 if name == "nanogpt" else 2)
