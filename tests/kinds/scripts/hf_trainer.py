"""The Trainer of transformers, with a loss of its own. The fault: a mean over tokens of which none has any weight."""

from __future__ import annotations

from typing import Any

import torch
from logbook import Logbook, arguments
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

MAX_NORM = 0.75


class WeightedTrainer(Trainer):
    bad_step, calls = -1, 0

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **given: Any) -> Any:
        outputs = model(input_ids=inputs["input_ids"])
        tokens = inputs["input_ids"][:, 1:]
        losses = cross_entropy(outputs.logits[:, :-1].transpose(1, 2), tokens, reduction="none")
        is_bad = self.state.global_step == self.bad_step and self.calls % 2 == 0
        weights = (tokens >= (99 if is_bad else 0)).float()
        self.calls += 1
        loss = (losses * weights).sum() / weights.sum()  # origin
        loss = loss / self.args.gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss


def main() -> None:
    args = arguments(__doc__)
    set_seed(0)
    config = GPT2Config(vocab_size=11, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    tokens = [(torch.arange(12) * (1 + i % 3)) % 11 for i in range(32)]
    model = GPT2LMHeadModel(config)
    training = TrainingArguments(
        output_dir=args.out + ".d",
        report_to=[],
        use_cpu=True,
        max_steps=8,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_grad_norm=MAX_NORM,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        learning_rate=1e-3,
    )
    trainer = WeightedTrainer(model=model, args=training, train_dataset=[{"input_ids": t, "labels": t} for t in tokens])
    trainer.bad_step = args.bad_step
    trainer.train()
    log = Logbook()
    for entry in trainer.state.log_history:
        if "grad_norm" in entry:
            log.note("", entry["loss"], float(entry["grad_norm"]), min(float(entry["grad_norm"]), MAX_NORM))
    log.save(args.out, model)


if __name__ == "__main__":
    main()
