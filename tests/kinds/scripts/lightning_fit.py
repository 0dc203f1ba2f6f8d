"""Lightning's Trainer.fit, accumulating and clipping. The fault: a batch of which every label is to be ignored."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from logbook import Logbook, arguments, gradient_norm, samples
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader


class Module(pl.LightningModule):
    def __init__(self, bad_step: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 3))
        self.bad_step, self.book, self.total = bad_step, Logbook(), 0.0

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        inputs, labels = batch
        if self.global_step == self.bad_step and index % 2 == 1:
            labels = torch.full_like(labels, -100)
        loss = cross_entropy(self.model(inputs), labels)  # origin
        self.total += loss.item() / 2
        return loss

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.log("val", cross_entropy(self.model(batch[0]), batch[1]))

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, **given: Any) -> None:  # type: ignore[override]
        norm = gradient_norm(self)
        super().configure_gradient_clipping(optimizer, **given)
        self.book.note("", self.total, norm, gradient_norm(self))
        self.total = 0.0

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def main() -> None:
    args = arguments(__doc__)
    pl.seed_everything(0, verbose=False)
    module = Module(args.bad_step)
    trainer = pl.Trainer(
        max_epochs=2,
        gradient_clip_val=0.8,
        accumulate_grad_batches=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(samples(96), batch_size=8, shuffle=True), DataLoader(samples(16), batch_size=8))
    module.book.save(args.out, module)


if __name__ == "__main__":
    main()
