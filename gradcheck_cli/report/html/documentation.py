"""The Markdown that rules are documented in, as HTML: headings, paragraphs, lists, code. Everything else is text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from markupsafe import Markup

from gradcheck_cli.report.html.words import clean

ITEM = re.compile(r"(?:(\d+)\.|[-*]) +(.*)")
INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")


def render_markdown(text: str, top: int) -> Markup:
    """HTML in which a second-level heading has level `top`; a first-level one, the rule's name, is left out."""
    return Markup("\n").join(
        block for chunk, is_code in split_code(text) for block in (code(chunk) if is_code else prose(chunk, top))
    )


def split_code(text: str) -> Iterator[tuple[str, bool]]:
    """Fenced pieces and those between them."""
    for index, piece in enumerate(re.split(r"^```.*$", text, flags=re.MULTILINE)):
        yield piece, index % 2 == 1


def code(text: str) -> Iterator[Markup]:
    """As it is."""
    yield Markup("<pre><code>{}</code></pre>").format("\n".join(map(clean, text.strip("\n").splitlines())))


def prose(text: str, top: int) -> Iterator[Markup]:
    """Blocks, apart from each other by blank lines."""
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.splitlines()
        if lines and lines[0].startswith("#"):
            marks, _, title = lines[0].partition(" ")
            if len(marks) > 1:
                yield tag(f"h{min(6, top + len(marks) - 2)}", inline(title))
            lines = lines[1:]
        if lines:
            yield listed(lines) if ITEM.match(lines[0]) else tag("p", inline(" ".join(lines)))


def listed(lines: list[str]) -> Markup:
    """A list; a line that begins no item goes on with the one before it."""
    items: list[str] = []
    for line in lines:
        if found := ITEM.match(line):
            items.append(found[2])
        else:
            items[-1] += f" {line.strip()}"
    first = ITEM.match(lines[0])
    rows = Markup("").join(tag("li", inline(item)) for item in items)
    return tag("ol" if first and first[1] else "ul", rows)


def inline(text: str) -> Markup:
    """Code and strong words; everything else escaped."""
    parts: list[Markup] = []
    end = 0
    for found in INLINE.finditer(text):
        parts.append(Markup.escape(clean(text[end : found.start()])))
        parts.append(tag("code", clean(found[1])) if found[1] else tag("strong", clean(found[2])))
        end = found.end()
    return Markup("").join([*parts, Markup.escape(clean(text[end:]))])


def tag(name: str, content: str | Markup) -> Markup:
    """An element; its content is escaped unless it is Markup."""
    return Markup("<{0}>{1}</{0}>").format(Markup(name), content)
