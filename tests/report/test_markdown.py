"""Markdown: nothing in it is more than text, and it is never too large for GitHub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from gradcheck_cli.records import Finding, NotEvaluated, Report, Severity
from gradcheck_cli.report.markdown import render_markdown, render_within
from gradcheck_cli.report.view import View
from gradcheck_cli.tape import NanTrace
from tests.diagnose.recordings import make_recording
from tests.report.advices import ADVICES
from tests.report.rank_runs import RANKS, make_ranks
from tests.report.reports import REPORTS, make_report
from tests.report.traces import TRACES, make_trace, sqrt

MIB = 1024 * 1024
ALL = {**REPORTS, **TRACES, **ADVICES, **RANKS}
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
DETAILS = re.compile(r"<details><summary>[\w ,]+</summary>\n|</details>\n?")
ATTACKS = (
    "a|b",
    "a`b``c",
    "**bold** _it_ ~~gone~~",
    "[click](https://example.com)",
    "![x](y)",
    "<script>alert(1)</script>",
    "</details><img src=x onerror=y>",
    "a\n\n# Heading\n- item",
    "@everyone #12 GH-3",
    ":warning: www.example.com https://example.com",
    "\\|`\\",
    "| --- | --- |",
    "&lt;b&gt; &#42;",
    "```\ncode",
    "$x$",
    "1. one",
    "-->",
    "\ud800\u202e\x00\u2028",
)


def hostile(name: str) -> Report:
    """A report in which every text that a user can choose is the name."""
    recording = make_recording(steps=2, parameters={f"a{name}.weight": (2, 2), "b.weight": (2, 2)}, notes=(f"a{name}",))
    recording = replace(recording, run=replace(recording.run, target=f"a{name}", model=f"a{name}"))
    ranks = make_ranks([f"a{name}", f"b{name}"], steps=2, backend=f"a{name}")
    findings = [
        Finding("GC101", "some-rule", Severity.ERROR, f"a{name}", f"a{name}", layer=f"a{name}", step=1),
        *[Finding("GC102", "other", Severity.WARNING, f"a{name}", "", layer=f"{k}{name}") for k in "bc"],
    ]
    return make_report(recording, findings, [NotEvaluated("GC103", "third", f"a{name}")], error=f"a{name}", ranks=ranks)


def hostile_trace(name: str) -> Report:
    """The same of an origin."""
    text = f"a{name}"
    origin = sqrt(module=text, op=text, autograd_node=text, explanation=text, fix=text, path=(text,), cause=text)
    return make_trace(NanTrace(38, 37, (), (origin,), notes=(text,)), target=text)


def structure(markdown: str) -> list[str]:
    """The kinds of all blocks, and of what is in a line as far as it is more than text; code is code either way."""
    return list(kinds(PARSER.parse(markdown)))


def kinds(tokens: list[Token]) -> Iterator[str]:
    in_code = False  # where GitHub makes no links, mentions and emojis
    for token in tokens:
        if token.type == "html_block":
            assert DETAILS.fullmatch(token.content), token.content
            yield "details"
        elif token.type == "html_inline":
            assert token.content in ("<code>", "</code>"), token.content
            in_code = token.content == "<code>"
            yield from ["code"] * in_code
        elif token.type == "inline":
            yield from kinds(token.children or [])
        elif token.type == "text":
            assert in_code or not re.search(r"@\w|://|\bwww\.|:\w+:|#\d|GH-\d", token.content), token.content
        else:
            yield "code" if token.type == "code_inline" else token.type


def shown(tokens: list[Token]) -> str:
    """What a reader sees."""
    return "".join(shown(token.children) if token.children else token.content for token in tokens)


@pytest.mark.parametrize("name", ATTACKS)
def test_what_a_name_holds_is_text(name: str) -> None:
    assert_harmless(name)


def assert_harmless(name: str) -> None:
    for make in (hostile, hostile_trace):
        for view in (View(), View(unicode=False)):
            page = render_markdown(make(name), view)
            assert structure(page) == structure(render_markdown(make("x"), view))


@settings(max_examples=60, deadline=None)
@given(name=st.text(st.sampled_from("ab1 |`*_~[]()<>!#@:/\\&;$\n\r\t-=+.wW\"'{}^%\x00\x1b\u202e\ud800é卷")))
def test_no_name_does_anything(name: str) -> None:
    assert_harmless(name)


@pytest.mark.parametrize("name", ["a|b", "[click](x)", "<b>", "a_b_ *c* `d`", "1. x & y", "\\|"])
def test_a_name_is_read_as_it_is(name: str) -> None:
    page = shown(PARSER.parse(render_markdown(hostile(name), View())))
    assert page.count(f"a{name}") >= 8


@pytest.mark.parametrize("name", ALL)
def test_the_verdict_is_the_second_line(name: str) -> None:
    title, blank, verdict, *_ = render_markdown(ALL[name], View()).splitlines()
    assert title.startswith(f"## gradcheck {ALL[name].command}")
    assert blank == ""
    assert re.match(r"\*\*(❌|⚠️|ℹ️|✅) .+\*\*$|- `", verdict)


@pytest.mark.parametrize("name", ALL)
def test_without_unicode_all_is_ascii(name: str) -> None:
    assert render_markdown(ALL[name], View(unicode=False)).isascii()


def large(layers: int, findings: int) -> Report:
    """A model of very many layers, each with a name of its own that is long and not in ASCII."""
    report = REPORTS["clean"]
    names = ["".join(chr(0x4E00 + (7 * i + k) % 500) for k in range(40)) for i in range(layers)]
    one = report.layers[0]
    found = [
        Finding("GC101", "some-rule", Severity.ERROR, f"{name} is sick", f"mend {index}", layer=name)
        for index, name in enumerate(names[:findings])
    ]
    summaries = tuple(replace(one, name=f"{name}{index}") for index, name in enumerate(names))
    return replace(make_report(make_recording(steps=2), found), layers=summaries)


def test_a_large_model_stays_below_a_mebibyte_and_says_so() -> None:
    page = render_markdown(large(9000, 0), View(all_layers=True))
    assert MIB * 0.99 < len(page.encode()) < MIB
    left_out = re.search(r"\*([\d,]+) more rows left out for want of room: (.*)\*", page)
    assert left_out
    assert "`-o report.json`" in left_out[2]
    assert int(left_out[1].replace(",", "")) + page.count("| Linear |") == 9000
    assert "</details>" in page.partition(left_out[0])[2]
    assert page.endswith("*1 more section left out for want of room: `-o report.json` writes all of it*\n")


@pytest.mark.parametrize("room", [4096, 20_000])
def test_what_has_no_room_is_named_the_least_important_first(room: int) -> None:
    page = render_within(large(300, 200), View(all_layers=True), room)
    assert len(page.encode()) <= room
    assert page.startswith("## gradcheck profile")
    assert "**❌ 200 errors" in page
    assert re.search(r"\*\d+ more findings left out", page)
    assert structure(page).count("details") % 2 == 0


def test_a_name_without_end_is_shortened() -> None:
    page = render_markdown(hostile("|" * 30_000), View())
    assert len(page.encode()) < MIB
    assert "characters left out" in page


def test_a_model_of_several_has_its_verdict_at_the_top() -> None:
    head = render_markdown(REPORTS["several"], View()).partition("\n## ")[0]
    assert re.findall(r"`train.py:build (\w+)`: (❌|✅)", head) == [("discriminator", "✅"), ("generator", "❌")]
