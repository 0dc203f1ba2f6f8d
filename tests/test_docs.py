"""What the documentation shows is what happens. CONTRIBUTING.md says how pages are written for it."""

from __future__ import annotations

import difflib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from gradcheck_cli.cli import app
from gradcheck_cli.config import Settings, load_settings
from tests.zygote import quick_programs

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, *ROOT.glob("C*.md"), *ROOT.glob("*/README.md")]
ELLIPSIS = "..."
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@dataclass(frozen=True)
class Block:
    """A fenced block; `file` is the name in the comment on its first line, if there is one."""

    language: str
    text: str

    @property
    def file(self) -> str:
        named = re.match(r"# ([\w-]+\.(?:py|yaml|toml))\n", self.text)
        return named[1] if named else ""


@dataclass
class Command:
    """A line after `$ ` and what the page shows below it."""

    line: str
    output: list[str] = field(default_factory=list)
    exit_code: int = 0


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [Block(language, text) for language, text in found]


def commands(block: Block) -> list[Command]:
    """The commands of a console block; `$ echo $?` gives the one before it its exit code."""
    found: list[Command] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:]))
        elif found and found[-1].line == "echo $?":
            found.pop()
            found[-1].exit_code = int(line)
        elif line.strip():
            found[-1].output.append(line)
    return found


def test_a_page_is_read_as_contributing_says() -> None:
    text = "$ gradcheck profile a\n\none\n...\n$ echo $?\n1\n$ make demo\n"
    first, second = commands(Block("console", text))
    assert (first.line, first.output, first.exit_code) == ("gradcheck profile a", ["one", "..."], 1)
    assert (second.line, second.output, second.exit_code) == ("make demo", [], 0)
    assert Block("python", "# my_run.py\nimport torch\n").file == "my_run.py"
    assert Block("python", "# a remark\n").file == ""


# What commands print


@every_page
def test_commands_print_and_exit_as_the_page_says(page: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "sample_models", tmp_path / "sample_models", ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks(page):
        if block.file:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
        for command in commands(block) if block.language == "console" else ():
            if command.line.startswith(("gradcheck ", "python ")):
                done = run(command.line, tmp_path)
                assert done.returncode == command.exit_code, done.stdout
                assert_shown(command.output, done.stdout.replace(f"{tmp_path}{os.sep}", ""))


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line as in a terminal of 100 columns, both streams together."""
    binaries = os.pathsep.join([quick_programs(), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": binaries, "COLUMNS": "100", "PYTHONUTF8": "1", "FORCE_COLOR": ""}
    environment.pop("GITHUB_STEP_SUMMARY", None)
    script = ["sh", "-c", f"exec 2>&1; {line}"]
    return subprocess.run(script, cwd=folder, env=environment, stdout=subprocess.PIPE, encoding="utf-8", check=False)


def assert_shown(shown: list[str], printed: str) -> None:
    """Fail unless the lines shown are those printed, an ELLIPSIS standing for any number of lines."""
    expected = [ELLIPSIS if line == ELLIPSIS else masked(line) for line in shown]
    real = [masked(line) for line in printed.splitlines() if line.strip()]
    if expected and not matches(expected, real):
        difference = "\n".join(difflib.unified_diff(expected, real, "page", "printed", lineterm="", n=99))
        pytest.fail(f"the page shows what is not printed:\n{difference}\n\n{printed}")


def matches(expected: list[str], real: list[str]) -> bool:
    """Whether `real` is `expected`, with any lines in the place of each ELLIPSIS."""
    if not expected:
        return not real
    if expected[0] == ELLIPSIS:
        return any(matches(expected[1:], real[start:]) for start in range(len(real) + 1))
    return bool(real) and expected[0] == real[0] and matches(expected[1:], real[1:])


def masked(line: str) -> str:
    """A line without what differs from machine to machine: fractions, percentages, bars and what is right of them."""
    line = re.sub(r"(torch\s+)\d\S*", r"\1#", line)
    line = re.sub(r"(?<![\w.])[<>]?(\d[\d,]*\.\d+(e[-+]?\d+)?|\d+e[-+]?\d+|\d+(?=%))(?![\w.])", "#", line)
    name, bar, numbers = re.fullmatch(r"([^█-▏]*)([█-▏]*)(.*)", line).groups()  # type: ignore[union-attr]
    if bar:
        bar, numbers = "█", re.sub(r"(?<![\w.])[<>]?\d+(?![\w.])", "#", numbers)
    return " ".join(f"{name}{bar}{numbers}".split())


def test_masking_keeps_words_layers_codes_and_whole_numbers() -> None:
    row = "12  Linear   2.7e-11  ██████▏             3.9e-10  1.6e-12    17    9.5e-12  ✗ error  GC101 GC108"
    assert masked(row) == "12 Linear # █ # # # # ✗ error GC101 GC108"
    assert masked("2.0  Linear   –      0   ok") == masked("2.0  Linear  –  0  ok") != masked("2.0 Linear – 0 no")
    assert masked("  steps  50    torch  2.13.0+cpu") == "steps 50 torch #"
    assert masked("  overhead  0.4% of step time") == masked("  overhead  12% of step time")
    assert masked("p95 5.58, 13,130 parameters") == "p95 #, 13,130 parameters"


def test_the_comparison_sees_what_is_missing_and_what_is_left_out() -> None:
    printed = "a 0.1\n\nb\nc\n"
    for shown in (["a 0.2", "b", "c"], ["...", "b", "..."], ["a 0.3", "...", "c"]):
        assert_shown(shown, printed)
    for shown in (["a 0.1", "c"], ["b"], ["...", "d", "..."], ["c", "...", "b"]):
        with pytest.raises(pytest.fail.Exception):
            assert_shown(shown, printed)


# Files


RUN_ALL = """
import sys
from gradcheck_cli.config import Settings
from gradcheck_cli.pipeline import profile
for target in sys.argv[1:]:
    report, error = profile(target, Settings(steps=3, fail_on="never"))
    assert error is None and report.exit_code == 0 and len(report.series) == 3, (target, error)
    print(target)
"""


def test_every_entrypoint_on_the_pages_trains(tmp_path: Path) -> None:
    targets = []
    for number, page in enumerate(PAGES):
        for block in blocks(page):
            if block.file and "def build(" in block.text:
                path = tmp_path / f"page_{number}_{block.file}"
                path.write_text(block.text, encoding="utf-8")
                targets.append(f"{path}:build")
    done = run(shlex.join(["python", "-c", RUN_ALL, *targets]), tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.split() == targets


@every_page
def test_configurations_on_the_page_are_read(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.file.endswith((".yaml", ".toml")):
            path = tmp_path / block.file
            path.write_text(block.text, encoding="utf-8")
            assert load_settings({}, path) != Settings()


def test_the_page_of_rules_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "build_rules.py"))["page"]()
    assert page == (ROOT / "docs" / "rules.md").read_text(encoding="utf-8"), "run `make docs`"


# Names


def spellings(command: Any) -> Iterator[str]:
    """Names of arguments and options, with those that switch off."""
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_a_command_mentions_every_option_and_no_other(name: str) -> None:
    options = {spelling for spelling in spellings(COMMANDS[name]) if spelling[0] == "-"}
    options |= {"-h", "--help"}
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    table = set(re.findall(r"(?<=`)--?[a-z-]+", " ".join(re.findall(r"^\| (`-[^|]*)\|", text, flags=re.MULTILINE))))
    if name == "rules":  # generated, and about the rules
        assert options == {"-h", "--help"}
    else:
        assert table == options


@every_page
def test_options_that_a_page_mentions_exist(page: Path) -> None:
    known = {spelling for command in COMMANDS.values() for spelling in spellings(command)}
    spans = re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
    lines = [command.line for block in blocks(page) if block.language == "console" for command in commands(block)]
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", "\n".join([*spans, *lines])))
    assert mentioned <= known | {"--help", "--version", "--epochs"}  # the last is of a script in an example


def test_targets_of_make_are_listed_and_those_on_the_pages_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    if shutil.which("make"):
        listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout
        assert {line.split()[1] for line in listed.splitlines() if line.startswith("make ")} == targets
    for page in LINKED:
        for block in blocks(page):
            for name in re.findall(r"^(?:\$ )?make ([a-z-]+)", block.text, flags=re.MULTILINE):
                assert name in targets, f"{page.name}: make {name}"


# Links


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not target.startswith(("https://", "http://", "mailto:")):
            path, _, anchor = target.partition("#")
            destination = (page.parent / path).resolve() if path else page
            assert destination.exists(), target
            assert not anchor or anchor in set(anchors(destination)), target


def anchors(page: Path) -> Iterator[str]:
    """The anchors that GitHub gives to a page's headings."""
    for heading in re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
