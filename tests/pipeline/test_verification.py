"""Training again from the same start: what is the same, what is compared, and what a failure leaves."""

from __future__ import annotations

import math
import os
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gradcheck_cli import pipeline
from gradcheck_cli.clip_advice import VerifiedRun
from gradcheck_cli.config import Settings
from gradcheck_cli.diagnose.clip.adaptive import AutoClip, ZClip
from gradcheck_cli.drive.loop import MaxNorm
from gradcheck_cli.pipeline.preparation import Progress, Start, begin, ignore, load
from gradcheck_cli.pipeline.profiling import watch_training
from gradcheck_cli.records import Floats, Report

STEPS = 200
HEAD = """
    import os, random, numpy, torch
    from pathlib import Path
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset
    x = torch.randn(64, 3) + random.random() + numpy.random.rand()  # drawn when the file is imported
    x[0] *= 4
    os.makedirs("data", exist_ok=True)

    def make():
        model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))
        data = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4, shuffle=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 20)
        return {"model": model, "dataloader": data, "loss_fn": nn.MSELoss(), "optimizer": optimizer,
                "scheduler": scheduler}
"""
PLAIN = HEAD + "    def build(): os.chdir('data'); return make()\n"
KEPT = HEAD + "    kept = make()\n    def build(): return kept\n"
ONCE = HEAD + "    calls = []\n    def build():\n        calls.append(1)\n        assert len(calls) != 2, 'no more'\n"
ONCE += "        return make()\n"
FAILING = (
    HEAD
    + """
    calls = []
    def build():
        calls.append(1)
        made, seen = make(), []
        def step(model, batch):
            seen.append(1)
            if len(calls) == 2 and len(seen) == 30: raise RuntimeError("too hot")
            return nn.functional.mse_loss(model(batch[0]), batch[1])
        return {**made, "loss_fn": None, "training_step": step}
"""
)


def start_of(source: str) -> Start:
    Path("train.py").write_text(textwrap.dedent(source))
    return load("train.py:build", Settings(steps=STEPS))


def series(start: Start, max_norm: MaxNorm | None = None) -> tuple[Floats, Floats, Floats]:
    """Losses and norms before and after clipping of one more run."""
    found = watch_training(begin(start, Settings(steps=STEPS)), ignore, max_norm=max_norm).recording.series
    return found.loss, found.grad_norm, found.grad_norm_clipped


def recommend(source: str, watch: Callable[[Progress], None] = ignore, **settings: object) -> Report:
    Path("train.py").write_text(textwrap.dedent(source))
    asked = Settings(**{"steps": STEPS, "percentile": 90.0, "verify": True, **settings})  # type: ignore[arg-type]
    report, error = pipeline.recommend_clip("train.py:build", asked, watch)
    assert error is None
    return report


def verified(report: Report) -> dict[str, VerifiedRun]:
    assert report.clip is not None
    return {run.name: run for run in report.clip.verified}


def test_the_unclipped_run_can_be_repeated_bit_by_bit(folder: Path) -> None:
    start = start_of(PLAIN)
    for one, other in zip(series(start), series(start), strict=True):
        np.testing.assert_array_equal(one, other)


def test_it_begins_as_profile_does(folder: Path) -> None:
    start = start_of(PLAIN)
    os.chdir(folder)
    report, _ = pipeline.profile("train.py:build", Settings(steps=STEPS))
    np.testing.assert_array_equal(series(start)[0], report.series.loss)


def test_the_callable_goes_on_drawing_where_the_import_ended(folder: Path) -> None:
    """Else what a file draws when it is imported and the weights would be the same numbers."""
    source = HEAD + "    drawn = []\n    def build():\n        drawn.append(torch.rand(3))\n        return make()\n"
    start = start_of(source)
    series(start), series(start)
    torch.manual_seed(0)
    torch.randn(64, 3)
    expected = torch.rand(3).tolist()
    assert [drawn.tolist() for drawn in start.function.__globals__["drawn"]] == [expected, expected]


def test_only_clipping_makes_a_difference(folder: Path) -> None:
    start = start_of(PLAIN)
    _, norms, _ = series(start)
    limit = float(np.quantile(norms, 0.8))
    first = int(np.argmax(norms > limit))
    _, before, after = series(start, limit)
    np.testing.assert_array_equal(before[: first + 1], norms[: first + 1])
    assert (before[first + 1 :] != norms[first + 1 :]).any()
    np.testing.assert_allclose(after, np.minimum(before, limit), rtol=1e-5)


@pytest.mark.parametrize("make", [lambda: ZClip(max_norm=None), lambda: AutoClip()], ids=["zclip", "autoclip"])
def test_adaptive_thresholds_are_fed_the_norms_of_their_own_run(
    folder: Path, make: Callable[[], ZClip | AutoClip]
) -> None:
    _, before, after = series(start_of(PLAIN), make().next)
    replay = make()
    limits = np.array([replay.next(norm) for norm in before.tolist()])
    np.testing.assert_allclose(after, np.minimum(before, limits), rtol=1e-4)
    assert (limits < before).any()


def test_the_value_and_what_it_is_compared_with(folder: Path) -> None:
    report = recommend(PLAIN, verify_against=("0.5", "zclip", "autoclip"))
    advice, runs = report.clip, verified(report)
    assert advice is not None
    assert advice.max_norm is not None
    assert advice.rate_interval is not None
    assert list(runs) == ["unclipped", "recommended", "max_norm 0.5", "zclip", "autoclip"]
    assert all((run.steps, run.ended) == (STEPS, "completed") for run in runs.values())
    assert runs["unclipped"].loss == pytest.approx(report.series.loss[-STEPS // 10 :].mean())
    assert (runs["unclipped"].clip_rate, runs["unclipped"].inside) == (0.0, None)

    start = start_of(PLAIN)
    os.chdir(folder)
    for name, limit in {"recommended": advice.max_norm, "max_norm 0.5": 0.5}.items():
        losses, norms, _ = series(start, limit)
        assert runs[name].loss == losses[-STEPS // 10 :].mean()
        assert runs[name].clip_rate == (norms[advice.warmup_excluded :] > limit).mean()
    kept = advice.rate_interval.low <= runs["recommended"].clip_rate <= advice.rate_interval.high
    assert runs["recommended"].inside is kept
    assert runs["zclip"].inside is None


def test_a_model_that_is_kept_from_call_to_call_is_not_compared(folder: Path) -> None:
    report = recommend(KEPT)
    run = verified(report)["recommended"]
    assert (run.ended, run.inside) == ("failed", None)
    assert math.isnan(run.loss)
    assert "did not build the same model and data again" in report.run.notes[-1]


@pytest.mark.parametrize(("source", "steps", "words"), [(ONCE, 0, "no more"), (FAILING, 29, "too hot")])
def test_a_run_that_fails_is_noted_and_the_others_go_on(folder: Path, source: str, steps: int, words: str) -> None:
    report = recommend(source, verify_against=("0.5",))
    runs = verified(report)
    assert (runs["recommended"].steps, runs["recommended"].ended) == (steps, "failed")
    assert math.isnan(runs["recommended"].loss)
    assert runs["max_norm 0.5"].ended == "completed"
    assert "recommended failed" in report.run.notes[-1]
    assert words in report.run.notes[-1]


def test_a_run_that_diverges_has_no_loss(folder: Path) -> None:
    source = HEAD + "    def build(rate=1e6):\n        made = make()\n"
    source += "        made['optimizer'].param_groups[0]['lr'] = rate\n        return {**made, 'scheduler': None}\n"
    report = recommend(source, verify_against=("1e-9",))
    runs = verified(report)
    assert report.run.ended == "nonfinite-loss"
    assert math.isnan(runs["unclipped"].loss)
    assert math.isfinite(runs["max_norm 1e-9"].loss)
    assert runs["max_norm 1e-9"].ended == "completed"


def test_there_is_something_to_verify_or_it_is_said(folder: Path) -> None:
    report = recommend(PLAIN, steps=10)
    assert verified(report) == {}
    assert report.run.notes[-1] == "--verify was left out: there is no value to train with"
    assert list(verified(recommend(PLAIN, steps=10, verify_against=("1",)))) == ["unclipped", "max_norm 1"]


def test_nothing_is_trained_again_unless_it_is_asked_for(folder: Path) -> None:
    report = recommend(PLAIN, verify=False)
    assert verified(report) == {}
    assert report.run.notes == ()


def test_ctrl_c_while_verifying_keeps_what_was_found(folder: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if "zclip" in progress.text and not sent:
            sent.append(progress.done)
            os.kill(os.getpid(), signal.SIGINT)

    sent: list[int] = []
    runs = verified(recommend(PLAIN, interrupt, verify_against=("zclip", "1")))
    assert list(runs) == ["unclipped", "recommended", "zclip"]
    assert runs["recommended"].ended == "completed"
    assert runs["zclip"].ended == "interrupted"
    assert runs["zclip"].steps < STEPS
    assert math.isnan(runs["zclip"].loss)


def test_ctrl_c_between_two_runs_keeps_what_was_found(folder: Path) -> None:
    source = HEAD + "    calls = []\n    def build():\n        calls.append(1)\n"
    source += "        if len(calls) == 3: raise KeyboardInterrupt\n        return make()\n"
    report = recommend(source, verify_against=("0.5",))
    assert list(verified(report)) == ["unclipped", "recommended"]
    assert "interrupted" in report.run.notes[-1]


def test_ctrl_c_in_the_unclipped_run_leaves_verifying_out(folder: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if not sent:
            sent.append(progress.done)
            os.kill(os.getpid(), signal.SIGINT)

    sent: list[int] = []
    report = recommend(PLAIN, interrupt, verify_against=("1",))
    assert report.run.ended == "interrupted"
    assert verified(report) == {}
    assert "left out" in report.run.notes[-1]
