"""`gradcheck profile` as a process: streams, files and exit codes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema

from gradcheck_cli import archive
from tests.cli.conftest import Gradcheck, assert_no_frame_of_ours, assert_refused
from tests.zygote import quick_programs

Write = Callable[[str], None]


def strict(text: str) -> Any:
    """The one document in a text, as a strict parser reads it; valid by the schema."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    document = json.loads(text, parse_constant=refuse)
    schema = json.loads(files("gradcheck_cli.report").joinpath("schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, schema)
    return document


def test_a_healthy_model(gradcheck: Gradcheck) -> None:
    ended = gradcheck("profile", "healthy.py:build", "--steps", "5")
    assert ended.returncode == 0
    assert "healthy.py:build" in ended.stdout
    assert "\x1b" not in ended.stdout
    assert ended.stderr == "", "no progress bar and no notice where stderr is no terminal"


def test_a_sick_model_with_files(gradcheck: Gradcheck, folder: Path) -> None:
    outputs = ["-o", "run.json", "-o", "a,b.txt", "--save", "run.npz"]
    ended = gradcheck("profile", "sick:build", "--steps", "5", "-f", "json", *outputs)
    assert ended.returncode == 1
    document = strict(ended.stdout)
    assert document["exit_code"] == 1
    assert [finding["code"] for finding in document["findings"] if finding["severity"] == "error"] == ["GC106"]
    assert (folder / "run.json").read_text() == ended.stdout
    assert "GC106" in (folder / "a,b.txt").read_text(encoding="utf-8")
    assert archive.load(folder / "run.npz").steps == 5
    for name in ("run.json", "a,b.txt", "run.npz"):
        assert name in ended.stderr


def test_json_stands_alone_whatever_the_users_code_prints(gradcheck: Gradcheck, write: Write) -> None:
    write("""
        import atexit, logging, os, subprocess, sys, warnings
        from tiny import *
        print("at import")
        atexit.register(print, "at exit")
        logging.basicConfig(stream=sys.stdout, level="INFO")

        def step(model, batch):
            print("printed"); sys.__stdout__.write("written\\n"); os.write(1, b"raw\\n")
            logging.info("logged"); warnings.warn("warned")
            subprocess.run(["echo", "from a child"])
            with open("/dev/stdout", "w") as file: file.write("to the device\\n")
            return mse(model(batch[0]), batch[1]) * float("nan")

        def build(): return {"model": net(), "dataloader": data(), "training_step": step}
    """)
    ended = gradcheck("profile", "train.py:build", "--steps", "2", "--keep-going", "-f", "json")
    document = strict(ended.stdout)
    assert document["series"]["loss"] == ["NaN", "NaN"]
    assert document["exit_code"] == ended.returncode == 1
    noises = ("import", "printed", "written", "raw", "logged", "warned", "from a child", "the device", "at exit")
    for noise in noises:
        assert noise in ended.stderr


def test_a_reader_that_goes_away_is_no_crash(folder: Path, environment: dict[str, str]) -> None:
    for command in ("profile sick.py:build --steps 2 -f json", "rules"):
        line = f"{quick_programs()}/gradcheck {command}" + " | head -1; echo ${PIPESTATUS[0]}"
        ended = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=environment, text=True, capture_output=True, timeout=120
        )
        assert len(ended.stdout.splitlines()) == 2
        assert ended.stdout.splitlines()[1] in ("0", "1")
        assert ended.stderr == ""


def test_a_full_disk_behind_stdout(gradcheck: Gradcheck, folder: Path) -> None:
    with open("/dev/full", "w") as full:
        ended = gradcheck("profile", "healthy.py:build", "--steps", "2", "-o", "run.json", stdout=full)
    assert ended.returncode == 2
    assert "error: cannot write the report to stdout: No space left" in ended.stderr
    assert_no_frame_of_ours(ended.stderr)
    strict((folder / "run.json").read_text())


def test_a_file_that_cannot_be_imported(gradcheck: Gradcheck, write: Write) -> None:
    write("import json\nprint('loading')\ndef deep(): return json.loads('{')\ndeep()\n")
    ended = gradcheck("profile", "train.py:build", "-f", "json", "-o", "run.json")
    assert_refused(ended, "error: train.py cannot be imported: JSONDecodeError", "in deep", "train.py")
    assert ended.stderr.count("Traceback") == 1


def test_exit_0_at_import_is_no_success(gradcheck: Gradcheck, write: Write) -> None:
    write("import sys\nsys.exit(0)\n")
    assert_refused(gradcheck("profile", "train.py:build"), "train.py cannot be imported", "sys.exit(0)")


def test_a_step_that_fails_after_others(gradcheck: Gradcheck, write: Write, folder: Path) -> None:
    write("""
        from tiny import *

        def step(model, batch):
            if float(batch[0][0, 0]) == 3: raise SystemExit(0)
            return mse(model(batch[0]), batch[1])

        def build(): return {"model": net(), "dataloader": data(), "training_step": step}
    """)
    ended = gradcheck("profile", "train.py:build", "-f", "json", "-o", "run.txt", "--fail-on", "never")
    assert ended.returncode == 2
    document = strict(ended.stdout)
    assert document["exit_code"] == 2
    assert document["run"]["steps"] == 2
    assert "step 2" in document["error"]
    for text in ((folder / "run.txt").read_text(encoding="utf-8"), ended.stderr):
        assert "the code called sys.exit(0)" in text
        assert "step 2" in text
    assert "raise SystemExit(0)" in ended.stderr, "the user's traceback"
    assert_no_frame_of_ours(ended.stderr)


def test_a_device_that_is_not_there(gradcheck: Gradcheck) -> None:
    ended = gradcheck("profile", "healthy.py:build", "--device", "cuda:77")
    assert_refused(ended, "error: cuda:77 is not there", "hint: use --device cpu")


def test_outputs_are_where_gradcheck_was_started(gradcheck: Gradcheck, write: Write, folder: Path) -> None:
    write("import os\nos.makedirs('deep')\nos.chdir('deep')\nfrom healthy import build\n")
    ended = gradcheck("profile", "train.py:build", "--steps", "2", "-q", "-o", "run.json")
    assert ended.returncode == 0
    assert ended.stderr == "", "quiet"
    strict((folder / "run.json").read_text())
