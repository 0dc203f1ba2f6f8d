"""What settings are called on the command line."""

from __future__ import annotations


def as_flag(name: str) -> str:
    """A setting's name as it is typed: --max-norm."""
    return f"--{name.replace('_', '-')}"
