"""Entrypoints that return objects of Lightning; what holds for other libraries' is in test_adapters_transformers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

from gradcheck_cli import pipeline
from gradcheck_cli.config import Settings
from gradcheck_cli.drive.workload import make_workload
from gradcheck_cli.errors import ConfigError, TargetError
from tests.drive.conftest import Run

pytest.importorskip("lightning")

import lightning.pytorch as pl

Profile = Callable[..., Run]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*")


def loader() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    rows = [(torch.randn(6, generator=generator), torch.randint(3, (), generator=generator)) for _ in range(20)]
    return DataLoader(rows, batch_size=4)  # type: ignore[arg-type]


class Classifier(pl.LightningModule):
    """`configured` makes what configure_optimizers returns."""

    def __init__(self, configured: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(6, 3)
        self.configured = configured or (lambda optimizer: optimizer)
        self.indices: list[int] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.indices.append(batch_idx)
        loss = functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, prog_bar=True)
        self.log_dict({"twice": loss * 2})
        return {"loss": loss}

    def configure_optimizers(self) -> Any:
        return self.configured(torch.optim.SGD(self.parameters(), lr=0.1))


class Data(pl.LightningDataModule):
    def setup(self, stage: str) -> None:
        self.made = loader()

    def train_dataloader(self) -> Any:
        return self.made


class WithData(Classifier):
    def train_dataloader(self) -> Any:
        return loader()


def lightning_trainer(**settings: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", enable_model_summary=False, max_epochs=2, **quiet, **settings)  # type: ignore[arg-type]


def by_hand(steps: int) -> list[float]:
    module, losses = Classifier(), []
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _, (x, y) in zip(range(steps), [batch for _ in range(9) for batch in loader()], strict=False):
        optimizer.zero_grad()
        loss = functional.cross_entropy(module.net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


FORMS: dict[str, Callable[[], Any]] = {
    "module with a DataModule": lambda: (Classifier(), Data()),
    "module with a loader": lambda: [Classifier(), loader()],
    "module with its own loader": WithData,
    "module in a tuple of one": lambda: (WithData(),),
    "with a trainer": lambda: (Classifier(), Data(), lightning_trainer()),
    "mapping": lambda: {"model": Classifier(), "datamodule": Data(), "trainer": lightning_trainer()},
    "mapping with a loader": lambda: {"model": Classifier(), "dataloader": loader()},
    "object": lambda: SimpleNamespace(model=Classifier(), dataloader=loader()),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_lightning_module_is_trained_as_by_hand(profile: Profile, form: str) -> None:
    report, error = profile(FORMS[form], steps=12)
    assert error is None
    np.testing.assert_allclose(report.series.loss, by_hand(12), rtol=1e-6)
    assert report.run.optimizer == "SGD"
    assert report.run.notes == ()


def test_batches_are_counted_from_the_start_of_each_epoch(profile: Profile) -> None:
    module = Classifier()
    profile(lambda: (module, loader()), steps=12)
    assert module.indices == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def decaying(optimizer: Any) -> StepLR:
    return StepLR(optimizer, 1, 0.5)


CONFIGURED: dict[str, tuple[Callable[[Any], Any], list[float]]] = {
    "optimizer": (lambda o: o, [0.1] * 12),
    "list": (lambda o: [o], [0.1] * 12),
    "dictionary": (lambda o: {"optimizer": o}, [0.1] * 12),
    "two lists": (lambda o: ([o], [decaying(o)]), [0.1] * 5 + [0.05] * 5 + [0.025] * 2),
    "two lists, no schedule": (lambda o: ([o], []), [0.1] * 12),
    "dictionary with a schedule": (
        lambda o: {"optimizer": o, "lr_scheduler": decaying(o)},
        [0.1] * 5 + [0.05] * 5 + [0.025] * 2,
    ),
    "list of a dictionary": (
        lambda o: [{"optimizer": o, "lr_scheduler": {"scheduler": decaying(o), "frequency": 2}}],
        [0.1] * 10 + [0.05] * 2,
    ),
    "by steps": (
        lambda o: {"optimizer": o, "lr_scheduler": {"scheduler": decaying(o), "interval": "step", "frequency": 3}},
        [0.1] * 3 + [0.05] * 5 + [0.025] * 4,  # by the number of the batch in its epoch, as in Lightning
    ),
}


@pytest.mark.parametrize("form", CONFIGURED)
def test_optimizers_and_schedules_are_as_under_the_trainer(profile: Profile, form: str) -> None:
    configured, rates = CONFIGURED[form]
    report, error = profile(lambda: (Classifier(configured), loader()), steps=12)
    assert error is None
    np.testing.assert_allclose(report.series.lr[:, 0], rates)

    seen: list[float] = []

    class Noting(Classifier):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            seen.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    trainer = lightning_trainer()
    trainer.fit_loop.max_epochs = 3
    trainer.fit(Noting(configured), loader())
    np.testing.assert_allclose(seen[:12], rates)


def test_a_schedule_by_epochs_waits_for_a_last_window_that_is_short(profile: Profile) -> None:
    report, _ = profile(lambda: (Classifier(lambda o: ([o], [decaying(o)])), loader()), steps=5, accumulate=2)
    np.testing.assert_allclose(report.series.lr[:, 0], [0.1, 0.1, 0.1, 0.05, 0.05])


def test_a_schedule_that_follows_a_metric_is_left_alone_and_that_is_said(profile: Profile) -> None:
    def configured(optimizer: Any) -> Any:
        schedule = {"scheduler": ReduceLROnPlateau(optimizer, patience=0), "monitor": "validation"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    report, _ = profile(lambda: (Classifier(configured), loader()), steps=12)
    assert report.series.lr[-1, 0] == 0.1
    assert report.run.notes == ("ReduceLROnPlateau is not stepped",)


def test_another_optimizer_does_without_the_modules_schedule(profile: Profile) -> None:
    report, error = profile(
        lambda: (Classifier(lambda o: ([o], [decaying(o)])), loader()), steps=12, optimizer="adam", lr=0.01
    )
    assert error is None
    assert (report.run.optimizer, report.series.lr[-1, 0]) == ("Adam", 0.01)


def test_what_is_given_apart_stays(profile: Profile) -> None:
    def build() -> Any:
        module = Classifier()
        optimizer = torch.optim.Adam(module.parameters(), lr=0.3)
        return {"model": module, "dataloader": loader(), "optimizer": optimizer, "loss_fn": nn.CrossEntropyLoss()}

    class Direct(Classifier):
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)  # type: ignore[no-any-return]

    report, _ = profile(lambda: {**build(), "model": Direct()}, steps=2)
    assert (report.run.optimizer, report.series.lr[0, 0]) == ("Adam", 0.3)


def test_the_modules_own_preparation_is_done(profile: Profile) -> None:
    called: list[str] = []

    class Late(Classifier):
        def prepare_data(self) -> None:
            called.append("prepare_data")

        def setup(self, stage: str) -> None:
            called.append(f"setup {stage}")

        def configure_model(self) -> None:
            called.append("configure_model")
            self.late = nn.Linear(3, 3)

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0] * 0, batch[1]

        def training_step(self, batch: Any) -> Any:  # type: ignore[override]
            assert not batch[0].any()
            return functional.cross_entropy(self.late(self.net(batch[0])), batch[1])

    report, error = profile(lambda: (Late(), Data()))
    assert error is None
    assert called == ["prepare_data", "setup fit", "configure_model"]
    assert "late" in {layer.name for layer in report.layers}


def test_what_only_a_trainer_does_is_said(profile: Profile) -> None:
    class Hooked(Classifier):
        def on_after_backward(self) -> None:
            raise AssertionError

    report, _ = profile(lambda: (Hooked(), loader()))
    assert report.run.notes == (
        "only a Trainer calls on_after_backward of the module:"
        " profile the script that trains it: gradcheck profile train.py",
    )


def test_the_trainers_settings_are_used_as_long_as_the_user_chooses_none(profile: Profile) -> None:
    def build() -> Any:
        trainer = lightning_trainer(accumulate_grad_batches=3, gradient_clip_val=0.5, precision="bf16-mixed")
        return Classifier(), loader(), trainer

    as_set, _ = profile(build, steps=4)
    assert as_set.run.notes == ("as the Trainer is set: --accumulate 3 --clip 0.5 --precision bf16",)
    by_hand, _ = profile(lambda: (Classifier(), loader()), steps=4, accumulate=3, clip=0.5, precision="bf16")
    np.testing.assert_array_equal(as_set.series.loss, by_hand.series.loss)
    np.testing.assert_array_equal(as_set.series.grad_norm_clipped, by_hand.series.grad_norm_clipped)
    chosen, _ = profile(build, steps=4, accumulate=1, clip=0.1, given=frozenset(("accumulate", "clip")))
    assert (chosen.run.accumulate, chosen.run.max_norm, chosen.run.precision) == (1, 0.1, "bf16")
    assert chosen.run.notes == (
        "as the Trainer is set: --precision bf16",
        "in place of the Trainer's own: --accumulate 1 (it has 3), --clip 0.1 (it has 0.5)",
    )


def test_what_of_a_trainers_settings_gradcheck_does_not_have_is_said(profile: Profile) -> None:
    trainer = lightning_trainer(precision="64-true", gradient_clip_val=0.5, gradient_clip_algorithm="value")
    report, _ = profile(lambda: (Classifier(), loader(), trainer))
    assert (report.run.precision, report.run.max_norm) == ("fp32", None)
    assert report.run.notes == (
        "the Trainer's precision 64-true is not used",
        "the Trainer clips by value: gradients are not clipped here",
    )


class Manual(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class NeedsTrainer(Classifier):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1.0 / self.trainer.max_epochs)  # type: ignore[operator]


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "manual": (lambda: (Manual(), loader()), "optimizes manually"),
    "optimizers": (lambda: (Classifier(lambda o: [o, o]), loader()), "configures 2 optimizers"),
    "loaders": (lambda: (Classifier(), [loader(), loader()]), "2 loaders"),
    "no trainer": (lambda: (NeedsTrainer(), loader()), "not attached to a `Trainer`"),
    "dataset": (lambda: (Classifier(), TensorDataset(torch.ones(4, 6))), "Dataset"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_takes_a_trainer_is_refused_with_what_to_do(case: str) -> None:
    build, words = REFUSED[case]
    with pytest.raises(TargetError, match=words) as caught:
        make_workload(build())
    assert ("gradcheck profile train.py" in caught.value.hint) != (case == "dataset")


def test_a_module_may_ask_the_trainer_that_came_with_it() -> None:
    assert make_workload((NeedsTrainer(), loader(), lightning_trainer())).optimizer.param_groups[0]["lr"] == 0.5


def test_logging_is_as_before_after_a_step() -> None:
    module = Classifier()
    workload = make_workload((module, loader()))
    workload.training_step(module, next(iter(workload.dataloader)))
    assert module.log.__func__ is pl.LightningModule.log  # type: ignore[attr-defined]
    assert "log_dict" not in vars(module)


def test_nan_trace_repeats_a_step_with_the_index_it_had(folder: Path) -> None:
    class Poisoned(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)["loss"]
            return loss + torch.log(self.net.weight.sum() * 0) * 0 if batch_idx == 3 else loss

    sys.modules["in_memory"] = module = type(sys)("in_memory")
    module.build = lambda: (Poisoned(), loader())  # type: ignore[attr-defined]
    report, _ = pipeline.nan_trace("in_memory:build", Settings(steps=10))
    assert report.trace is not None
    assert [(origin.step, origin.op) for origin in report.trace.origins] == [(3, "aten::log")]


def test_the_step_of_a_framework_is_no_repro(folder: Path) -> None:
    sys.modules["in_memory"] = module = type(sys)("in_memory")
    module.build = lambda: (Classifier(), loader())  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="LightningModule"):
        pipeline.nan_trace("in_memory:build", Settings(steps=2), save_repro=folder / "repro")
    assert not (folder / "repro").exists()


def test_neither_library_is_loaded_for_others() -> None:
    source = """
import sys, torch
from gradcheck_cli.drive.workload import make_workload
model = torch.nn.Linear(2, 2)
for returned in ((model, [1]), {"model": model, "dataloader": [1]}):
    make_workload(returned)
print([name for name in ("lightning", "pytorch_lightning", "transformers", "accelerate") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
