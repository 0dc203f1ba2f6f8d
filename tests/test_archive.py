"""A recording survives save and load."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradcheck_cli.archive import dumps, load, loads
from gradcheck_cli.errors import RecordingError
from gradcheck_cli.records import Location, Recording
from tests.diagnose.recordings import make_recording


def assert_equal(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        elif dataclasses.is_dataclass(a) and not isinstance(a, type):
            assert_equal(a, b)
        else:
            assert a == b


@given(
    steps=st.integers(0, 12),
    losses=st.lists(st.floats(width=64), min_size=12, max_size=12),
    notes=st.lists(st.text(), max_size=3).map(tuple),
)
def test_round_trip(steps: int, losses: list[float], notes: tuple[str, ...]) -> None:
    recording = make_recording(steps=steps, loss=losses[:steps], notes=notes, location=Location("train.py", 7))
    assert_equal(loads(dumps(recording)), recording)


def test_what_is_no_recording_says_so(tmp_path: Path) -> None:
    text = tmp_path / "run.npz"
    text.write_text("no archive")
    with pytest.raises(RecordingError, match=r"run\.npz"):
        load(text)
    with pytest.raises(RecordingError, match="cannot read"):
        load(tmp_path / "missing.npz")
    content = dumps(make_recording())
    with pytest.raises(RecordingError):
        loads(content[: len(content) // 2])


def test_type_is_kept() -> None:
    assert isinstance(loads(dumps(make_recording())), Recording)
