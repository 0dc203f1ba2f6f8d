"""What several ranks measure together is what one process measures on the same global batches."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from gradcheck_cli.config import Settings
from gradcheck_cli.drive.ranks.group import ALONE, Group
from gradcheck_cli.pipeline.preparation import ignore
from gradcheck_cli.pipeline.profiling import record
from gradcheck_cli.records import Recording
from tests.distributed.conftest import Pool

TARGET = "tests.distributed.targets:residual"
GLOBAL_BATCH = 8
STEPS = 12
FEW = 4
OWN = ("seconds", "overhead", "batch")
"""What differs by nature: clocks, and which of its own batches a rank takes."""


def settings(ranks: int, accumulate: int = 1, steps: int = STEPS, **others: Any) -> Settings:
    return Settings(
        steps=steps,
        device="cpu",
        accumulate=accumulate,
        clip=0.5,
        probe_every=5,
        set={"batch_size": GLOBAL_BATCH // ranks},
        **others,
    )


def recorded(group: Group, wanted: Settings) -> Recording:
    return record(TARGET, wanted, ignore, group).recording


def assert_same(found: Recording, expected: Recording) -> None:
    for part in ("series", "statistics", "probes"):
        for name in (field.name for field in fields(getattr(expected, part)) if field.name not in OWN):
            one, other = getattr(getattr(found, part), name), getattr(getattr(expected, part), name)
            # A mean may be 0 but for rounding: it is as right as the gradients' size allows.
            size = 1e-5 * np.nan_to_num(expected.statistics.std) if name == "mean" else 1e-12
            assert one.shape == other.shape, name
            assert np.all(np.isclose(one, other, rtol=1e-5, atol=size, equal_nan=True)), (part, name)
    assert np.allclose(found.final_parameter_norm, expected.final_parameter_norm, rtol=1e-5)
    assert [one.name for one in found.parameters] == [one.name for one in expected.parameters]
    assert [one.shape for one in found.parameters] == [one.shape for one in expected.parameters]
    assert [(one.name, one.probe) for one in found.modules] == [(one.name, one.probe) for one in expected.modules]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
@pytest.mark.parametrize("size", [2, 4])
def test_fp32_is_that_of_the_whole_batch_at_once(ranks: Pool, size: int, strategy: str, accumulate: int) -> None:
    found = ranks(size, recorded, settings(size, accumulate, strategy=strategy))
    expected = recorded(ALONE, settings(1, accumulate))
    assert_same(found[0], expected)
    assert np.array_equal(found[0].series.grad_norm, found[-1].series.grad_norm)
    assert found[0].ranks is not None
    assert found[0].ranks.syncs.tolist() == [[1] * size] * STEPS


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
@pytest.mark.parametrize("size", [2, 4])
def test_bf16_is_that_of_the_same_micro_batches(ranks: Pool, size: int, strategy: str, accumulate: int) -> None:
    """Autocast rounds each micro-batch's gradient to bf16: one process must take the same micro-batches.

    Few steps: once a sum in another order has moved a parameter by a bit, bf16 may round it the other way.
    """
    found = ranks(size, recorded, settings(size, accumulate, FEW, strategy=strategy, precision="bf16"))
    assert_same(found[0], recorded(ALONE, settings(size, accumulate * size, FEW, precision="bf16")))
