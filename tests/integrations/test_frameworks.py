"""Which framework a callback is for, and what is said when there is none."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

from gradcheck_cli.integrations.frameworks import find_class


class Old: ...


class New: ...


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A framework under its old name, in use already."""
    old = ModuleType("old_name")
    old.Callback = Old  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "old_name", old)


@pytest.mark.usefixtures("installed")
def test_the_name_that_is_in_use_is_taken() -> None:
    assert find_class("Callback", "extra", "new_name", "old_name") is Old


@pytest.mark.usefixtures("installed")
def test_of_two_in_use_the_first_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    new = ModuleType("new_name")
    new.Callback = New  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "new_name", new)
    assert find_class("Callback", "extra", "new_name", "old_name") is New


def test_what_is_missing_is_said_with_how_to_install_it() -> None:
    with pytest.raises(ImportError, match=r"needs no_such\.pytorch: pip install 'gradcheck_cli\[lightning\]'"):
        find_class("Callback", "lightning", "no_such.pytorch", "neither_such")


@pytest.mark.parametrize("name", ["lightning", "transformers"])
def test_a_callback_without_its_framework_says_what_to_install(name: str) -> None:
    missing = "for name in ('lightning', 'pytorch_lightning', 'transformers'): sys.modules[name] = None"
    source = f"import sys\n{missing}\nimport gradcheck_cli.integrations.{name}"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"pip install 'gradcheck_cli[{name}]'" in done.stderr
