"""A folder that runs the failing step again, without the user's data: step.pt, repro.py and README.md."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import torch

from gradcheck_cli.errors import OutputError
from gradcheck_cli.tape import NanTrace
from gradcheck_cli.tracing.repro_script import write_script
from gradcheck_cli.tracing.repro_steps import Traits

ADVICE = "choose another directory with --save-repro"


def check_is_empty(folder: Path) -> None:
    """Raise OutputError where a folder with something in it, or a file, is in the way; worth asking before a run."""
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"cannot write to {folder}: it is not empty", "name a directory that is new or empty")
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"cannot write to {folder}: it is a file", "name a directory, new or empty")


def nothing_to_save(trace: NanTrace) -> str:
    """Why there is no step to write down."""
    reason = "nothing failed" if trace.clean else "the step did not fail again when it was replayed"
    return f"--save-repro wrote nothing: {reason}"


def write_repro(folder: Path, traits: Traits, headline: str, readme: str) -> None:
    """Write the whole folder or nothing: into a new one beside it, which then takes its place.

    `headline` says what became of which value, in a few words. Raises OutputError when it cannot be written, or
    there is something in the folder.
    """
    check_is_empty(folder)
    place = folder.resolve()
    temporary = place.with_name(f".gradcheck-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir()
        torch.save(traits.saved.content, temporary / "step.pt")
        (temporary / "repro.py").write_text(write_script(traits, headline), encoding="utf-8")
        (temporary / "README.md").write_text(readme, encoding="utf-8")
        if place.is_dir():  # an empty one; Windows renames onto none
            place.rmdir()
        temporary.rename(place)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError for a disk that is full
        raise OutputError(f"cannot write {folder}: {getattr(error, 'strerror', '') or error}", ADVICE) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
