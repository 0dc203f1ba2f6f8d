"""Write docs/rules.md from the rules' own documentation; `make docs` runs it, a test tells when it is due."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

from gradcheck_cli.diagnose.diagnosis import ALL_RULES
from gradcheck_cli.diagnose.nan.causes import CAUSES
from gradcheck_cli.records import RuleInfo

FAMILIES = {
    "GC1": "GC1xx: flow through the layers",
    "GC2": "GC2xx: stability over the steps",
    "GC3": "GC3xx: non-finite values and magnitudes",
    "GC4": "GC4xx: clipping, judged by recommend-clip",
    "GC5": "GC5xx: the training loop of a script",
    "GC6": "GC6xx: causes: structure, initialisation, updates, batches",
    "GC7": "GC7xx: the ranks of a distributed run",
    "GC8": "GC8xx: shifts since a baseline",
}
INTRODUCTION = """\
# Rules

Rules run on every recording; those on clipping (GC4xx) judge the advice of [recommend-clip](recommend-clip.md), and
only there, those on the training loop (GC5xx) judge a script's own one, those on ranks (GC7xx) a run of several
processes, and those on shifts (GC8xx) hold a run against a [baseline](baseline.md). `gradcheck rules` lists them,
`gradcheck rules GC101` prints the documentation of one. `--select` and `--ignore` choose by code or by its beginning
(`--select GC1,GC203`), and a configuration file can give a code another severity: see
[profile](profile.md#configuration). A rule that cannot judge a run says so in the report, under "not evaluated", with
the reason.

The severity below is the usual one; a finding can deviate, and its rule says when. An `error` is certain and harmful, a
`warning` probably harmful, `info` worth knowing. A healthy model gets no error and no warning.

This page is made of the rules' docstrings by `make docs`: edit those.
"""
CATALOGUE = """\
## Causes of non-finite values

What [nan-trace](nan-trace.md) knows. `gradcheck rules nan` lists them, `gradcheck rules` and one's name prints what
happens and how to repair it.
"""


def page() -> str:
    """The whole page as Markdown."""
    rules = [rule.info for rule in ALL_RULES]
    sections = [INTRODUCTION]
    for family, members in groupby(rules, key=lambda rule: rule.code[:3]):
        sections += family_section(FAMILIES[family], list(members))
    sections += [CATALOGUE, cause_table()]
    return "\n".join(sections)


def family_section(title: str, rules: list[RuleInfo]) -> list[str]:
    """A heading, a table of the family's rules, and each one's documentation."""
    rows = [
        f"| [{rule.code}](#{anchor(rule)}) | {rule.name} | {rule.severity.value} | {rule.summary} |" for rule in rules
    ]
    table = ["| code | name | severity | detects |", "|---|---|---|---|", *rows]
    return [f"## {title}\n", "\n".join(table) + "\n", *(lower_headings(rule.documentation) + "\n" for rule in rules)]


def cause_table() -> str:
    """The catalogue of nan-trace, a row for each cause."""
    rows = [f"| `{cause.id}` | {', '.join(cause.phases)} | {cause.title} |" for cause in CAUSES]
    return "\n".join(["| cause | phases | what happens |", "|---|---|---|", *rows]) + "\n"


def anchor(rule: RuleInfo) -> str:
    """The address of a rule's heading on the page."""
    return f"{rule.code.lower()}-{rule.name}"


def lower_headings(documentation: str) -> str:
    """The documentation with its headings two levels down, below a family's."""
    return re.sub(r"^(#{1,2}) ", r"##\1 ", documentation, flags=re.MULTILINE)


if __name__ == "__main__":
    (Path(__file__).parent / "rules.md").write_text(page(), encoding="utf-8")
