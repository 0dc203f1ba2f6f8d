"""Libraries that only some loggers need."""

from __future__ import annotations

import importlib
from typing import Any

from gradcheck_cli.errors import ConfigError


def load_extra(module: str) -> Any:
    """A module of an optional library. Raises ConfigError, with what to install, where it cannot be imported."""
    library = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"--log {library} needs {library}, which cannot be imported: {error}",
            f"pip install 'gradcheck_cli[{library}]', or pip install {library}",
        ) from error
