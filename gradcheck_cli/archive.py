"""Recordings as files: `.npz` without pickle, arrays by name and the rest as one JSON document."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradcheck_cli import archive_audit, archive_ranks, archive_signals, examination
from gradcheck_cli.errors import RecordingError
from gradcheck_cli.records import (
    FORMAT_VERSION,
    Location,
    ModuleInfo,
    ParameterInfo,
    ParameterStatistics,
    Probes,
    Recording,
    RunInfo,
    Series,
)

ARRAYS = {"series": Series, "statistics": ParameterStatistics, "probes": Probes}
OTHER = "others."
"""Other models of the same run: each a file of this format as an array of bytes, numbered from 0."""


def dumps(recording: Recording, others: Sequence[Recording] = ()) -> bytes:
    """A recording, and those of other models of the same run, as the bytes of an `.npz` file."""
    arrays = {
        f"{part}.{field.name}": getattr(getattr(recording, part), field.name)
        for part, kind in ARRAYS.items()
        for field in dataclasses.fields(kind)
    }
    heard, places = archive_signals.split(recording.signals) if recording.signals else ({}, None)
    by_rank, group = archive_ranks.split(recording.ranks) if recording.ranks else ({}, None)
    plain = {
        "format_version": FORMAT_VERSION,
        "run": dataclasses.asdict(recording.run),
        "parameters": [dataclasses.asdict(parameter) for parameter in recording.parameters],
        "modules": [dataclasses.asdict(module) for module in recording.modules],
        "nonfinite_input": recording.nonfinite_input,
        "signals": places,
        "examination": examination.to_plain(recording.examination),
        "audit": archive_audit.to_plain(recording.audit),
        "ranks": group,
    }
    joined: dict[str, Any] = {
        f"{OTHER}{number}": np.frombuffer(dumps(other), np.uint8) for number, other in enumerate(others)
    }
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        plain=np.array(json.dumps(plain)),
        final_parameter_norm=recording.final_parameter_norm,
        **arrays,
        **heard,
        **by_rank,
        **joined,
    )
    return buffer.getvalue()


def loads(content: bytes) -> Recording:
    """The recording in the bytes of an `.npz` file, of several models that of the first.

    Raises RecordingError when they are not one, or one of a newer format.
    """
    return loads_all(content)[0]


def loads_all(content: bytes) -> tuple[Recording, ...]:
    """The recordings of all models of a run, in the order of `dumps`. Raises RecordingError where `loads` does."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            plain = json.loads(str(archive["plain"]))
            check_version(plain)
            others = [archive[name].tobytes() for name in archive.files if name.startswith(OTHER)]
            first = assemble(plain, {name: archive[name] for name in archive.files if not name.startswith(OTHER)})
            return (first, *(loads(other) for other in others))
    except RecordingError:
        raise
    except Exception as error:  # whatever numpy, zipfile, zlib and json say of bytes that are no recording
        raise RecordingError(f"not a recording of gradcheck: {error}", "make one with -o run.npz") from error


def load(path: Path) -> Recording:
    """The recording in a file, of several models that of the first.

    Raises RecordingError when there is none that can be read.
    """
    return load_all(path)[0]


def load_all(path: Path) -> tuple[Recording, ...]:
    """The recordings of all models of the run in a file. Raises RecordingError where `load` does."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}", "make a recording with -o run.npz") from error
    try:
        return loads_all(content)
    except RecordingError as error:
        raise RecordingError(f"{path}: {error.message}", error.hint) from error


def check_version(plain: dict[str, Any]) -> None:
    version = plain["format_version"]
    if version > FORMAT_VERSION:
        raise RecordingError(
            f"format {version} is newer than this gradcheck reads ({FORMAT_VERSION})", "upgrade gradcheck_cli"
        )


def assemble(plain: dict[str, Any], arrays: dict[str, Any]) -> Recording:
    """A recording from its JSON document and its arrays."""
    run = plain["run"]
    unknown = {"series.examples": np.zeros(len(arrays["series.loss"]), dtype=np.int64)}  # in files of before
    parts = {
        part: kind(**{field.name: {**unknown, **arrays}[f"{part}.{field.name}"] for field in dataclasses.fields(kind)})
        for part, kind in ARRAYS.items()
    }
    return Recording(
        run=RunInfo(**{**run, "notes": tuple(run["notes"]), "location": place(run["location"])}),
        parameters=tuple(
            ParameterInfo(**{**entry, "shape": tuple(entry["shape"]), "aliases": tuple(entry["aliases"])})
            for entry in plain["parameters"]
        ),
        modules=tuple(ModuleInfo(**{**entry, "source": place(entry["source"])}) for entry in plain["modules"]),
        final_parameter_norm=arrays["final_parameter_norm"],
        nonfinite_input=plain["nonfinite_input"],
        signals=archive_signals.join(arrays, plain["signals"]) if plain.get("signals") is not None else None,
        examination=examination.from_plain(plain.get("examination")),
        audit=archive_audit.from_plain(plain.get("audit")),
        ranks=archive_ranks.join(arrays, plain["ranks"]) if plain.get("ranks") is not None else None,
        **parts,
    )


def place(location: dict[str, Any] | None) -> Location | None:
    return Location(**location) if location else None
