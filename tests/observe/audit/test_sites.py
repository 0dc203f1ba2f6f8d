"""Which of the user's lines led to a call, found by the compiled module and without it."""

from __future__ import annotations

import sys
from threading import Thread
from typing import Any

import pytest

from gradcheck_cli.observe.audit.sites import USERS, Sites, path_of, users_frames
from gradcheck_cli.observe.native import library

assert library.COMPILED is not None
FROM_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="the compiled module walks frames from Python 3.11 on")
SCRIPT = """
def step():
    return tell()

def train():
    first = step(); second = step()
    return [first, second, *(step() for _ in range(2))]

seen = train()
"""
TRAIN, HELPER = "/home/me/train.py", "/home/me/helper.py"


def run(tell: Any, name: str = "__main__", filename: str = TRAIN) -> list[Any]:
    known: dict[str, Any] = {"__name__": name, "tell": tell}
    exec(compile(SCRIPT, filename, "exec"), known)
    return list(known["seen"])


@pytest.mark.parametrize("compiled", [True, False])
def test_a_path_has_a_number_and_its_innermost_line(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(library, "COMPILED", None)
    sites = Sites()
    first, second, *later = run(sites.here)
    assert {line for _, line in (first, second, *later)} == {(TRAIN, 3)}
    assert first[0] == second[0]  # two calls on one line are one path
    assert later[0] == later[1] != first
    assert run(sites.here) == [first, second, *later]  # the same lines, compiled anew


@FROM_311
@pytest.mark.parametrize("name", ["__main__", "train"])
def test_the_compiled_walk_finds_the_frames_that_python_finds(name: str) -> None:
    def both() -> tuple[Any, Any]:
        assert library.COMPILED is not None
        return library.COMPILED.users_path(USERS), path_of(users_frames(sys._getframe()))

    for found, expected in run(both, name):
        assert found[0] == expected[0]
        assert found[2:] == expected[2:]  # in this frame itself, Python has gone on meanwhile


@FROM_311
def test_the_walk_ends_at_the_script() -> None:
    def depth() -> int:
        assert library.COMPILED is not None
        return len(library.COMPILED.users_path(USERS) or ()) // 2

    assert run(depth)[0] == 4  # `depth`, and three of the script's
    assert run(depth, "train")[0] > 4  # what imported it is the user's, too: this test


def test_a_thread_has_a_path_of_its_own() -> None:
    sites, found = Sites(), list[Any]()
    thread = Thread(target=lambda: found.extend(run(sites.here, filename=HELPER)))
    thread.start()
    thread.join()
    assert found[0][1] == (HELPER, 3)
    assert found[0] != run(sites.here)[0]


@FROM_311
def test_an_error_while_asking_whose_a_file_is_comes_through() -> None:
    class Refusing(dict[str, bool]):
        def __missing__(self, name: str) -> bool:
            raise RuntimeError(name)

    assert library.COMPILED is not None
    with pytest.raises(RuntimeError, match="test_sites"):
        library.COMPILED.users_path(Refusing())


@FROM_311
def test_walking_keeps_nothing() -> None:
    assert library.COMPILED is not None
    path = library.COMPILED.users_path(USERS)
    assert path is not None
    before = sys.getrefcount(sys._getframe().f_code), sys.getrefcount(USERS)
    for _ in range(100):
        library.COMPILED.users_path(USERS)
    assert (sys.getrefcount(sys._getframe().f_code), sys.getrefcount(USERS)) == before
