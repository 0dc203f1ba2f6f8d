"""A report as a page of HTML."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradcheck_cli import __version__
from gradcheck_cli.errors import OutputError
from gradcheck_cli.records import Report, RuleInfo
from gradcheck_cli.report.view import View

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from gradcheck_cli.report.html.contents import Contents

TEMPLATES = Path(__file__).parents[1] / "templates"
DATA_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def require_extra() -> None:
    """Raise OutputError where the page cannot be made for want of Jinja2; worth asking before a long run."""
    if importlib.util.find_spec("jinja2") is None:
        raise OutputError("an HTML report needs Jinja2", "pip install 'gradcheck_cli[report]'")


def render_html(report: Report, view: View) -> str:
    """One file that holds everything, of a report and its `others`; of the view, what is to be folded counts.

    Raises OutputError where Jinja2 is missing.
    """
    require_extra()
    from gradcheck_cli.report.html.contents import make_contents

    reports = (report, *report.others)
    models = [make_contents(one, f"m{index}-", len(reports) > 1, view) for index, one in enumerate(reports)]
    style, script = read("report.css"), read("report.js")
    return (
        environment()
        .get_template("report.html")
        .render(
            report=report,
            models=models,
            rules=documented(models),
            quiet_rules=silent(models),
            version=__version__,
            style=style,
            script=script,
            policy=policy(style, script),
            data=data_block({chart.key: chart.data for model in models for chart in model.charts}),
        )
    )


@cache
def environment() -> Environment:
    """Escapes everything that no template wrote, and shows what would not print."""
    import jinja2
    from markupsafe import Markup

    from gradcheck_cli.report.html.documentation import inline, render_markdown
    from gradcheck_cli.report.html.heat_image import colour_bar
    from gradcheck_cli.report.html.words import clean, split_lines
    from gradcheck_cli.report.lines import SYMBOLS

    def finish(value: Any) -> Any:
        return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=finish,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(lines=split_lines, markdown=render_markdown, inline=inline)
    made.globals.update(colour_bar=colour_bar, signs=SYMBOLS)
    return made


def read(name: str) -> Markup:
    """A style sheet or script of the templates, as it is."""
    from markupsafe import Markup

    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def policy(style: str, script: str) -> str:
    """A Content Security Policy: these two and images within the page, and nothing else."""
    return (
        f"default-src 'none'; img-src data:; style-src '{digest(style)}'; script-src '{digest(script)}';"
        " base-uri 'none'; form-action 'none'"
    )


def digest(text: str) -> str:
    """As a policy names what it allows."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def data_block(values: Mapping[str, Any]) -> Markup:
    """JSON that may stand in an element of the page: ASCII, and nothing that could end the element."""
    from markupsafe import Markup

    text = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup("".join(DATA_ESCAPES.get(sign, sign) for sign in text))


def documented(models: Iterable[Contents]) -> list[RuleInfo]:
    """Rules that found something or could not judge, in the order of their codes."""
    models = list(models)
    told = {one.code for model in models for one in model.report.diagnosis.findings}
    told |= {one.code for model in models for one in model.report.diagnosis.not_evaluated}
    return [rule for rule in all_rules(models) if rule.code in told]


def silent(models: Sequence[Contents]) -> list[RuleInfo]:
    """Rules that were applied and found nothing."""
    told = documented(models)
    return [rule for rule in all_rules(models) if rule not in told]


def all_rules(models: Iterable[Contents]) -> list[RuleInfo]:
    """Of all reports, each once."""
    rules = {rule.code: rule for model in models for rule in model.report.rules}
    return [rules[code] for code in sorted(rules)]
