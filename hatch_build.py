"""Compile the reductions when gradcheck is built or installed.

Without a compiler or the headers of Python, it is built without them.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("gradcheck_cli", "observe", "native")
LIBRARY = f"_reductions{sysconfig.get_config_var('EXT_SUFFIX')}"
# No contraction to fused multiply-adds: the results are then the same on every processor.
FLAGS = ["-O3", "-ffp-contract=off", "-fvisibility=hidden", "-Wno-psabi", "-fPIC", "-shared"]
FLAGS += [f"-I{sysconfig.get_path('include')}"]
if sys.platform == "darwin":  # Python's own functions are there once it loads the library
    FLAGS += ["-undefined", "dynamic_lookup"]


class ReductionsHook(BuildHookInterface):
    """Puts the library beside its source, also for an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and make a wheel for this Python and platform if that succeeds."""
        folder = Path(self.root) / FOLDER
        if compile_reductions(folder, folder / LIBRARY):
            build_data["pure_python"], build_data["infer_tag"] = False, True
            build_data["artifacts"].append(str(FOLDER / LIBRARY))
        else:
            self.app.display_warning("no C compiler: gradcheck works, but measuring takes several times as long")


def compile_reductions(folder: Path, library: Path) -> bool:
    """Whether it could be done; a library from before does not stay. GCC or Clang, CC first if it is set."""
    library.unlink(missing_ok=True)
    sources = sorted(map(str, folder.glob("*.c")))
    found = filter(None, [os.environ.get("CC"), *map(shutil.which, ("cc", "gcc", "clang"))])
    return any(run([*shlex.split(compiler), *FLAGS, *sources, "-o", str(library), "-lm"]) for compiler in found)


def run(command: list[str]) -> bool:
    """Whether a compiler made a library; what it says stays in its own output."""
    try:
        return subprocess.run(command, check=False).returncode == 0
    except OSError:
        return False
