"""The configuration as JSON Schema, for editors that complete and check YAML and TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from gradcheck_cli.config import FLAGS_ONLY, KINDS, TARGETS, Settings
from gradcheck_cli.records import Severity

WITHOUT_FLAG = {
    "severity": "How severe a rule's findings are, by its code: {GC204: error}",
    "tolerances": "How far a measure may move from a baseline: {gradient: 0.5}",
}
HYPHENATED: dict[str, dict[str, str]] = {"^[a-z]+(-[a-z]+)+$": {}}
"""max-norm is read as max_norm; editors offer the latter."""
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def make_schema(help_texts: Mapping[str, str]) -> dict[str, Any]:
    """The schema of gradcheck.yaml and [tool.gradcheck]; `help_texts` describe settings by their names."""
    texts = {**WITHOUT_FLAG, **help_texts}
    settings = {
        name: {**kind.schema, **describe(name, texts)} for name, kind in KINDS.items() if name not in FLAGS_ONLY
    }
    text = {"type": "string"}
    place = {
        "target": {**text, "description": "train.py:build, package.module:build, or a script, train.py"},
        "module": {**text, "description": "A module to run as a script, like python -m"},
        "arguments": {"type": "array", "items": text, "description": "The script's own arguments"},
    }
    one = {
        "type": "object",
        "properties": {**place, **settings},
        "patternProperties": HYPHENATED,
        "additionalProperties": False,
        "oneOf": [{"required": ["target"]}, {"required": ["module"]}],
    }
    targets = {
        "type": "object",
        "description": "Targets by name, each with settings of its own",
        "additionalProperties": {"anyOf": [text, one]},
    }
    return {
        "$schema": DRAFT,
        "title": "gradcheck",
        "type": "object",
        "properties": {**settings, TARGETS: targets},
        "patternProperties": HYPHENATED,
        "additionalProperties": False,
    }


def describe(name: str, help_texts: Mapping[str, str]) -> dict[str, Any]:
    """What an editor shows beside a setting: its help and its default."""
    default = next(entry.default for entry in fields(Settings) if entry.name == name)
    plain = {} if default is MISSING else {"default": as_json(default)}
    return {**({"description": help_texts[name]} if name in help_texts else {}), **plain}


def as_json(value: Any) -> Any:
    """A default as JSON has it."""
    if isinstance(value, tuple):
        return list(value)
    return value.value if isinstance(value, Severity) else value
