"""A recording survives save and load."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradcheck_cli.archive import dumps, load, load_all, loads, loads_all
from gradcheck_cli.errors import RecordingError
from gradcheck_cli.examination import Examination, SampleGradients, ScaleCheck
from gradcheck_cli.records import Location, Recording
from gradcheck_cli.signals import RecurrentMatrix, Site
from tests.diagnose.recordings import make_recording
from tests.diagnose.signals import with_signals


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


def test_other_models_of_a_run_survive_in_their_order(tmp_path: Path) -> None:
    models = [with_signals(make_recording(steps=3, model=name)) for name in ("policy", "value", "reward")]
    models[0] = replace(models[0], examination=Examination(ScaleCheck(1.0, (0.1,), (1.0,), 2.0, 1e-7)))
    (tmp_path / "run.npz").write_bytes(dumps(models[0], models[1:]))
    loaded = load_all(tmp_path / "run.npz")
    assert len(loaded) == 3
    for one, model in zip(loaded, models, strict=True):
        assert_equal(one, model)
    assert_equal(load(tmp_path / "run.npz"), models[0])
    many = [make_recording(steps=1, model=str(number)) for number in range(12)]
    assert [one.run.model for one in loads_all(dumps(many[0], many[1:]))] == [str(number) for number in range(12)]


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


def test_signals_survive() -> None:
    matrix = RecurrentMatrix("fc2.weight", "cell", "tanh", 0.9, 1.2)
    recording = with_signals(
        make_recording(),
        activations={Site("fc1", "relu"): {"zero": 0.5, "units": 8, "never_active": 0.25, "samples": 96}},
        attention={Site("", "sdpa", 1): (0.7, 0.9)},
        blocks={"fc1": (1.0, 0.5, 0.2), "fc2": (2.0, 0.5, 0.3)},
        recurrence={Site("fc2", "lstm"): [1.0, 2.0, 3.0]},
        weights={"fc1.weight": (0.1, 4, 8)},
        recurrent=[matrix],
        gradient_dot={"fc1.weight": 0.5},
    )
    assert_equal(loads(dumps(recording)), recording)


def test_a_recording_made_before_there_were_signals_can_be_read() -> None:
    assert loads(dumps(make_recording())).signals is None


def test_examinations_survive() -> None:
    scale = ScaleCheck(2.0, (0.1, 0.01), (1.9, 2.0), 0.7, 1e-7)
    samples = SampleGradients(3, (2, 2), (0, 1), (0.5, 0.6), (0.4, 0.6), 1.0, True)
    for examination in (Examination(scale, samples), Examination(scale), Examination(samples=samples), Examination()):
        recording = replace(make_recording(), examination=examination)
        assert_equal(loads(dumps(recording)), recording)


def test_a_recording_made_before_examples_were_counted_can_be_read() -> None:
    buffer = io.BytesIO()
    with np.load(io.BytesIO(dumps(make_recording(examples=[4] * 30)))) as archive:
        np.savez(buffer, **{name: archive[name] for name in archive.files if name != "series.examples"})
    assert loads(buffer.getvalue()).series.examples.tolist() == [0] * 30
