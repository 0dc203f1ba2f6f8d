"""Norms from another tool's log: every form that loggers write, and what is refused with its line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradcheck_cli import archive
from gradcheck_cli.errors import RecordingError
from gradcheck_cli.norm_list import load_norms
from gradcheck_cli.records import Recording

Read = Callable[..., Recording]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """The recording of a file with this content."""
    monkeypatch.chdir(tmp_path)

    def write_and_load(content: str | bytes, name: str = "norms.csv") -> Recording:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_norms(Path(name))

    return write_and_load


def norms_of(recording: Recording) -> list[float]:
    return recording.series.grad_norm.tolist()


SAME_NORMS = {
    "one number a line": "1\n2.5\n1e-3\n",
    "without a last newline": "1\n2.5\n1e-3",
    "blank lines": "\n1\n\n2.5\n1e-3\n\n",
    "CRLF": "1\r\n2.5\r\n1e-3\r\n",
    "byte order mark": "\ufeffgrad_norm\n1\n2.5\n1e-3\n",
    "comma": "step,grad_norm\n0,1\n1,2.5\n2,1e-3\n",
    "semicolon": "step;norm;x\n0;1;0,5\n1;2.5;\n2;1e-3;\n",
    "tab": "\tgrad_norm\n0\t1\n1\t2.5\n2\t1e-3\n",
    "capitals and spaces": "Step,Train/Grad Norm\n0, 1\n1, 2.5\n2,1e-3 \n",
    "TensorBoard": "Wall time,Step,train/grad_norm\n9.5,0,1\n9.6,1,2.5\n9.7,2,1e-3\n",
    "W&B": '"Step","sun-1 - train/gradient_norm","sun-1 - train/gradient_norm__MIN"\n0,1,7\n1,2.5,7\n2,1e-3,7\n',
    "the more exact name": "param/norm,optim.grad_norm\n7,1\n7,2.5\n7,1e-3\n",
    "JSON numbers": "[1, 2.5, 0.001]",
    "JSON objects": '[{"grad_norm": 1}, {"grad_norm": 2.5, "step": 1}, {"grad_norm": "1e-3"}]',
    "JSON lists": '{"run": "a", "loss": [3, 2, 1], "grad_norm": [1, 2.5, 0.001]}',
    "JSON lines": '{"grad_norm": 1}\n\n{"step": 1, "grad_norm": 2.5}\r\n{"grad_norm": 0.001}\n',
}


@pytest.mark.parametrize("form", SAME_NORMS)
def test_every_form_gives_the_same_norms(read: Read, form: str) -> None:
    assert norms_of(read(SAME_NORMS[form])) == [1.0, 2.5, 0.001]


@given(st.lists(st.floats(min_value=0, allow_nan=False, allow_infinity=False), min_size=1))
def test_no_number_is_changed(tmp_path_factory: pytest.TempPathFactory, norms: list[float]) -> None:
    path = tmp_path_factory.mktemp("norms") / "norms"
    for content in ("\n".join(map(repr, norms)), json.dumps(norms), "norm;a\n" + "".join(f"{n!r};1\n" for n in norms)):
        path.write_text(content)
        assert norms_of(load_norms(path)) == norms


def test_nan_and_infinity_are_kept_and_an_empty_cell_was_not_logged(read: Read) -> None:
    kept = [1.0, np.nan, np.inf, 4.0]
    for content in ("norm,step\n1,0\n,1\nNaN,2\n  ,3\ninf,4\n4,5\n", '[1, null, NaN, "", "inf", 4]'):
        recording = read(content)
        np.testing.assert_array_equal(recording.series.grad_norm, kept)
        assert recording.run.notes[-1] == "2 of 6 rows have no norm and were left out"
    assert read("norm\n1\n").run.notes == ("norms from the column 'norm'",)
    assert read("1\n").run.notes == ()


def test_a_row_that_was_cut_off_has_no_norm(read: Read) -> None:
    assert norms_of(read("step,norm\n0,1\n1")) == [1.0]


def test_the_column_that_was_taken_is_named(read: Read) -> None:
    assert "'train/grad_norm'" in read("val/norm,train/grad_norm\n1,2\n").run.notes[0]


def test_losses_are_those_beside_the_norms(read: Read) -> None:
    table = "val/loss,train/loss,train/grad_norm\n9,3,1\n,2,\n,1,5\n"
    assert read(table).series.loss.tolist() == [3.0, 1.0]
    assert np.isnan(read("grad_norm\n1\n2\n").series.loss).all()


def test_a_loss_that_is_not_there_at_every_norm_is_unknown_and_no_nan_of_the_run(read: Read) -> None:
    recording = read("loss,norm\n3,1\n,2\n1,3\n")
    assert np.isnan(recording.series.loss).all()
    assert recording.run.notes[-1] == "'loss' was not used: it is empty in 1 of 3 rows with a norm"
    diverged = read("loss,norm\n3,1\nnan,2\n")
    np.testing.assert_array_equal(diverged.series.loss, [3.0, np.nan])


def test_skipped_steps(read: Read) -> None:
    assert read("norm,skipped\n1,True\n2,0\n3,\n4,1\n5,false\n").series.skipped.tolist() == [True, 0, 0, True, 0]
    assert read('[{"norm": 1, "skipped": true}, {"norm": 2}]').series.skipped.tolist() == [True, False]


def test_a_recording_of_nothing_else(read: Read) -> None:
    recording = read("1\n2\n3\n")
    run = recording.run
    assert (run.target, run.device, run.precision, run.seed, run.ended) == ("norms.csv", "", "", None, "completed")
    assert (run.steps_requested, recording.steps, recording.series.lr.shape) == (3, 3, (3, 0))
    assert (recording.parameters, recording.modules, recording.statistics.norm.shape) == ((), (), (0, 0))
    assert not recording.series.skipped.any()
    np.testing.assert_array_equal(recording.series.grad_norm_clipped, recording.series.grad_norm)
    np.testing.assert_array_equal(archive.loads(archive.dumps(recording)).series.grad_norm, [1, 2, 3])


REFUSED = {
    "": ["it is empty"],
    "  \n\n": ["it is empty"],
    "step,loss\n1,2\n": ["no column is called grad_norm or norm", "'step', 'loss'"],
    "param norm\n1\n": ["'param norm'"],
    '{"loss": [1]}': ["'loss'"],
    '{"loss": 1}\n{"lr": 2}\n': ["'loss', 'lr'"],
    "1,2\n3,4\n": ["no header says which of its 2 columns"],
    "norm,step\n,1\n": ["there is no norm in it"],
    "norm\n": ["there is no norm in it"],
    "[]": ["there is no norm in it"],
    "norm\n1\n\nabc\n": ["line 4: 'abc' is no norm"],
    "1\n2\nabc\n": ["line 3: 'abc' is no norm"],
    "step,norm\n0,1\n1,0,83\n": ["line 3: 3 cells, but 2"],
    "0,83\n": ["2 columns"],
    "step;norm\n0;0,83\n": ["line 2: '0,83' is no norm"],
    "norm\n1\n-0.5\n": ["line 3: -0.5 is negative"],
    "norm\n-inf\n": ["line 2: -inf is negative"],
    "norm,loss\n1,2\n3,x\n": ["line 3: 'x' is no loss"],
    "[1, true]": ["entry 2: 'True' is no norm"],
    "[1, [2]]": ["entry 2: '[2]' is no norm"],
    '[1, {"norm": 2}]': ["entry 1 is no object"],
    "[1,\n2,\n": ["line 3"],
    '{"norm": 1}\n{"norm": 2\n': ["line 2"],
    '{"norm": [1, 2], "loss": [1]}': ["'loss' has 1 entries, but 'norm' 2"],
    f"[1{'0' * 400}]": ["entry 1", "is no norm"],
}


@pytest.mark.parametrize("content", REFUSED)
def test_what_holds_no_norms_is_refused_in_words(read: Read, content: str) -> None:
    with pytest.raises(RecordingError) as caught:
        read(content)
    assert caught.value.message.startswith("norms.csv: ")
    assert all(words in caught.value.message for words in REFUSED[content]), caught.value.message
    assert caught.value.hint


def test_what_is_no_text(read: Read, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"norms.csv: it is no UTF-8 text"):
        read(b"\xff\xfe1\x00")
    for path in (tmp_path / "missing.csv", tmp_path):
        with pytest.raises(RecordingError, match="cannot read it") as caught:
            load_norms(path)
        assert caught.value.hint
