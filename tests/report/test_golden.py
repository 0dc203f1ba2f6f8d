"""What the renderers print, byte for byte. `OVERWRITE_GOLDEN=1 pytest tests/report` writes the files anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gradcheck_cli import __version__
from gradcheck_cli.report.formats import render
from gradcheck_cli.report.view import View
from tests.report.advices import ADVICES
from tests.report.rank_runs import RANKS
from tests.report.reports import REPORTS
from tests.report.traces import TRACES

GOLDEN = Path(__file__).parents[1] / "golden"
ALL = {**REPORTS, **TRACES, **ADVICES, **RANKS}
VIEWS = {
    "table-80.txt": ("table", View(width=80)),
    "table-140.txt": ("table", View(width=140)),
    "table-ascii.txt": ("table", View(width=100, unicode=False)),
    "json": ("json", View()),
}
SERVICES = {
    "md": ("markdown", View()),
    "github.txt": ("github", View()),
    "xml": ("junit", View()),
    "sarif": ("sarif", View()),
}
SHOWN_BY_SERVICES = [
    *("clean", "sick", "linked", "non_finite", "baseline", "baseline-kept", "folded", "hostile", "failed", "several"),
    *("clip-needed", "clip-not-needed", "clip-fix-first", "clip-nan", "clip-baseline", "clip-groups", "clip-hostile"),
    *("trace-clean", "trace-two-origins", "trace-backward", "trace-not-reproduced", "trace-raised", "trace-baseline"),
    *("trace-baseline-kept", "trace-hostile"),
]
SHOWN_OF_RANKS = {
    "ranks": (*VIEWS, "md"),
    "ranks-many": ("table-80.txt", "table-140.txt", "md"),
    "ranks-hostile": ("table-80.txt", "table-ascii.txt", "md"),
}
CASES = [
    *[(name, suffix) for name in ALL for suffix in SHOWN_OF_RANKS.get(name, VIEWS)],
    *[(name, suffix) for name in SHOWN_BY_SERVICES for suffix in SERVICES],
]


@pytest.mark.parametrize(("name", "suffix"), CASES)
def test_output_is_the_golden_file(name: str, suffix: str) -> None:
    format_name, view = (VIEWS | SERVICES)[suffix]
    rendered = render(ALL[name], format_name, view)
    assert isinstance(rendered, str)
    rendered = rendered.replace(f'"version": "{__version__}"', '"version": "VERSION"')
    path = GOLDEN / f"{name}.{suffix}"
    if os.environ.get("OVERWRITE_GOLDEN"):
        path.write_text(rendered, encoding="utf-8", newline="\n")
    assert rendered == path.read_text(encoding="utf-8")
