"""Run a script again in a fresh process."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from gradcheck_cli.observe.nan.randomness import RandomState
from gradcheck_cli.tape import Tape
from gradcheck_cli.targets import Script
from gradcheck_cli.tracing.script_replay import Answer, Request
from gradcheck_cli.tracing.script_watch import Span
from gradcheck_cli.tracing.session import Repairs

CODE = "import sys; sys.path[:] = {path!r}; from gradcheck_cli.tracing.script_replay import main; main({folder!r})"


@dataclass(frozen=True)
class Beginning:
    """What a script finds when it starts: it may change any of it."""

    folder: Path
    environment: Mapping[str, str]
    path: tuple[str, ...]
    random: RandomState

    @classmethod
    def now(cls) -> Beginning:
        """As things are."""
        return cls(Path.cwd(), dict(os.environ), tuple(sys.path), RandomState())


def repaired(script: Script, beginning: Beginning, span: Span, step: int, repairs: Repairs) -> Tape | None:
    """What is left of a step with repairs: a tape, without sinks if it is finite; None where the script failed."""
    there = replace(span, first=step, last=step)
    answer = replay(Request(script, beginning.random, there, 0, repairs), beginning)
    return answer.tape or (None if answer.failure else Tape(step, (), ()))


def replay(request: Request, beginning: Beginning) -> Answer:
    """Run the script from the same beginning and trace steps of the span. What it prints was printed before."""
    with TemporaryDirectory() as folder:
        Path(folder, "request").write_bytes(pickle.dumps(request))
        code = CODE.format(path=list(beginning.path), folder=folder)
        errors = Path(folder, "errors")  # no pipe: what the script starts and leaves running would hold it open
        with errors.open("wb") as stream:
            done = subprocess.run(
                [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", code],  # type: ignore[attr-defined]
                cwd=beginning.folder,
                env=dict(beginning.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                check=False,
            )
        answer = Path(folder, "answer")
        if answer.is_file():
            return pickle.loads(answer.read_bytes())  # type: ignore[no-any-return]
        last = errors.read_text(errors="replace").strip().splitlines()[-1:]
    return Answer(failure=" ".join([f"run again, its process ended with code {done.returncode}", *last]))
