"""Entrypoints that return a Trainer of transformers: trained as `train` would."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from gradcheck_cli import pipeline
from gradcheck_cli.config import Settings
from gradcheck_cli.drive.workload import make_workload
from gradcheck_cli.errors import TargetError
from gradcheck_cli.records import Report
from tests.drive.conftest import Run

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import transformers

Profile = Callable[..., Run]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*")
ROWS, EPOCHS, IGNORED = 28, 2, -100


def language_model() -> Any:
    """Its forward takes `num_items_in_batch`, and it has dropout."""
    torch.manual_seed(0)
    size = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 50}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**size, bos_token_id=0, eos_token_id=0))


class Classifier(nn.Module):
    """Its forward takes nothing but its inputs: the Trainer divides its loss by the number of batches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 50)

    def forward(self, input_ids: Any, labels: Any) -> Any:
        logits = self.head(self.embedding(input_ids))
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def rows() -> list[dict[str, Any]]:
    """Sequences, of which ever more tokens at the beginning have no loss: a mean of means is not the mean."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for number in range(ROWS):
        tokens = torch.randint(50, (12,), generator=generator)
        labels = torch.where(torch.arange(12) < number % 9, IGNORED, tokens)
        made.append({"input_ids": tokens, "labels": labels})
    return made


def trainer_of(
    folder: Path, kind: Any = transformers.Trainer, model: Callable[[], Any] = language_model, **settings: Any
) -> Any:
    """It draws batches and dropout from a seed of its own; `settings` may have arguments of the Trainer, too."""
    of_trainer = {name: settings.pop(name) for name in ("compute_loss_func", "optimizers") if name in settings}
    chosen = {"per_device_train_batch_size": 4, "learning_rate": 0.01, "num_train_epochs": EPOCHS, **settings}
    quiet = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}
    arguments = transformers.TrainingArguments(str(folder), use_cpu=True, optim="adamw_torch", **quiet, **chosen)
    return kind(model(), arguments, train_dataset=rows(), **of_trainer)


def squared_error(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """A loss outside the model: in autocast its operations would be done in half precision."""
    errors = (outputs["logits"].sigmoid() - nn.functional.one_hot(labels.clamp(min=0), 50)) ** 2
    return errors.sum() / num_items_in_batch


AS_TRAINED: dict[str, dict[str, Any]] = {
    "alone": {},
    "accumulating": {"gradient_accumulation_steps": 3},  # 7 batches an epoch: the last window has one
    "without items": {"gradient_accumulation_steps": 3, "model": Classifier},
    "clipping": {"max_grad_norm": 0.2, "gradient_accumulation_steps": 2},
    "not clipping": {"max_grad_norm": 0.0},
    "half": {"bf16": True, "gradient_accumulation_steps": 3},
    "smoothing": {"bf16": True, "label_smoothing_factor": 0.1, "gradient_accumulation_steps": 3},
    "loss of one's own": {"bf16": True, "compute_loss_func": squared_error, "gradient_accumulation_steps": 3},
    "schedule": {"lr_scheduler_type": "cosine", "warmup_steps": 3, "max_steps": 9, "weight_decay": 0.1},
}


@pytest.mark.parametrize("case", AS_TRAINED)
def test_steps_are_those_that_train_makes(profile: Profile, folder: Path, case: str) -> None:
    trainer = trainer_of(folder, **AS_TRAINED[case])
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    report, error = profile(lambda: trainer_of(folder, **AS_TRAINED[case]), steps=len(logged))
    assert error is None
    assert len(logged) == report.run.steps_requested >= EPOCHS * 3
    seen = {
        "loss": report.series.loss,
        "grad_norm": report.series.grad_norm,
        "learning_rate": report.series.lr[:, 0],
    }
    for name, values in seen.items():
        np.testing.assert_allclose(values, [entry[name] for entry in logged], rtol=2e-6, atol=1e-12, err_msg=name)


def test_a_window_that_is_run_again_has_the_same_loss(profile: Profile, folder: Path) -> None:
    report, _ = profile(lambda: trainer_of(folder, gradient_accumulation_steps=3), check_scale=True)
    assert report.recording is not None
    assert report.recording.examination is not None
    scale = report.recording.examination.scale
    assert scale is not None
    assert scale.loss == pytest.approx(report.series.loss[-1], rel=0.05)  # after one more update, with other dropout
    assert np.median(scale.slopes) == pytest.approx(scale.grad_norm, rel=0.02)


def test_what_was_taken_from_the_trainer_is_said(profile: Profile, folder: Path) -> None:
    settings = {"gradient_accumulation_steps": 3, "bf16": True, "max_grad_norm": 0.5}
    report, _ = profile(lambda: trainer_of(folder, **settings))
    assert (report.run.accumulate, report.run.max_norm, report.run.precision) == (3, 0.5, "bf16")
    assert report.run.notes == ("as the Trainer is set: --accumulate 3 --clip 0.5 --precision bf16",)


def test_the_users_own_options_win_and_that_is_said(profile: Profile, folder: Path) -> None:
    settings = {"gradient_accumulation_steps": 3, "bf16": True, "max_grad_norm": 0.0}
    chosen = {"accumulate": 2, "clip": 0.25, "precision": "fp32"}
    report, _ = profile(lambda: trainer_of(folder, **settings), steps=4, **chosen, given=frozenset(chosen))
    same, _ = profile(lambda: trainer_of(folder, gradient_accumulation_steps=2, max_grad_norm=0.25), steps=4)
    np.testing.assert_array_equal(report.series.loss[:2], same.series.loss[:2])
    np.testing.assert_array_equal(report.series.grad_norm_clipped[:2], same.series.grad_norm_clipped[:2])
    assert report.run.notes == (
        "in place of the Trainer's own:"
        " --accumulate 2 (it has 3), --clip 0.25 (it has none), --precision fp32 (it has bf16)",
    )


def test_options_that_agree_with_the_trainer_need_no_word(profile: Profile, folder: Path) -> None:
    report, _ = profile(lambda: trainer_of(folder), clip=1.0, given=frozenset({"clip"}))
    assert report.run.notes == ()


def recommend(build: Callable[[], Any], **settings: Any) -> Report:
    sys.modules["in_memory"] = module = ModuleType("in_memory")
    module.build = build  # type: ignore[attr-defined]
    report, error = pipeline.recommend_clip("in_memory:build", Settings(**settings))
    assert error is None
    return report


def test_recommend_clip_judges_the_trainers_clip_and_trains_without_it(folder: Path) -> None:
    asked = {"steps": 60, "verify": True, "verify_against": ("0.5", "1e9")}
    report = recommend(lambda: trainer_of(folder, max_grad_norm=0.2, num_train_epochs=9), **asked)
    np.testing.assert_array_equal(report.series.grad_norm_clipped, report.series.grad_norm)
    assert report.run.max_norm is None
    assert report.run.notes == ("as the Trainer is set: --max-norm 0.2",)
    assert report.clip is not None
    assert report.clip.judged is not None
    assert report.clip.judged.max_norm == 0.2
    rates = {run.name: run.clip_rate for run in report.clip.verified}
    assert rates["unclipped"] == rates["max_norm 1e9"] == 0
    assert rates["max_norm 0.5"] > 0


def test_a_poisoned_window_is_traced(folder: Path) -> None:
    class Poisoned(transformers.Trainer):  # type: ignore[misc]
        calls = 0

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            return loss + torch.log(loss.detach() * 0) * 0 if (inputs["labels"] == IGNORED).sum() > 20 else loss

    sys.modules["in_memory"] = module = ModuleType("in_memory")
    module.build = lambda: trainer_of(folder, Poisoned, gradient_accumulation_steps=3)  # type: ignore[attr-defined]
    report, _ = pipeline.nan_trace("in_memory:build", Settings(steps=4))
    assert report.trace is not None
    assert report.run.accumulate == 3
    assert [origin.op for origin in report.trace.origins] == ["aten::log"]


def test_the_trainers_own_loss_is_used(profile: Profile, folder: Path) -> None:
    class Doubled(transformers.Trainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            labels = inputs.pop("labels")
            return 2 * super().compute_loss(model, {**inputs, "labels": labels}, *args, **kwargs)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError

    plain, _ = profile(lambda: trainer_of(folder, gradient_accumulation_steps=2))
    doubled, _ = profile(lambda: trainer_of(folder, Doubled, gradient_accumulation_steps=2))
    assert doubled.series.loss[0] == 2 * plain.series.loss[0]
    assert doubled.run.notes[1].startswith("the Trainer's own training_step is not called: profile the script")


def test_a_schedule_that_follows_a_metric_is_left_alone_and_that_is_said(profile: Profile, folder: Path) -> None:
    def build() -> Any:
        model = Classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = ReduceLROnPlateau(optimizer, mode="max", patience=0)
        return trainer_of(folder, model=lambda: model, optimizers=(optimizer, schedule))

    report, _ = profile(build, steps=8)
    assert report.series.lr[-1, 0] == 0.1
    assert report.run.notes[1:] == ("ReduceLROnPlateau is not stepped",)


def test_several_gpus_are_not_counted(profile: Profile, folder: Path) -> None:
    """The Trainer would split each batch among them; here one device has it all."""

    def build() -> Any:
        trainer = trainer_of(folder, gradient_accumulation_steps=3)
        trainer.args._n_gpu = 2
        return trainer

    several, error = profile(build)
    assert error is None
    one, _ = profile(lambda: trainer_of(folder, gradient_accumulation_steps=3))
    np.testing.assert_array_equal(several.series.loss, one.series.loss)


def test_a_step_leaves_the_models_forward_as_it_was(folder: Path) -> None:
    trainer = trainer_of(folder, bf16=True)
    workload = make_workload(trainer)
    batches = workload.join([next(iter(workload.dataloader))])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        workload.training_step(workload.model, batches[0])
        assert torch.is_autocast_enabled("cpu")
    assert "forward" not in vars(trainer.model)


def test_a_trainer_without_data_is_refused(folder: Path) -> None:
    trainer = trainer_of(folder)
    trainer.train_dataset = None
    with pytest.raises(TargetError, match="train_dataset") as caught:
        make_workload(trainer)
    assert "gradcheck profile train.py" in caught.value.hint
