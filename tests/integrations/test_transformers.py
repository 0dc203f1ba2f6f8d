"""The callback in the Trainer of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.records import Recording
from tests.integrations.loops import Numbers, run_example, state, train
from tests.observe.test_neutrality import assert_same

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import transformers

from gradcheck_cli.integrations.transformers import GradcheckCallback


def texts(count: int = 32) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(50, (count, 12), generator=generator)
    labels = tokens.clone()
    labels[:, 0] = -100  # nothing predicts the first, but the Trainer would count it among what its loss is a mean of
    return [{"input_ids": row, "labels": label} for row, label in zip(tokens, labels, strict=True)]


def language_model() -> Any:
    torch.manual_seed(0)
    size = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": 50}
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**size, **no_dropout, bos_token_id=0, eos_token_id=0))


class InOrder(transformers.Trainer):  # type: ignore[misc, name-defined]
    def _get_train_sampler(self, *args: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def make_trainer(folder: Path, *callbacks: Any, kind: Any = InOrder, **settings: Any) -> Any:
    """For one pass over eight batches of four in their order, at a constant learning rate."""
    arguments = transformers.TrainingArguments(
        str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=4,
        optim="adamw_torch",
        learning_rate=0.01,
        lr_scheduler_type="constant",
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        logging_strategy="no",
        **settings,
    )
    return kind(language_model(), arguments, train_dataset=texts(), callbacks=list(callbacks))


def by_hand(accumulate: int = 1, clip: float | None = 1.0, bf16: bool = False) -> Numbers:
    model = language_model()
    model.train()
    examples = texts()
    batches = [
        {key: torch.stack([example[key] for example in examples[start : start + 4]]) for key in examples[0]}
        for start in range(0, len(examples), 4)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    return train(model, optimizer, batches, lambda model, batch: model(**batch).loss, accumulate, clip, bf16)


def recorded(callback: Any) -> Recording:
    return callback.training.watches[0].recording  # type: ignore[no-any-return]


MODES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "accumulation": ({"gradient_accumulation_steps": 4}, {"accumulate": 4}),
    "clipping": ({"max_grad_norm": 0.1}, {"clip": 0.1}),
    "no clipping": ({"max_grad_norm": 0.0}, {"clip": None}),
    "bf16": ({"bf16": True}, {"bf16": True}),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_step_is_measured_as_in_a_loop_written_by_hand(mode: str, tmp_path: Path) -> None:
    for_trainer, for_loop = MODES[mode]
    callback = GradcheckCallback()
    trainer = make_trainer(tmp_path, callback, **for_trainer)
    trainer.train()
    by_hand(**for_loop).assert_recorded(recorded(callback), rtol=1e-5)
    unwatched = make_trainer(tmp_path, **for_trainer)
    unwatched.train()
    assert_same(state(unwatched.model, unwatched.optimizer), state(trainer.model, trainer.optimizer))


def test_the_report_knows_what_the_trainer_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callback = GradcheckCallback(output=tmp_path / "run.npz")
    make_trainer(tmp_path, callback, bf16=True, gradient_accumulation_steps=2, max_grad_norm=0.5).train()
    run = callback.training.reports[0].run
    assert (run.target, run.optimizer, run.precision) == ("GPT2LMHeadModel", "AdamW", "bf16")
    assert (run.accumulate, run.max_norm) == (2, 0.5)
    assert "transformer.h.1.mlp.c_proj" in capsys.readouterr().err
    assert (tmp_path / "run.npz").stat().st_size > 0


class Half(InOrder):
    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        self.optimizer = torch.optim.Adam(self.model.transformer.h.parameters(), lr=0.01)
        return self.optimizer


def test_findings_fail_the_training_if_asked_for(tmp_path: Path) -> None:
    with pytest.raises(GradcheckError, match="GPT2LMHeadModel: GC106"):
        make_trainer(tmp_path, GradcheckCallback(raise_on="error", select=["GC106"]), kind=Half).train()
    make_trainer(tmp_path, GradcheckCallback(select=["GC106"]), kind=Half).train()


class Failing(InOrder):
    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 3:
            raise ValueError("the fourth step")
        return super().compute_loss(model, inputs, *args, **kwargs)


def test_a_training_that_fails_leaves_nothing_behind_though_no_callback_is_told(tmp_path: Path) -> None:
    """That nothing is left in torch is what conftest's fixture looks at, too."""
    callback = GradcheckCallback()
    trainer = make_trainer(tmp_path, callback, kind=Failing)
    backward = torch.autograd.backward
    with pytest.raises(ValueError, match="the fourth step") as caught:
        trainer.train()
    del caught  # with the traceback in it
    assert torch.autograd.backward is backward
    assert not any(part._forward_hooks for part in trainer.model.modules())
    assert recorded(callback).steps == 3


def test_a_training_may_follow_another(tmp_path: Path) -> None:
    callback = GradcheckCallback()
    make_trainer(tmp_path, callback).train()
    first = recorded(callback).series.loss
    make_trainer(tmp_path, callback).train()
    np.testing.assert_array_equal(recorded(callback).series.loss, first)


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_example("import GPT2Config")
    assert (tmp_path / "run.json").exists()
