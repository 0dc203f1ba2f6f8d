"""What the ranks saw survives save and load."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gradcheck_cli.archive import dumps, loads, loads_all
from gradcheck_cli.errors import RecordingError
from gradcheck_cli.ranks import PER_STEP, Desync, Ranks, UnusedOnSome
from tests.diagnose.recordings import make_recording
from tests.test_archive import assert_equal

WHOLE = ("batch", "epoch", "syncs")
some_ranks = st.lists(st.integers(0, 7), max_size=4).map(tuple)
counts = st.integers(0, 2**40)
unused = st.builds(UnusedOnSome, parameter=st.text(), step=counts, steps=counts, ranks=some_ranks)
desyncs = st.builds(Desync, name=st.text(), is_buffer=st.booleans(), step=counts, ranks=some_ranks)


@st.composite
def any_ranks(draw: st.DrawFn) -> Ranks:
    shape = draw(st.integers(0, 5)), draw(st.integers(1, 4))
    series = {
        name: draw(arrays(np.int64 if name in WHOLE else np.float64, shape, unique=False, fill=st.nothing()))
        for name in PER_STEP
    }
    return Ranks(
        strategy=draw(st.sampled_from(["ddp", "fsdp2", "none", "own"])),
        backend=draw(st.text()),
        hosts=tuple(draw(st.lists(st.text(st.characters()), min_size=shape[1], max_size=shape[1]))),
        sync_seconds=draw(st.floats(allow_nan=False)),
        finds_unused=draw(st.booleans()),
        unused=draw(st.lists(unused, max_size=2).map(tuple)),
        desyncs=draw(st.lists(desyncs, max_size=2).map(tuple)),
        checked=draw(st.lists(counts, max_size=3).map(tuple)),
        **series,
    )


@settings(max_examples=50, deadline=None)
@given(ranks=any_ranks())
def test_round_trip(ranks: Ranks) -> None:
    recording = replace(make_recording(steps=len(ranks.loss)), ranks=ranks)
    assert_equal(loads(dumps(recording)), recording)


def make_ranks(**members: float) -> Ranks:
    floats = {name: np.zeros((2, 2)) for name in PER_STEP if name not in WHOLE}
    integers = {name: np.zeros((2, 2), dtype=np.int64) for name in WHOLE}
    return Ranks("ddp", "gloo", ("a", "b"), **floats, **integers, **members)


def test_a_time_of_synchronising_that_is_not_known_stays_unknown() -> None:
    loaded = loads(dumps(replace(make_recording(steps=2), ranks=make_ranks(sync_seconds=float("nan"))))).ranks
    assert loaded is not None
    assert np.isnan(loaded.sync_seconds)


def test_each_of_several_models_has_its_own_ranks_or_none() -> None:
    first, second = make_recording(steps=2), replace(make_recording(steps=2), ranks=make_ranks(sync_seconds=0.25))
    for models in ([first, second], [second, first]):
        for loaded, model in zip(loads_all(dumps(models[0], models[1:])), models, strict=True):
            assert_equal(loaded, model)


def repack(content: bytes, leave_out: str) -> bytes:
    """The same file without a part of it."""
    with np.load(io.BytesIO(content)) as archive:
        held = {name: archive[name] for name in archive.files if name != leave_out}
    plain = json.loads(str(held["plain"]))
    plain.pop(leave_out, None)
    buffer = io.BytesIO()
    np.savez(buffer, **{**held, "plain": np.array(json.dumps(plain))})
    return buffer.getvalue()


def test_a_recording_made_before_there_were_ranks_can_be_read() -> None:
    assert loads(repack(dumps(make_recording()), "ranks")).ranks is None


def test_a_file_that_lost_a_part_of_its_ranks_is_refused() -> None:
    content = dumps(replace(make_recording(steps=2), ranks=make_ranks(sync_seconds=1.0)))
    with pytest.raises(RecordingError, match="own_seconds"):
        loads(repack(content, "ranks.own_seconds"))
