"""Lines of styled text, and how to lay them out. A report is a list of them.

Only `Text` is used, never Rich's markup, so that brackets in names mean nothing. Nothing is ever cut off: what is
too wide goes on to the next line.
"""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from gradcheck_cli.report.view import View

STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan", "title": "bold", "quiet": "dim", "ok": "green"}
SYMBOLS = {"error": "✗", "warning": "▲", "info": "•"}


def styled(content: str, style: str = "") -> Text:
    """Text in one of STYLES; `content` has been through a View."""
    return Text().append(content, STYLES.get(style))  # a span, which ends where the text does when more is added


def join(parts: Iterable[Text], gap: str = "  ") -> Text:
    """The parts on one line, with a gap between them."""
    return Text(gap).join(part for part in parts if part.plain)


def pad(text: Text, width: int, right: bool = False) -> Text:
    """At least `width` cells, flush left or right."""
    blank = Text(" " * max(0, width - text.cell_len))
    return blank + text if right else text + blank


def wrap(text: Text, width: int, indent: str = "", first: str | None = None) -> list[Text]:
    """Broken at spaces, or within a word that is wider than a line; `first` stands before the first line."""
    console = Console(file=io.StringIO(), width=width)
    lead = indent if first is None else first
    lines = text.wrap(console, max(1, width - len(indent)), overflow="fold")
    return [Text(lead if index == 0 else indent) + line for index, line in enumerate(lines)]


def to_string(lines: Iterable[Text], view: View) -> str:
    """Render by Rich, with ANSI colours or without; what the environment says of terminals is not asked."""
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=view.width,
        force_terminal=view.color,
        force_jupyter=False,
        color_system="standard" if view.color else None,
        no_color=not view.color,
        legacy_windows=False,
    )
    for line in lines:
        line.rstrip()
        console.print(line, no_wrap=True, overflow="ignore", crop=False, end="\n")
    return stream.getvalue()
