"""HTML pages taken apart, for the tests of the HTML report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from gradcheck_cli.records import Report
from gradcheck_cli.report.formats import render
from gradcheck_cli.report.view import View

VOID = {"meta", "link", "br", "input", "img", "hr"}


@dataclass
class Element:
    """A tag with what is in it."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, tag: str = "", **attributes: str) -> list[Element]:
        """Those below with that tag and those attributes, in the order of the page; `class_` for class."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            one
            for one in self.walk()
            if tag in ("", one.tag) and all(one.attributes.get(name) == value for name, value in wanted.items())
        ]

    def walk(self) -> Iterator[Element]:
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child.walk()


class Reader(HTMLParser):
    """Builds elements; an end tag without its start is an error, as is a start without its end."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(html: str) -> Element:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert len(reader.open) == 1
    return reader.open[0]


def make_page(report: Report, view: View | None = None) -> Element:
    html = render(report, "html", view)
    assert isinstance(html, str)
    return parse(html)


def data_of(page: Element) -> Mapping[str, Any]:
    """What the page's script reads."""
    (block,) = page.all("script", type="application/json")
    read: dict[str, Any] = json.loads(block.text)
    return read
