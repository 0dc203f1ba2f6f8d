"""The shell: parse, call, write, exit. Commands import what they need when they run, so that --help is quick."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from gradcheck_cli.cli import audit, doctor, init, nan_trace, profile, recommend_clip, report, rules, schema
from gradcheck_cli.errors import GradcheckError


class Group(TyperGroup):
    """The commands. Ctrl-C outside the training steps ends with exit code 2: Typer's own 1 would mean findings."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise GradcheckError("interrupted before there was anything to report") from None


app = typer.Typer(
    cls=Group,
    name="gradcheck",
    help="Gradient diagnostics for PyTorch: which layer, which number, and what to do.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("profile")(profile.profile)
app.command("recommend-clip")(recommend_clip.recommend_clip)
app.command("nan-trace")(nan_trace.nan_trace)
app.command("audit")(audit.audit)
app.command("report")(report.report)
app.command("rules")(rules.rules)
app.command("init")(init.init)
app.command("schema")(schema.schema)
app.command("doctor")(doctor.doctor)


def print_version(wanted: bool) -> None:
    """`gradcheck --version`."""
    if wanted:
        from gradcheck_cli import __version__

        typer.echo(f"gradcheck {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=print_version, is_eager=True, help="Print the version."),
) -> None:
    """Gradient diagnostics for PyTorch: which layer, which number, and what to do."""


def main() -> None:
    """The console script. Exit codes: 0 nothing to report, 1 findings, 2 gradcheck could not do its work."""
    try:
        app()
    except GradcheckError as error:
        from gradcheck_cli.cli.messages import show_error

        show_error(error)
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        print(
            "\ngradcheck failed: this is a bug of gradcheck's, please report it with the lines above", file=sys.stderr
        )
        sys.exit(2)
