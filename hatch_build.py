"""Compile the reductions when gradcheck is built or installed; without a compiler, it is built without them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("gradcheck_cli", "observe", "native")
# No contraction to fused multiply-adds: the results are then the same on every processor.
FLAGS = ["-O3", "-ffp-contract=off", "-Wno-psabi", "-fPIC", "-shared"]


class ReductionsHook(BuildHookInterface):
    """Puts `_reductions.so` beside its source, also for an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and make a wheel for this platform if that succeeds."""
        folder = Path(self.root) / FOLDER
        if compile_reductions(folder / "reductions.c", folder / "_reductions.so"):
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"], build_data["tag"] = False, f"py3-none-{platform}"
            build_data["artifacts"].append(str(FOLDER / "_reductions.so"))
        else:
            self.app.display_warning("no C compiler: gradcheck works, but measuring takes several times as long")


def compile_reductions(source: Path, library: Path) -> bool:
    """Whether it could be done; a library from before does not stay. GCC or Clang, CC first if it is set."""
    library.unlink(missing_ok=True)
    found = filter(None, [os.environ.get("CC"), *map(shutil.which, ("cc", "gcc", "clang"))])
    return any(run([*shlex.split(compiler), *FLAGS, str(source), "-o", str(library), "-lm"]) for compiler in found)


def run(command: list[str]) -> bool:
    """Whether a compiler made a library; what it says stays in its own output."""
    try:
        return subprocess.run(command, check=False).returncode == 0
    except OSError:
        return False
