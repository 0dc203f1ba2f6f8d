"""GitHub-flavoured Markdown, piece by piece, so that no text can be more than text in it.

A name is a code span, a sentence has its markup escaped, and whatever would not print is escaped visibly before that.
Nothing here may hold a line break but what `fence` and `table` put there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gradcheck_cli.report.view import TYPOGRAPHY, View

LONGEST = 2000
GLUE = "\N{WORD JOINER}"  # unseen, and no link, mention or emoji goes across it
PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
SPECIAL = re.compile(r"[\\`*\[\]~$]|(?<![^\W_])_|_(?![^\W_])|^[=#>]|^[-+](?=[-\s]|$)")
NUMBERING = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")
ENTITIES = {"<": "&lt;", "|": "&#124;", "&": "&amp;"}
LINKS = re.compile(r"@(?=\w)|#(?=\d)|:(?=//)|www(?=\.)|:(?=[\w+-]+:)|(?<=\bGH)-(?=\d)", re.IGNORECASE)
SIGNS = {"✗": "❌", "▲": "⚠️", "•": "ℹ️", "✓": "✅"}


def shorten(text: str) -> str:
    """The text, or its beginning and end with the number of characters between them."""
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]} … ({len(text) - 2 * half:,} characters left out) … {text[-half:]}"


def prose(text: str, view: View) -> str:
    """A sentence that is nothing but text: no markup, no HTML, no link, no mention, no emoji, no formula."""
    unlinked = LINKS.sub(lambda found: f"{found[0]}{GLUE}", view.name(shorten(text)))
    escaped = SPECIAL.sub(lambda found: f"\\{found[0]}", unlinked)
    escaped = NUMBERING.sub(r"\1\\\2", escaped)
    return re.sub("[<|&]", lambda found: ENTITIES[found[0]], escaped)


def code(text: str, view: View) -> str:
    """A name as a code span; as HTML where it holds what a code span or the cell of a table could not."""
    name = view.name(shorten(text))
    if name == name.strip() != "" and not re.search("[`|]", name):
        return f"`{name}`"
    return f"<code>{PUNCTUATION.sub(lambda found: f'&#{ord(found[0])};', name)}</code>"


def fence(lines: Iterable[str], view: View, language: str = "") -> str:
    """A block of code behind a fence that is longer than any within; ends with a line break."""
    content = "\n".join(view.name(shorten(line).expandtabs(4)) for line in lines)
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    rail = "`" * max(3, longest + 1)
    return f"{rail}{language}\n{content}\n{rail}\n"


def table_head(titles: Sequence[str], right: Sequence[bool]) -> str:
    """The first two lines of a table; `right` says which columns hold numbers."""
    marks = ["--:" if flush else "---" for flush in right]
    return row(titles) + row(marks)


def row(cells: Iterable[str]) -> str:
    """One line of a table, of cells that are Markdown already."""
    return f"| {' | '.join(cells)} |\n"


def sign(symbol: str) -> str:
    """The table's sign of a severity, as GitHub shows it in colour."""
    return SIGNS.get(symbol, symbol)


def finish(markdown: str, view: View) -> str:
    """The same in ASCII, if the view asks for that: Markdown reads entities."""
    if view.unicode:
        return markdown
    return markdown.replace(GLUE, "&#8288;").translate(TYPOGRAPHY).encode("ascii", "xmlcharrefreplace").decode("ascii")
