"""Settings as keywords of a test."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from gradcheck_cli.config import KINDS, check, suggest
from gradcheck_cli.errors import ConfigError

OUTPUTS = ("format", "output", "log", "step_summary", "quiet", "write_baseline", "accept")
OF_CLIPPING = ("percentile", "horizon", "max_norm", "until_stable", "verify", "verify_against")
"""Settings that a test has no use for, as those above."""


def check_keywords(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords as settings. Raises ConfigError for one that is unknown, or whose value is."""
    known = [name for name in KINDS if name not in (*OUTPUTS, *OF_CLIPPING)]
    for name in keywords:
        if name not in known:
            raise ConfigError(f"there is no setting {name!r}", suggest(name, known))
    given = {name: value for name, value in keywords.items() if value is not None}
    return {name: check(name, plain(value), name) for name, value in given.items()}


def plain(value: Any) -> Any:
    """A path as text, all else as it is."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value
