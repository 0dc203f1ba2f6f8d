"""Every rule on every sample model, on two ranks: what one process finds, and which rank had the bad batch."""

from __future__ import annotations

from pathlib import Path

from gradcheck_cli import pipeline
from gradcheck_cli.config import Settings
from gradcheck_cli.drive.ranks.group import Group
from gradcheck_cli.records import Severity
from tests.distributed.conftest import Pool

SAMPLES = sorted(path.stem for path in Path("sample_models").glob("*.py") if path.stem != "sample_data")
TOO_FEW_BATCHES = {"oversized_batch"}
BAD_BATCHES = {"clip_spiky", "nan_data_late", "nan_in_data", "nan_mask", "nan_sqrt", "outlier_batches"}
"""On two ranks only one of them gets such a batch in a step: GC701 says which."""


def alarms(group: Group, names: list[str], strategy: str | None) -> dict[str, set[str]]:
    found = {}
    for name in names:
        asked = Settings(device="cpu", strategy=strategy)
        report, _ = pipeline.profile(f"sample_models/{name}.py:build", asked, group=group)
        severe = (one for one in report.diagnosis.findings if one.severity is not Severity.INFO)
        found[name] = {one.code for one in severe} - {
            "GC612"
        }  # for which all ranks would have to look at a batch again
    return found


def test_two_ranks_find_what_one_process_does(ranks: Pool) -> None:
    names = [name for name in SAMPLES if name not in TOO_FEW_BATCHES]
    together, alone = ranks(2, alarms, names, "ddp")[0], ranks(1, alarms, names, None)[0]
    assert together == {name: codes | ({"GC701"} if name in BAD_BATCHES else set()) for name, codes in alone.items()}


def test_healthy_samples_are_silent_in_shards(ranks: Pool) -> None:
    names = ["digits_mlp", "digits_cnn", "digits_autoencoder", "char_gpt", "vit_digits"]
    assert ranks(2, alarms, names, "fsdp2")[0] == {name: set() for name in names}
