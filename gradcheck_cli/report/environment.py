"""The environment as text to paste into a bug report."""

from __future__ import annotations

from collections.abc import Mapping


def render_environment(sections: Mapping[str, Mapping[str, str]]) -> str:
    """A line for each value, in columns, section after section; of an empty section the name alone."""
    width = max(len(name) for members in sections.values() for name in members)
    parts = [
        [title, *(f"  {name:<{width}}  {one_line(value)}" for name, value in members.items())] if members
        else [title, "  none"]
        for title, members in sections.items()
    ]  # fmt: skip
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def one_line(text: str) -> str:
    """A value without line breaks or other characters that do not print."""
    return "".join(character if character.isprintable() else " " for character in text)
