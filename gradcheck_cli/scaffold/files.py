"""The files that `gradcheck init` writes: they run as they are, and say what to put in place of what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gradcheck_cli.scaffold.project import Model, Project, TrainingScript

EXAMPLE = "example"
ENTRYPOINT = Path("gradcheck_entrypoint.py")
CONFIG = Path("gradcheck.yaml")

HEAD = '''"""What gradcheck trains for a few steps: `gradcheck profile {entrypoint}:build`.

It runs as it is, on a small model and random data. Put your own in their places: whatever `build` returns is
trained as your own loop would train it.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


'''
BUILD = '''def build(width: int = 64):
    """The model, its data, its loss and its optimizer. `--set width=128` changes an argument."""
{model}
    # Your data: any iterable of batches. Here: 512 random examples of ten classes.
    inputs, targets = torch.randn(512, 32), torch.randint(10, (512,))
    dataloader = DataLoader(TensorDataset(inputs, targets), batch_size=32, shuffle=True)

    return {{
        "model": model,
        "dataloader": dataloader,
        "loss_fn": nn.CrossEntropyLoss(),  # called as loss_fn(model(inputs), targets)
        "optimizer": torch.optim.AdamW(model.parameters(), lr=1e-3),
        # For batches and losses of any other form, instead of loss_fn:
        # "training_step": lambda model, batch: model(**batch).loss,
    }}
'''
PLACEHOLDER = "    model = nn.Sequential(nn.Linear(32, width), nn.ReLU(), nn.Linear(width, 10))\n"
CONFIG_HEAD = """\
# gradcheck's settings, by the names of its flags (gradcheck profile --help), which count more than this file.
# All targets, one after the other: gradcheck profile --all

steps: 50             # optimizer steps of each run
# precision: bf16     # fp32, bf16 or fp16, by autocast
# accumulate: 4       # micro-batches per optimizer step
# clip: 1.0           # clip the global gradient norm
# fail_on: warning    # what makes the exit code 1: error, warning or never
# ignore: [GC107]     # rules that are not wanted; gradcheck rules lists all
# severity: {GC204: error}

targets:
"""
OWN_SETTINGS = """    # A target may have settings of its own:
    # steps: 20
    # baseline: baselines/{name}.json     # fail only on what got worse
"""


def write_entrypoint(models: Sequence[Model]) -> str:
    """The source of an entrypoint; the project's own models are named in comments, ready to be used."""
    own = [line for model in models[:5] for line in lines_for(model)]
    found = ["    # Your model. Found in this project:", *own] if own else ["    # Your model goes here."]
    return HEAD.format(entrypoint=ENTRYPOINT) + BUILD.format(model="\n".join([*found, PLACEHOLDER]))


def lines_for(model: Model) -> list[str]:
    """How one is made."""
    module = ".".join(model.path.with_suffix("").parts)
    arguments = "..." if model.needs_arguments else ""
    return [f"    # from {module} import {model.name}; model = {model.name}({arguments})"]


def write_config(project: Project) -> str:
    """The configuration: scripts that need no arguments are targets, the others are there as comments."""
    parts: list[str] = []
    taken: list[str] = []
    for script in project.scripts:
        name = choose_name(script.path, taken)
        taken.append(name)
        parts.append(target_of(script, name))
    if all(script.needs_arguments for script in project.scripts):
        parts.append(f"  {EXAMPLE}:\n    target: {ENTRYPOINT}:build\n")
        taken.append(EXAMPLE)
    return CONFIG_HEAD + "\n".join([*parts, OWN_SETTINGS.format(name=taken[-1])])


def target_of(script: TrainingScript, name: str) -> str:
    """The lines of one script."""
    path = quote(script.path.as_posix())
    if script.needs_arguments:
        return f"  # {name}:    # asks for arguments\n  #   target: {path}\n  #   arguments: []\n"
    return f'  {name}:\n    target: {path}\n    # arguments: [--epochs, "1"]\n'


def choose_name(path: Path, taken: Sequence[str]) -> str:
    """The file's stem, with its folder where that name is taken."""
    name = path.stem if path.stem not in taken else "-".join(path.with_suffix("").parts)
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)


def quote(path: str) -> str:
    """A path as YAML reads it as text."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return path if all(c.isalnum() or c in "_-./" for c in path) else f'"{escaped}"'
