"""How a report is to be shown to a person."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

TYPOGRAPHY = str.maketrans(
    {
        "→": "->",
        "←": "<-",
        "×": "x",
        "–": "-",
        "—": "-",
        "−": "-",
        "…": "...",
        "·": "*",
        "≥": ">=",
        "≤": "<=",
        "±": "+-",
    }
    | {"‘": "'", "’": "'", "“": '"', "”": '"', "✓": "ok", "✗": "X", "▲": "!", "•": "-", "─": "-", "│": "|", "█": "#"}
)


@dataclass(frozen=True)
class View:
    """`width` in terminal cells. Without `unicode` everything is ASCII.

    `all_layers` folds nothing, and leaves out no rank; `depth` joins the layers that share so many components of their
    names. `all_ops` lists every operation of a step that was replayed. `depth_plot` draws one or does not; None leaves
    it to the width.
    `folder` is the working directory as seen from the repository's root, "" for the root itself: lines of source are
    given from the working directory, and services that show them beside the code want them from the root.
    """

    width: int = 80
    color: bool = False
    unicode: bool = True
    all_layers: bool = False
    depth: int | None = None
    all_ops: bool = False
    depth_plot: bool | None = None
    folder: str = ""

    @staticmethod
    def of(
        stream: TextIO,
        *,
        all_layers: bool = False,
        depth: int | None = None,
        all_ops: bool = False,
        depth_plot: bool | None = None,
    ) -> View:
        """What suits a stream: colour on a terminal unless NO_COLOR is set, ASCII unless its encoding is a UTF."""
        color = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        unicode = (getattr(stream, "encoding", None) or "ascii").lower().startswith("utf")
        width = shutil.get_terminal_size(fallback=(100, 24)).columns
        return View(width, color, unicode, all_layers, depth, all_ops, depth_plot, folder_in_repository())

    def name(self, text: str) -> str:
        """A name as it is, but whatever would not print is escaped, so that it cannot act on the terminal."""
        printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
        return printable if self.unicode else printable.encode("ascii", "backslashreplace").decode("ascii")

    def prose(self, text: str) -> str:
        """A sentence: like `name`, except that without `unicode` typographic signs become their ASCII likeness."""
        return self.name(text if self.unicode else text.translate(TYPOGRAPHY))


def folder_in_repository() -> str:
    """The working directory as seen from GITHUB_WORKSPACE, where a step of GitHub Actions runs within it."""
    root, here = os.environ.get("GITHUB_WORKSPACE"), Path.cwd()
    if not root or not here.is_relative_to(Path(root).resolve()):
        return ""
    return here.relative_to(Path(root).resolve()).as_posix().removeprefix(".")
