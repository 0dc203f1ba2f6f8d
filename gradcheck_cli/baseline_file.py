"""Baselines as files: JSON that is checked when it is read, with a line for each finding and layer, for diffs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from gradcheck_cli.baseline import (
    FORMAT_VERSION,
    AcceptedFinding,
    Baseline,
    KnownFinding,
    LayerMeasure,
    Measures,
    NormMeasure,
    RunConditions,
    Section,
    ShareMeasure,
    SlopeMeasure,
)
from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.records import Severity

DIGITS = 6
Kind = TypeVar("Kind")


class BaselineError(GradcheckError):
    """A baseline is missing, cannot be read, or does not hold what is asked of it."""


def load(path: Path) -> Baseline:
    """The baseline in a file. Raises BaselineError when there is none that can be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BaselineError(f"cannot read the baseline {path}: {why}", f"--write-baseline {path} writes one") from error
    try:
        return loads(text)
    except BaselineError as error:
        hint = error.hint or f"delete it; --write-baseline {path} writes it anew"
        raise BaselineError(f"{path}: {error.message}", hint) from error


def loads(text: str) -> Baseline:
    """The baseline in a JSON text. Raises BaselineError that says what is wrong and where."""
    try:
        plain = json.loads(text, parse_constant=refuse)
    except ValueError as error:
        raise BaselineError(f"this is no JSON: {error}") from error
    version = plain.get("format_version") if isinstance(plain, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise BaselineError(
            f"its format {version} is newer than this gradcheck reads ({FORMAT_VERSION})", "upgrade gradcheck_cli"
        )
    if version != FORMAT_VERSION:
        raise BaselineError("this is no baseline: it lacks a format_version that this gradcheck reads")
    return read({name: value for name, value in plain.items() if name != "format_version"}, Baseline, "")


def refuse(constant: str) -> None:
    """NaN and Infinity are no JSON."""
    raise ValueError(f"{constant} is no number")


def dumps(baseline: Baseline) -> str:
    """The JSON text, in ASCII, keys in the order of the fields, six digits, with a newline at its end."""
    return lay_out({"format_version": FORMAT_VERSION, **plain(baseline)}) + "\n"


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(member) for member in value]
    if isinstance(value, Severity):
        return value.value
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def lay_out(value: Any, indent: str = "") -> str:
    """JSON in which whatever holds no mapping of its own stands on one line."""
    inner = indent + "  "
    members = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if not any(holds_mapping(member) for member in members):
        return json.dumps(value)
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(name)}: {lay_out(member, inner)}" for name, member in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + lay_out(member, inner) for member in value) + f"\n{indent}]"


def holds_mapping(value: Any) -> bool:
    """Whether a value is a mapping, or a list with one in it."""
    return isinstance(value, dict) or (isinstance(value, list) and any(map(holds_mapping, value)))


def read(value: Any, kind: type[Kind], where: str) -> Kind:
    """A dataclass out of a mapping; raises BaselineError for a member that is missing, unknown or of another type."""
    if not isinstance(value, Mapping):
        raise BaselineError(f"{where or 'it'} must be a mapping, not {value!r}")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for name in value:
        if name not in known:
            raise BaselineError(f"unknown member {below(where, name)}")
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise BaselineError(f"{below(where, name)} is missing")
    given = {name: READERS[str(known[name].type)](member, below(where, name)) for name, member in value.items()}
    return kind(**given)


def below(where: str, name: str) -> str:
    """sections[0].run"""
    return f"{where}.{name}" if where else name


def simple(words: str, *types: type) -> Callable[[Any, str], Any]:
    """Reads a value of one of the types; true and false are no numbers."""

    def read_simple(value: Any, where: str) -> Any:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise BaselineError(f"{where} must be {words}, not {value!r}")
        return float(value) if float in types and isinstance(value, int) else value

    return read_simple


def several(read_one: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """Reads a list of what `read_one` reads."""

    def read_list(value: Any, where: str) -> Any:
        if not isinstance(value, list):
            raise BaselineError(f"{where} must be a list, not {value!r}")
        return tuple(read_one(member, f"{where}[{number}]") for number, member in enumerate(value))

    return read_list


def record(kind: type[Any]) -> Callable[[Any, str], Any]:
    """Reads a dataclass."""
    return lambda value, where: read(value, kind, where)


def read_severity(value: Any, where: str) -> Severity:
    """Reads a severity."""
    try:
        return Severity(value)
    except ValueError as error:
        raise BaselineError(f"{where} must be error, warning or info, not {value!r}") from error


NONE = type(None)
READERS: Mapping[str, Callable[[Any, str], Any]] = {
    "str": simple("a text", str),
    "Severity": read_severity,
    "int": simple("a whole number", int),
    "bool": simple("true or false", bool),
    "float": simple("a number", int, float),
    "float | None": simple("a number or null", int, float, NONE),
    "tuple[str, ...]": several(simple("a text", str)),
    "tuple[tuple[int, ...], ...]": several(several(simple("a whole number", int))),
    "tuple[KnownFinding, ...]": several(record(KnownFinding)),
    "tuple[AcceptedFinding, ...]": several(record(AcceptedFinding)),
    "tuple[LayerMeasure, ...]": several(record(LayerMeasure)),
    "tuple[SlopeMeasure, ...]": several(record(SlopeMeasure)),
    "tuple[ShareMeasure, ...]": several(record(ShareMeasure)),
    "tuple[Section, ...]": several(record(Section)),
    "NormMeasure | None": lambda value, where: None if value is None else read(value, NormMeasure, where),
    "RunConditions": record(RunConditions),
    "Measures": record(Measures),
}
"""How a member is read, by the type that its field declares."""
