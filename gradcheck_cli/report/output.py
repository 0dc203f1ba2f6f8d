"""The only place that writes files."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from gradcheck_cli.errors import OutputError


def write(path: Path, content: str | bytes) -> None:
    """Write a whole file or nothing: into a new file beside it, which then takes its place. Text is UTF-8.

    Raises OutputError where `check` does, and when writing fails.
    """
    check(path)
    target = path.resolve()  # a symbolic link stays one
    temporary = target.with_name(f".gradcheck-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", "choose another path with -o") from error
    finally:
        temporary.unlink(missing_ok=True)


def append(path: Path, content: str) -> None:
    """Add text to the end of a file as UTF-8, on a line of its own. Raises OutputError when that fails."""
    try:
        with path.open("ab+") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            broken = file.read(1) not in (b"", b"\n")
            file.write(("\n" if broken else "").encode() + content.encode("utf-8"))
    except OSError as error:
        raise OutputError(f"cannot write to {path}: {error.strerror or error}") from error


def size_of(path: Path) -> int:
    """In bytes; 0 for a file that is not there, or cannot be looked at."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def check_directory(path: Path) -> None:
    """Raise OutputError when a directory certainly cannot be made, or written to where there is one already."""
    target = path.resolve()
    if target.exists() and not target.is_dir():
        raise OutputError(f"cannot write to {path}: it is a file", "name a directory, new or empty")
    if not target.parent.is_dir():
        raise OutputError(f"cannot make {path}: there is no directory {target.parent}", f"mkdir -p {target.parent}")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise OutputError(f"cannot write to {path}: no permission", "choose another directory")


def check(path: Path) -> None:
    """Raise OutputError when `path` certainly cannot be written; worth asking before a long run."""
    directory = path.resolve().parent
    if not directory.is_dir():
        raise OutputError(f"cannot write {path}: there is no directory {directory}", f"mkdir -p {directory}")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a directory", f"name a file in it: {path / 'report.json'}")
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {path}: it is no regular file", "choose another path with -o")
    if not os.access(directory, os.W_OK):
        raise OutputError(f"cannot write {path}: no permission to write in {directory}", "choose another path with -o")
