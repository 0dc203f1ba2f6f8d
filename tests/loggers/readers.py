"""Read back what loggers have written, with what their users read it with where there is such a thing."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

BLOCK = 32768
HEADER = 7


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON Lines file, each strict JSON."""
    text = path.read_text(encoding="ascii")
    assert not text or text.endswith("\n")
    return [json.loads(line, parse_constant=lambda name: 1 / 0) for line in text.splitlines()]


def read_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """By tag and step, what TensorBoard shows of a run."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: {event.step: event.value for event in accumulator.Scalars(tag)} for tag in accumulator.Tags()["scalars"]
    }


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The rows of the one offline run of wandb in a folder; its reader is no longer Python's, its protocol is."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("offline-run-*/*.wandb")
    rows = []
    for data in read_log(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


def read_log(content: bytes) -> Iterator[bytes]:
    """The records of a log as LevelDB has them: parts of at most a block, after a header of the file's own."""
    place, whole = HEADER, b""
    while place < len(content):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)  # kinds: whole, first, middle, last
        part = content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        whole = part if kind in (1, 2) else whole + part
        if kind in (1, 4):
            yield whole
