"""The report as one JSON document; docs/json.md describes it, schema.json defines it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np

from gradcheck_cli import __version__
from gradcheck_cli.clip_advice import ClipAdvice, Interval
from gradcheck_cli.records import FORMAT_VERSION, Report, RuleInfo
from gradcheck_cli.report.origin_members import origin_members, trace_members
from gradcheck_cli.report.rank_members import rank_members
from gradcheck_cli.report.view import View


def render_json(report: Report, view: View) -> str:
    """The document, indented by two, in ASCII, with a newline at its end; the view does not matter to it."""
    return json.dumps(encode(document(report)), indent=2, allow_nan=False) + "\n"


def document(report: Report) -> dict[str, Any]:
    """The document's members in their order, not yet encoded; `others` are such documents themselves."""
    run, diagnosis = report.run, report.diagnosis
    return {
        "format_version": FORMAT_VERSION,
        "tool": {"name": "gradcheck", "version": __version__},
        "command": report.command,
        "target": run.target,
        "environment": {"device": run.device, "threads": run.threads, "versions": run.versions},
        "run": {"steps": len(report.series), **run_members(report)},
        "parameters": {"total": report.parameter_count, "trainable": report.trainable_count},
        "findings": diagnosis.findings,
        "not_evaluated": diagnosis.not_evaluated,
        "rules": [rule_members(rule) for rule in report.rules],
        "exit_code": report.exit_code,
        "error": report.error or None,
        "series": report.series,
        "ranks": rank_members(report.ranks) if report.ranks else None,
        "layers": report.layers,
        "clip": clip_members(report.clip) if report.clip else None,
        "trace": trace_members(report.trace) if report.trace else None,
        "origins": [origin_members(origin) for origin in report.trace.origins] if report.trace else [],
        "comparison": report.comparison,
        "others": [document(other) for other in report.others],
    }


def run_members(report: Report) -> dict[str, Any]:
    """How the run was made and how it ended: what of RunInfo is neither the target nor the environment."""
    elsewhere = {"target", "device", "threads", "versions"}
    return {field.name: getattr(report.run, field.name) for field in fields(report.run) if field.name not in elsewhere}


def clip_members(advice: ClipAdvice) -> dict[str, Any]:
    """The advice without its norms, which `series` has."""
    return {field.name: getattr(advice, field.name) for field in fields(advice) if field.name != "norms"}


def rule_members(rule: RuleInfo) -> dict[str, Any]:
    """A rule in short."""
    return {"code": rule.code, "name": rule.name, "severity": rule.severity, "summary": rule.summary}


def encode(value: Any) -> Any:
    """A value as strict JSON has it: NaN and the infinities as strings, arrays as lists, what is unknown as text."""
    if isinstance(value, np.ndarray | np.generic):
        return encode(value.tolist())
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return encode_float(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): encode(member) for key, member in value.items()}
    if isinstance(value, Interval):
        return encode(value._asdict())
    if is_dataclass(value):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple):
        return [encode(member) for member in value]
    return str(value)


def encode_float(value: float) -> float | str:
    """The number, or "NaN", "Infinity", "-Infinity"."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value
