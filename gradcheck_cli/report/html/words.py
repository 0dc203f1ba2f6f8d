"""Text for the page: nothing that acts, nothing that is invisible."""

from __future__ import annotations

from gradcheck_cli.report.view import View

VIEW = View(width=100_000)
"""For what other renderers make: lines of any length, which the browser breaks."""


def clean(text: str) -> str:
    """The text with every control, bidirectional and other unprintable character written as an escape."""
    return VIEW.name(text)


def show_layer(name: str) -> str:
    """A layer's name; the root has none."""
    return clean(name) or "(model)"


def shorten(text: str, longest: int) -> str:
    """At most so many characters; the beginning is left out, because names differ at their ends."""
    if len(text) <= longest:
        return text
    end = text[1 - longest :]
    whole = end.partition(".")[2]
    return f"…{whole if 2 * len(whole) > longest else end}"


def split_lines(text: str) -> list[str]:
    """The lines of a text, without tabs and trailing blanks."""
    return [line.rstrip() for line in text.expandtabs(4).splitlines()]
