"""A script runs as `python script.py` or `python -m module` runs it, and leaves this interpreter as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gradcheck_cli.drive.script import ScriptStop, describe_failure, run
from gradcheck_cli.errors import TargetError
from gradcheck_cli.targets import Script
from tests.drive.conftest import assert_only_the_users_frames

Write = Callable[[str, str], Path]

ASK = """
    '''Its documentation.'''
    import dataclasses, json, os, pickle, sys
    {sibling}

    @dataclasses.dataclass
    class Config:
        lr: float = 0.1

    def state():
        main = sys.modules["__main__"]
        return {{
            "name": __name__, "file": __file__, "doc": __doc__, "package": __package__, "argv": sys.argv,
            "path": sys.path[0], "cwd": os.getcwd(), "main": vars(main) is globals(), "sibling": word,
            "spec": __spec__ and __spec__.name, "loader": __loader__.name,
            "annotation": str(dataclasses.fields(Config)[0].type),
            "pickled": pickle.loads(pickle.dumps(Config(3))) == Config(3),
        }}

    if __name__ == "__main__":
        with open("answer.json", "w") as file:
            json.dump(state(), file)
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a file below the working directory."""
    monkeypatch.chdir(tmp_path)

    def save(name: str, source: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(textwrap.dedent(source))
        return path

    return save


def answer() -> Any:
    return json.loads(Path("answer.json").read_text())


@pytest.mark.parametrize(
    ("words", "sibling"),
    [
        (["train.py", "--lr", "1", "-x"], "from sibling import word"),
        (["folder/train.py"], "from sibling import word"),
        (["-m", "folder.train", "--lr", "1"], "from .sibling import word"),
        (["-m", "folder"], "from .sibling import word"),
    ],
)
def test_it_sees_what_it_would_see_under_python(words: list[str], sibling: str, write: Write) -> None:
    source = ASK.format(sibling=sibling)
    for name, text in {"train": source, "folder/train": source, "folder/__main__": source}.items():
        write(f"{name}.py", text)
    for name in ("sibling", "folder/sibling"):
        write(f"{name}.py", "word = 'hello'")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, *words], check=True, env=environment)
    expected = answer()
    is_module = words[0] == "-m"
    run(Script(words[is_module], tuple(words[is_module + 1 :]), is_module))
    assert answer() == expected


def test_nothing_is_left_of_it(write: Write) -> None:
    write("folder/train.py", "import sys\nsys.path.insert(0, 'a')\nsys.path.append('b')\nsys.argv.append('c')\n")
    before = list(sys.path), list(sys.argv), sys.modules["__main__"]
    for script in (Script("folder/train.py"), Script("folder.train", (), is_module=True)):
        run(script)
        assert (list(sys.path), list(sys.argv), sys.modules["__main__"]) == before


@pytest.mark.parametrize("way", ["sys.exit()", "sys.exit(0)", "raise SystemExit", "pass"])
def test_success_is_no_error(way: str, write: Write) -> None:
    write("train.py", f"import sys\n{way}\n")
    run(Script("train.py"))


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("sys.exit('no data')", "the code called sys.exit('no data')"),
        ("sys.exit(2)", "the code called sys.exit(2)"),
        ("{}['lr']", "KeyError: 'lr'"),
        ("import torch; torch.ones(2) @ torch.ones(3)", "RuntimeError: inconsistent tensor size"),
        ("raise BaseException('odd')", "BaseException: odd"),
    ],
)
def test_failure_is_an_error_with_the_users_own_frames(way: str, message: str, write: Write) -> None:
    write("train.py", f"import sys\ndef main():\n    {way}\nmain()\n")
    with pytest.raises(TargetError) as failure:
        run(Script("train.py", ("--lr", "1")))
    assert failure.value.message.startswith(f"train.py --lr 1 failed: {message}")
    assert_only_the_users_frames(failure.value.details)
    assert "line 4, in <module>" in failure.value.details


@pytest.mark.parametrize(
    ("way", "failure"),
    [
        ("sys.exit(3)", "the code called sys.exit(3)"),
        ("raise ValueError('loss is nan')", "the code raised ValueError: loss is nan"),
        ("assert not 'nan'", "the code raised AssertionError: (no message)"),
        ("import torch; torch.linalg.cholesky(torch.full((2, 2), torch.nan))", "_LinAlgError: linalg.cholesky: "),
        (
            "from torch.distributions import Normal as N; N(float('nan'), 1, validate_args=True)",
            "ValueError: Expected parameter",
        ),
        ("import json; json.loads('x')", "json raised JSONDecodeError: Expecting value"),
    ],
)
def test_who_raised_what(way: str, failure: str, write: Write) -> None:
    write("train.py", f"import sys\n{way}\n")
    with pytest.raises(TargetError) as raised:
        run(Script("train.py"))
    assert describe_failure(raised.value).startswith(failure)


def test_a_syntax_error_says_where(write: Write) -> None:
    write("train.py", "model = (\n")
    with pytest.raises(TargetError, match="SyntaxError") as failure:
        run(Script("train.py"))
    assert "train.py" in failure.value.details


def test_ctrl_c_passes(write: Write) -> None:
    write("train.py", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        run(Script("train.py"))


@pytest.mark.parametrize("code", ["0", "1"])
def test_ctrl_c_that_becomes_an_exit_is_still_one(code: str, write: Write) -> None:
    """Lightning does this; and Ctrl-C does afterwards what it did before."""
    write(
        "train.py",
        f"""
        import signal, sys
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            sys.exit({code})
        """,
    )
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(Script("train.py"))
    assert signal.getsignal(signal.SIGINT) is before


def test_an_exit_after_a_ctrl_c_that_is_over_is_a_failure(write: Write) -> None:
    write("train.py", "import sys\ntry: raise KeyboardInterrupt\nexcept KeyboardInterrupt: pass\nsys.exit(1)")
    with pytest.raises(TargetError, match=r"sys.exit\(1\)"):
        run(Script("train.py"))


AT_EXIT = """
    import atexit, pickle, sys

    class Config:
        pass

    @atexit.register
    def finish():
        from {package}helper import word
        main = sys.modules["__main__"]
        print(word, type(pickle.loads(pickle.dumps(Config()))).__module__, main.Config is Config, sys.argv[1:])
"""


@pytest.mark.parametrize("words", [["folder/train.py", "-x"], ["-m", "folder.train", "-x"]])
def test_its_exit_handlers_find_what_they_find_under_python(words: list[str], write: Write) -> None:
    is_module = words[0] == "-m"
    write("folder/train.py", AT_EXIT.format(package="." if is_module else ""))
    write("folder/helper.py", "word = 'hello'")
    place, *arguments = words[is_module:]
    ours = f"""
        from gradcheck_cli.drive.script import run
        from gradcheck_cli.targets import Script
        import atexit, sys
        atexit.register(lambda: print("after it"))
        run(Script({place!r}, {tuple(arguments)!r}, {is_module}))
        print("ended", sys.argv[1:])
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    under_python, under_us = (
        subprocess.run([sys.executable, *command], check=True, env=environment, capture_output=True, text=True)
        for command in (words, ["-c", textwrap.dedent(ours)])
    )
    assert "Error" not in under_us.stderr
    assert under_us.stdout.splitlines() == ["ended []", *under_python.stdout.splitlines(), "after it"]
    assert under_python.stdout == "hello __main__ True ['-x']\n"


def test_a_stop_runs_its_finally_blocks_past_its_handlers(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise ScriptStop

    monkeypatch.setattr(sys, "stop_here", stop, raising=False)
    write(
        "train.py",
        """
        import sys
        from pathlib import Path
        try:
            try:
                sys.stop_here()
            except Exception:
                Path("handled").touch()
        finally:
            Path("finally").touch()
        Path("after").touch()
        """,
    )
    run(Script("train.py"))
    assert {name for name in ("handled", "finally", "after") if Path(name).exists()} == {"finally"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.py"], "there is no file nowhere.py"),
        (["folder"], "there is no file folder"),
        (["-m", "nowhere"], "there is no module nowhere"),
        (["-m", "folder.nowhere"], "there is no module folder.nowhere"),
        (["-m", "folder.train.deeper"], "there is no module folder.train.deeper"),
        (["-m", "broken.train"], "-m broken.train failed: ModuleNotFoundError: No module named 'not_installed'"),
        (["-m", "raising.train"], "-m raising.train failed: ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_missing_is_said(words: list[str], message: str, write: Write) -> None:
    for name in ("folder/__init__", "folder/train", "broken/train", "raising/train"):
        write(f"{name}.py", "")
    write("broken/__init__.py", "import not_installed")
    write("raising/__init__.py", "1 / 0")
    is_module = words[0] == "-m"
    with pytest.raises(TargetError) as failure:
        run(Script(words[is_module], (), is_module))
    assert failure.value.message == message


FORKS = """
    import atexit, os, sys
    from pathlib import Path

    def child(number, how):
        atexit.register(Path(f"exit-{number}").touch)
        how()

    codes = []
    for number, how in enumerate([lambda: None, lambda: sys.exit(3), lambda: sys.exit("text"), lambda: 1 / 0]):
        process = os.fork()
        if not process:
            child(number, how)
            break
        codes.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    else:
        Path("codes").write_text(str(codes))
"""

PROCESSES = """
    import multiprocessing, sys, torch
    from pathlib import Path
    from torch.utils.data import DataLoader, Dataset

    class Numbers(Dataset):
        def __len__(self): return 8
        def __getitem__(self, index): return torch.tensor(index)

    def square(number):
        return number * number

    if __name__ == "__main__":
        batches = DataLoader(Numbers(), batch_size=2, num_workers=2, multiprocessing_context=sys.argv[1])
        with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
            Path("seen").write_text(str([*torch.cat(list(batches)).tolist(), pool.map(square, [3])]))
"""


def test_processes_that_it_forks_end_as_under_python(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    write("train.py", FORKS)
    run(Script("train.py"))
    assert Path("codes").read_text() == "[0, 3, 1, 1]"
    assert all(Path(f"exit-{number}").exists() for number in range(4))
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "text"
    assert lines[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_its_workers_know_its_classes(method: str, write: Write) -> None:
    write("train.py", PROCESSES)
    run(Script("train.py", (method,)))
    assert Path("seen").read_text() == str([*range(8), [9]])


def test_a_script_shows_warnings_in_its_own_way(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, int]] = []

    def known(message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
        shown.append((Path(filename).name, lineno))

    monkeypatch.setattr(warnings, "showwarning", known)
    write(
        "train.py",
        """
        import warnings
        warnings.warn("first")
        before = warnings.showwarning
        warnings.showwarning = lambda message, category, filename, lineno, *rest: before(message, category, "own", 7)
        warnings.warn("second")
        """,
    )
    run(Script("train.py"))
    assert shown == [("train.py", 3), ("own", 7)]
    assert warnings.showwarning is not known  # the script's stays, as everything of a script's does
    write("train.py", "import warnings\nwarnings.warn('third')")
    monkeypatch.setattr(warnings, "showwarning", known)
    run(Script("train.py"))
    assert shown[2:] == [("train.py", 2)]
    assert warnings.showwarning is known
