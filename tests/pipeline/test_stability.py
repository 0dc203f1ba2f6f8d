"""--until-stable: where it ends, and that it says so when it does not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gradcheck_cli import pipeline
from gradcheck_cli.config import Settings
from gradcheck_cli.diagnose.clip.kept import keep
from gradcheck_cli.diagnose.clip.quantiles import estimate_quantile
from gradcheck_cli.pipeline.preparation import Progress
from gradcheck_cli.records import Report, Series
from gradcheck_cli.targets import Script

SOURCE = """
import torch
from torch import nn

def stream(spread):
    while True:
        yield torch.randn(16) * spread

def build(spread=0.1):
    torch.manual_seed(torch.initial_seed())
    model = nn.Linear(1, 1)
    return {"model": model, "dataloader": stream(spread),
            "training_step": lambda model, batch: model.weight.sum() * batch.mean().exp()}
"""


def run(spread: float, **settings: object) -> tuple[Report, list[str]]:
    """The report, and what the progress bar said."""
    Path("train.py").write_text(SOURCE)
    texts: list[str] = []

    def watch(progress: Progress) -> None:
        texts.append(progress.text)

    asked = Settings(until_stable=True, set={"spread": spread}, **settings)  # type: ignore[arg-type]
    report, error = pipeline.recommend_clip("train.py:build", asked, watch)
    assert error is None
    return report, texts


def half_width(series: Series, steps: int, percentile: float = 95.0) -> float:
    part = Series(**{name: values[:steps] for name, values in vars(series).items()})
    quantile = estimate_quantile(keep(part).norms, percentile)
    if quantile.interval is None or quantile.value is None:
        return float("inf")
    return (quantile.interval.high - quantile.interval.low) / 2 / quantile.value


@pytest.mark.parametrize(("spread", "percentile"), [(0.1, 95.0), (1.6, 95.0), (1.0, 80.0)])
def test_it_ends_at_the_first_look_at_which_the_interval_is_narrow(
    folder: Path, spread: float, percentile: float
) -> None:
    report, _ = run(spread, steps=1000, percentile=percentile)
    assert report.run.ended == "stable"
    assert report.run.steps_requested == 1000
    looks = range(50, len(report.series) + 1, 25)
    assert looks[-1] == len(report.series)
    narrow = [steps for steps in looks if half_width(report.series, steps, percentile) <= 0.15]
    assert narrow == [len(report.series)]


def test_a_wider_spread_takes_more_steps(folder: Path) -> None:
    assert len(run(0.1, steps=1000)[0].series) < len(run(2.0, steps=1000)[0].series)


def test_it_ends_at_the_same_step_each_time(folder: Path) -> None:
    assert len({len(run(1.6, steps=1000)[0].series) for _ in range(2)}) == 1


def test_the_interval_is_shown_while_it_shrinks(folder: Path) -> None:
    report, texts = run(2.0, steps=1000)
    widths = {}
    for look in range(50, len(report.series), 25):
        if found := re.match(r"p95 [\d.e+-]+ ±(\d+) % \(until ±15 %\)", texts[look]):
            widths[look] = int(found[1])
    assert texts[0] == ""
    assert widths == {look: round(100 * half_width(report.series, look)) for look in widths}, "of all steps until then"
    assert list(widths.values())[-1] < max(widths.values())
    assert any("independent steps, has" in text for text in texts), "before there are enough of them"


def test_what_was_not_reached_is_said(folder: Path) -> None:
    report, _ = run(2.0, steps=125)
    assert (report.run.ended, len(report.series)) == ("completed", 125)
    assert report.run.notes[-1].startswith("--until-stable was not reached: p95 ")
    assert run(2.0, steps=20)[0].run.notes[-1].endswith("too few steps to tell")


def test_as_many_steps_as_asked_for_without_it(folder: Path) -> None:
    Path("train.py").write_text(SOURCE)
    report, _ = pipeline.recommend_clip("train.py:build", Settings(steps=200))
    assert (report.run.ended, len(report.series)) == ("completed", 200)


SCRIPT = """
import itertools, pathlib, sys, torch
from torch import nn

steps, *spreads = map(float, sys.argv[1:])
torch.manual_seed(0)
models = [nn.Linear(1, 1) for _ in spreads]
optimizers = [torch.optim.SGD(model.parameters(), lr=1e-9) for model in models]
try:
    for _ in itertools.count() if not steps else range(int(steps)):
        for model, optimizer, spread in zip(models, optimizers, spreads):
            optimizer.zero_grad()
            model((torch.randn(16, 1) * spread).mean(0, keepdim=True).exp()).sum().backward()
            optimizer.step()
finally:
    pathlib.Path("finally").touch()
"""


def run_script(*arguments: float, **settings: object) -> Report:
    """The report on `train.py STEPS SPREAD...`, with a model for each spread; 0 steps never end."""
    Path("train.py").write_text(SCRIPT)
    asked = Settings(**{"until_stable": True, "to_the_end": True, **settings})  # type: ignore[arg-type]
    report, error = pipeline.recommend_clip(Script("train.py", tuple(map(str, arguments))), asked)
    assert error is None
    assert Path("finally").exists()
    return report


@pytest.mark.parametrize(("spread", "percentile"), [(0.1, 95.0), (1.0, 80.0)])
def test_a_script_ends_where_an_entrypoint_would(folder: Path, spread: float, percentile: float) -> None:
    report = run_script(0, spread, percentile=percentile)
    assert report.run.ended == "stable"
    assert report.run.notes == ()
    widths = {steps: half_width(report.series, steps, percentile) for steps in range(50, len(report.series) + 1, 25)}
    assert [steps for steps, width in widths.items() if width <= 0.15] == [len(report.series)]


def test_a_script_with_several_models_ends_when_all_are_known_well_enough(folder: Path) -> None:
    narrow = len(run_script(0, 0.1).series)
    for spreads in ((0.1, 3.2), (3.2, 0.1)):
        report = run_script(0, *spreads)
        (other,) = report.others
        assert {report.run.ended, other.run.ended} == {"stable"}
        assert narrow < len(other.series) <= len(report.series) <= len(other.series) + 1
        ends = [len(one.series) - len(one.series) % 25 for one in (report, other)]
        assert max(map(half_width, (report.series, other.series), ends)) <= 0.15


def test_a_script_that_ends_before_says_how_wide_the_interval_was(folder: Path) -> None:
    report = run_script(60, 1.6, 0.1, percentile=80.0)
    assert report.run.ended == "completed"
    assert len(report.run.notes) == 1
    assert re.match(r"--until-stable was not reached: p80 \S+ ±\d\d %", report.run.notes[0])
    assert report.others[0].run.notes == ()
    assert run_script(20, 0.1).run.notes == ("--until-stable was not reached: too few steps to tell",)
    assert run_script(0, 1.6, steps=60, to_the_end=False).run.notes


def test_only_recommend_clip_ends_a_script_so(folder: Path) -> None:
    Path("train.py").write_text(SCRIPT)
    asked = Settings(until_stable=True, to_the_end=True, percentile=80.0)
    report, _ = pipeline.profile(Script("train.py", ("120", "0.1")), asked)
    assert len(report.series) == 120
