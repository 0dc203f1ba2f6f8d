"""The frameworks' classes, imported when a callback is."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any


def find_class(name: str, extra: str, *modules: str) -> Any:
    """The class of the first of the modules that is in use already, or else can be imported.

    Raises ImportError that says what to install.
    """
    for module in sorted(modules, key=lambda module: module not in sys.modules):
        try:
            return getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != module.partition(".")[0]:
                raise
    raise ImportError(f"GradcheckCallback needs {modules[0]}: pip install 'gradcheck_cli[{extra}]'")
