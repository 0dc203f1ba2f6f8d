"""gradcheck schema"""

from __future__ import annotations

import json
import sys
from typing import Annotated, get_args

import typer

from gradcheck_cli.cli import format_options, gate_options, log_options, options, rank_options
from gradcheck_cli.errors import ConfigError

What = Annotated[str, typer.Argument(help="config: gradcheck.yaml; report: what -f json prints.")]


def schema(what: What = "config") -> None:
    """Print the JSON Schema of the configuration, or of the JSON report."""
    from gradcheck_cli.cli.streams import emit

    if what not in ("config", "report"):
        raise ConfigError(f"there is no schema of {what}", "gradcheck schema config, or gradcheck schema report")
    emit(sys.stdout, config_schema() if what == "config" else report_schema())


def config_schema() -> str:
    """That of the configuration, with the flags' help."""
    from gradcheck_cli.config_schema import make_schema

    return json.dumps(make_schema(help_texts()), indent=2) + "\n"


def report_schema() -> str:
    """That of `-f json`."""
    from importlib.resources import files

    return files("gradcheck_cli.report").joinpath("schema.json").read_text(encoding="utf-8")


def help_texts() -> dict[str, str]:
    """What `--help` says of each option, by the name of its setting."""
    texts = {}
    modules = (options, format_options, log_options, gate_options, rank_options)
    for name, option in [pair for module in modules for pair in vars(module).items()]:
        for info in get_args(option)[1:]:
            if isinstance(info, typer.models.OptionInfo) and info.help:
                texts[setting_of(name, info)] = info.help
    return texts


def setting_of(name: str, info: typer.models.OptionInfo) -> str:
    """--max-norm is max_norm; without a declaration MaxNorm is, too."""
    declared = [one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str) and one[:2] == "--"]
    words = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
    return declared[0].partition("/")[0].lstrip("-").replace("-", "_") if declared else words
