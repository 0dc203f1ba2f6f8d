"""The source of repro.py: plain torch, with nothing in it that this step does not need."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gradcheck_cli.drive.entrypoint import place_in_package
from gradcheck_cli.tracing import repro_parts as parts
from gradcheck_cli.tracing.plain import rebuild
from gradcheck_cli.tracing.repro_steps import Traits, main_lines, step_lines

DEVICES = {
    "cuda": '"cuda" if torch.cuda.is_available() else "cpu"',
    "mps": '"mps" if torch.backends.mps.is_available() else "cpu"',
}
COMMENTS = re.compile(r"  # (noqa|type: ignore)\S*( .*)?$", re.MULTILINE)  # for the linters of this package
HEADER = '''"""Step {step} of {target}, run alone: {headline}.

python repro.py needs torch, NumPy and the code of the model, not its data, and not gradcheck. README.md says more.
Exit code: 1 when a value of the step is not finite, 0 when all are, 2 when the step could not be run.
"""

from __future__ import annotations

import importlib
import importlib.util
import operator
import os
import random
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path({root!r})  # where gradcheck ran: change it when the code is somewhere else
DEVICE = {device}
IGNORED: list[str] = {ignored!r}  # not finite from the start, and so meant to be
'''
MAIN = """
if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:
        traceback.print_exc()
        sys.exit(2)
"""


def write_script(traits: Traits, headline: str) -> str:
    """The source of repro.py: first what it does, then the functions that it does it with."""
    content = traits.saved.content
    header = HEADER.format(
        step=content["step"],
        target=traits.target,
        headline=headline,
        root=str(traits.root),
        device=DEVICES.get(traits.device, '"cpu"'),
        ignored=content["ignored"],
    )
    unused = ["import operator\n"] * (not traits.rebuilds) + ["import importlib\n"] * (not uses_importlib(traits))
    for line in unused:
        header = header.replace(line, "")
    own = ["\n".join(lines) + "\n" for lines in (step_lines(traits), build_lines(traits), main_lines(traits))]
    functions = [inspect.getsource(function) for function in functions_of(traits)]
    return COMMENTS.sub("", "\n\n".join([header, *own, *functions, MAIN]))


def uses_importlib(traits: Traits) -> bool:
    """Whether a function calls import_module."""
    return traits.rebuilds or "import_module" in import_line(traits.target, traits.root)


def functions_of(traits: Traits) -> Iterator[Callable[..., Any]]:
    """Those that this step needs."""
    yield parts.import_file if "import_file" in import_line(traits.target, traits.root) else parts.import_module
    yield parts.part
    if traits.others:
        yield parts.note_what_is_made
        yield parts.look_before_updates
    yield parts.restore
    if traits.saved.content["optimizers"]:
        yield parts.restore_optimizer
    yield parts.restore_random
    if traits.rebuilds:
        yield rebuild
    if traits.device != "cpu":
        yield parts.move
    yield parts.look
    yield parts.note_error
    yield parts.tell


def import_line(target: str, root: Path) -> str:
    """The expression that imports the target's module."""
    place = target.rpartition(":")[0]
    if not place.endswith(".py"):
        return f"import_module([ROOT], {place!r})"
    path = (root / place).resolve()
    folder, dotted = place_in_package(path)
    if folder == path.parent:
        known = [name for name, module in sys.modules.items() if getattr(module, "__file__", None) == str(path)]
        return f"import_file(ROOT / {place!r}, {(known or [path.stem])[-1]!r})"
    shown = f"ROOT / {str(folder.relative_to(root))!r}" if folder.is_relative_to(root) else f"Path({str(folder)!r})"
    return f"import_module([ROOT / {str(Path(place).parent)!r}, {shown}], {dotted!r})"


def build_lines(traits: Traits) -> Iterator[str]:
    """The function that makes the model: its data loader is made too, but never asked for a batch."""
    name = traits.target.rpartition(":")[2]
    yield "def build(settings: dict[str, Any]) -> Any:"
    yield f'    """What {name}() returns; of its data loader nothing is used."""'
    yield "    os.chdir(ROOT)"
    yield '    random.seed(settings["seed"])'
    yield '    np.random.seed(settings["seed"] % 2**32)'
    yield '    torch.manual_seed(settings["seed"] % 2**64)'
    yield f"    module = {import_line(traits.target, traits.root)}"
    yield f'    return module.{name}(**settings["set"])'
