"""Every rule on every sample model: each gives exactly the codes that it says, whatever the seed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gradcheck_cli import pipeline
from gradcheck_cli.config import Settings
from gradcheck_cli.records import Severity

SAMPLES = sorted(path for path in Path("sample_models").glob("*.py") if path.stem != "sample_data")
SICK = {"GC101", "GC102", "GC103", "GC104", "GC106", "GC201", "GC203", "GC301", "GC304"}


def codes_of(sample: Path, **settings: object) -> tuple[set[str], set[str], set[str]]:
    """The codes found, those that the sample declares, and those of errors and warnings."""
    asked = Settings(check_scale=True, **settings)  # type: ignore[arg-type]
    report, error = pipeline.profile(f"{sample}:build", asked)
    assert error is None
    loaded = next(m for m in sys.modules.values() if getattr(m, "__file__", "") == str(sample.resolve()))
    found = {finding.code for finding in report.diagnosis.findings}
    alarms = {f.code for f in report.diagnosis.findings if f.severity is not Severity.INFO}
    return found, set(loaded.EXPECTED), alarms


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_sample_gives_exactly_its_codes(sample: Path, seed: int) -> None:
    found, expected, _ = codes_of(sample, seed=seed)
    assert found == expected


@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"accumulate": 3}, {"clip": 1.0}], ids=str)
@pytest.mark.parametrize("name", ["digits_mlp", "digits_cnn", "digits_autoencoder", "vit_digits", "lora"])
def test_healthy_samples_stay_healthy_in_other_modes(name: str, settings: dict[str, object]) -> None:
    _, _, alarms = codes_of(Path(f"sample_models/{name}.py"), **settings)
    assert not alarms


def test_there_are_healthy_and_sick_ones() -> None:
    declared = {sample.stem: sample.read_text(encoding="utf-8") for sample in SAMPLES}
    assert len(SAMPLES) >= 10
    assert all("EXPECTED" in source for source in declared.values())
    assert all(any(code in source for source in declared.values()) for code in SICK)
