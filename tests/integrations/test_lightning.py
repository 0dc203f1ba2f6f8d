"""The callback in Lightning's own Trainer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.utils.data import DataLoader

from gradcheck_cli.errors import ConfigError, GradcheckError, OutputError
from gradcheck_cli.records import Recording
from tests.integrations.loops import classify, network, run_example, state, train, vectors
from tests.observe.test_neutrality import assert_same

pytest.importorskip("lightning")

import lightning.pytorch as pl
from lightning.pytorch.plugins import MixedPrecision

from gradcheck_cli.integrations.lightning import GradcheckCallback

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*")


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def on_train_start(self) -> None:
        torch.manual_seed(1)  # what came before drew random numbers: a loader does

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = classify(self.net, batch)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def fit(module: pl.LightningModule, *callbacks: Any, **settings: Any) -> pl.Trainer:
    """One epoch of eight batches in their order."""
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(module, DataLoader(vectors(), batch_size=None, shuffle=False))  # type: ignore[arg-type]
    return trainer


def recorded(callback: Any) -> Recording:
    return callback.training.watches[0].recording  # type: ignore[no-any-return]


def fp16() -> Any:
    return MixedPrecision("16-mixed", "cpu", scaler=GradScaler("cpu"))


MODES: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[], dict[str, Any]]]] = {
    "plain": (dict, dict),
    "accumulation": (lambda: {"accumulate_grad_batches": 4}, lambda: {"accumulate": 4}),
    "clipping": (lambda: {"gradient_clip_val": 0.1}, lambda: {"clip": 0.1}),
    "bf16": (lambda: {"precision": "bf16-mixed"}, lambda: {"bf16": True}),
    "fp16 with a scaler": (
        lambda: {"plugins": [fp16()], "gradient_clip_val": 0.1, "accumulate_grad_batches": 2},
        lambda: {"scaler": GradScaler("cpu"), "clip": 0.1, "accumulate": 2},
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_step_is_measured_as_in_a_loop_written_by_hand(mode: str) -> None:
    for_trainer, for_loop = MODES[mode]
    callback = GradcheckCallback()
    module = Classifier()
    trainer = fit(module, callback, **for_trainer())
    watched = state(module, trainer.optimizers[0])
    bare = network()
    torch.manual_seed(1)
    numbers = train(bare, torch.optim.Adam(bare.parameters(), lr=0.01), vectors(), classify, **for_loop())
    numbers.assert_recorded(recorded(callback))
    assert_same(bare.state_dict(), module.net.state_dict())
    unwatched = Classifier()
    trainer = fit(unwatched, **for_trainer())
    assert_same(state(unwatched, trainer.optimizers[0]), watched)


def test_the_report_knows_what_the_trainer_does(capsys: pytest.CaptureFixture[str]) -> None:
    callback = GradcheckCallback()
    fit(Classifier(), callback, precision="bf16-mixed", accumulate_grad_batches=2, gradient_clip_val=0.1)
    run = callback.training.reports[0].run
    assert (run.target, run.precision, run.accumulate, run.max_norm) == ("Classifier", "bf16", 2, 0.1)
    series = recorded(callback).series
    assert series.batch.tolist() == [0, 2, 4, 6]
    printed = capsys.readouterr()
    assert "gradcheck profile  Classifier" in printed.err
    assert "net.3" in printed.err
    assert "gradcheck" not in printed.out


class Half(Classifier):
    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.net[0].parameters(), lr=0.01)


def test_outputs_are_written_and_findings_fail_the_fit(tmp_path: Path) -> None:
    paths = [tmp_path / "run.json", tmp_path / "run.npz"]
    with pytest.raises(GradcheckError, match="Half: GC106"):
        fit(Half(), GradcheckCallback(output=paths, raise_on="error", select=["GC1"]))
    document = json.loads(paths[0].read_text())
    assert {finding["code"] for finding in document["findings"]} == {"GC106"}
    assert paths[1].stat().st_size > 0


def test_findings_fail_nothing_unless_asked_for() -> None:
    fit(Half(), GradcheckCallback())
    fit(Half(), GradcheckCallback(raise_on="error", ignore=["GC106"]))


def test_bad_options_are_refused_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="raise_on"):
        GradcheckCallback(raise_on="info")
    with pytest.raises(ConfigError, match="GC999"):
        GradcheckCallback(select=["GC999"])
    with pytest.raises(OutputError, match="suffix"):
        GradcheckCallback(output=tmp_path / "run.docx")


class Failing(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if batch_idx == 5:
            raise ValueError("the sixth batch")
        return super().training_step(batch, batch_idx)


def test_a_training_that_fails_keeps_its_error_and_reports_the_steps_before(
    capsys: pytest.CaptureFixture[str],
) -> None:
    callback = GradcheckCallback()
    module = Failing()
    with pytest.raises(ValueError, match="the sixth batch"):
        fit(module, callback)
    assert recorded(callback).steps == 5
    assert not any(part._forward_hooks for part in module.modules())
    assert "the run stopped after 5 steps: it failed" in capsys.readouterr().err


class Adversaries(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.generator, self.discriminator = nn.Sequential(nn.Linear(3, 6)), nn.Sequential(nn.Linear(6, 1))
        self.losses: list[list[float]] = [[], []]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        fake = self.generator(torch.randn(8, 3))
        for number in (1, 0):
            judged = self.discriminator(fake.detach() if number else fake).mean()
            loss = judged - self.discriminator(batch[0]).mean() if number else -judged
            optimizer = self.optimizers()[number]  # type: ignore[index]
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.losses[number].append(loss.item())

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), lr=0.01) for part in (self.generator, self.discriminator)]


def test_several_optimizers_have_a_report_each(tmp_path: Path) -> None:
    callback, module = GradcheckCallback(output=tmp_path / "gan.json"), Adversaries()
    fit(module, callback)
    reports = callback.training.reports
    assert [report.run.target for report in reports] == ["Adversaries.generator", "Adversaries.discriminator"]
    for report, losses in zip(reports, module.losses, strict=True):
        np.testing.assert_allclose(report.series.loss, losses, rtol=1e-6)
        assert {layer.name for layer in report.layers} == {"0"}
        assert "GC106" not in {finding.code for finding in report.diagnosis.findings}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gan-0.json", "gan-1.json"]


class Shared(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        loss = classify(self.net, batch)
        self.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.step()

    def configure_optimizers(self) -> Any:
        self.automatic_optimization = False
        weights, biases = ([p for p in self.parameters() if p.dim() == dim] for dim in (2, 1))
        return [torch.optim.Adam(weights), torch.optim.SGD(biases, lr=0.1)]


def test_a_parameter_of_another_optimizer_is_not_called_forgotten() -> None:
    callback = GradcheckCallback(raise_on="warning")
    fit(Shared(), callback)
    assert [report.run.target for report in callback.training.reports] == ["Shared.net", "Shared.net"]


class Idle(Adversaries):
    def training_step(self, batch: Any, batch_idx: int) -> None:
        pass


def test_a_training_without_a_step_is_said_to_have_none(capsys: pytest.CaptureFixture[str]) -> None:
    callback = GradcheckCallback(raise_on="warning")
    fit(Idle(), callback)
    assert callback.training.reports == []
    assert capsys.readouterr().err.count("the optimizer made no step") == 2


def test_one_callback_after_the_other_and_two_at_once() -> None:
    one, other = GradcheckCallback(), GradcheckCallback()
    fit(Classifier(), one, other)
    first = recorded(one).series.loss
    np.testing.assert_array_equal(first, recorded(other).series.loss)
    fit(Classifier(), one)
    np.testing.assert_array_equal(recorded(one).series.loss, first)


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_example("import lightning.pytorch")
    assert (tmp_path / "run.json").exists()
