"""The source of repro.py: plain torch, with nothing in it that this step does not need."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradcheck_cli.config import Settings
from gradcheck_cli.drive.entrypoint import place_in_package
from gradcheck_cli.drive.workload import Workload, step_of_model
from gradcheck_cli.tracing import repro_parts as parts
from gradcheck_cli.tracing.plain import needs_rebuilding, rebuild
from gradcheck_cli.tracing.repro_state import Saved
from gradcheck_cli.tracing.session import Session

DEVICES = {
    "cuda": '"cuda" if torch.cuda.is_available() else "cpu"',
    "mps": '"mps" if torch.backends.mps.is_available() else "cpu"',
}
DTYPES = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}
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


@dataclass(frozen=True)
class Traits:
    """What the failing run was like, as far as its script differs by that."""

    session: Session
    settings: Settings
    saved: Saved
    target: str
    root: Path

    @property
    def workload(self) -> Workload:
        """The model and what belongs to it."""
        return self.session.workload

    @property
    def device(self) -> str:
        """cpu, cuda or mps."""
        return self.session.loop.device.type

    @property
    def rebuilds(self) -> bool:
        """Whether step.pt describes objects of classes of their own."""
        return needs_rebuilding(self.saved.content)

    @property
    def others(self) -> bool:
        """Whether there are modules or optimizers that only the training step knows."""
        return bool(
            {*self.saved.content["modules"]} - {"model", "loss_fn"} | {*self.saved.content["optimizers"]} - {""}
        )

    @property
    def compiled(self) -> bool:
        """Whether a module of the model is compiled."""
        return any(hasattr(m, "_orig_mod") or m._compiled_call_impl for m in self.workload.model.modules())


def write_script(traits: Traits, headline: str) -> str:
    """The source of repro.py."""
    content = traits.saved.content
    header = HEADER.format(
        step=content["step"],
        target=traits.target,
        headline=headline,
        root=str(traits.root),
        device=DEVICES.get(traits.device, '"cpu"'),
        ignored=content["ignored"],
    )
    functions = [*map(inspect.getsource, functions_of(traits))]
    written = ["\n".join(lines) + "\n" for lines in (build_lines(traits), step_lines(traits), main_lines(traits))]
    unused = ["import operator\n"] * (not traits.rebuilds) + ["import importlib\n"] * (not uses_importlib(traits))
    for line in unused:
        header = header.replace(line, "")
    return "\n\n".join([header, *(source.replace("  # noqa: B905", "") for source in functions), *written]) + MAIN


def uses_importlib(traits: Traits) -> bool:
    """Whether a function calls import_module."""
    return traits.rebuilds or "import_module" in import_line(traits.target, traits.root)


def functions_of(traits: Traits) -> Iterator[Callable[..., Any]]:
    """Those that this step needs."""
    yield parts.import_file if "import_file" in import_line(traits.target, traits.root) else parts.import_module
    yield parts.part
    if traits.others:
        yield parts.note_what_is_made
    yield parts.restore
    if traits.saved.content["optimizers"]:
        yield parts.restore_optimizer
    yield parts.restore_random
    if traits.rebuilds:
        yield rebuild
    if traits.device != "cpu":
        yield parts.move
    yield parts.look


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


def step_lines(traits: Traits) -> Iterator[str]:
    """The function that runs the step as the run did."""
    scaled, precision = traits.session.scaler.is_enabled(), traits.session.loop.precision
    several = len(traits.saved.content["batches"]) > 1
    yield "def run_step(saved: dict[str, Any], built: Any, model: Any, optimizer: Any, found: list[str]) -> None:"
    yield '    """Forward, backward and update, as in the run, with a look at every value that matters."""'
    if scaled:
        yield "    scaler = torch.amp.GradScaler(DEVICE)"
        yield '    scaler.load_state_dict(saved["scaler"])'
    yield "    model.zero_grad(set_to_none=True)"
    if traits.workload.has_optimizer:
        yield "    optimizer.zero_grad(set_to_none=True)"
    yield '    for batch in saved["batches"]:'
    yield '        restore_random(batch["random"])'
    yield f'        data = {"batch" if traits.device == "cpu" else "move(batch"}["data"]{")" * (traits.device != "cpu")}'
    indent = " " * 8
    if precision in DTYPES:
        yield f"{indent}with torch.autocast(DEVICE, dtype={DTYPES[precision]}):"
    for line in loss_lines(traits.workload):
        yield f"{indent}{'    ' * (precision in DTYPES)}{line}"
    yield f'{indent}look(found, "loss", {{"": loss}})'
    divided = f"loss / {len(traits.saved.content['batches'])}" if several else "loss"
    backward = f"scaler.scale({divided})" if scaled else f"({divided})" if several else divided
    yield f"{indent}{backward}.backward()"
    yield from update_lines(traits, scaled)


def loss_lines(workload: Workload) -> Iterator[str]:
    """How a batch becomes a loss."""
    if workload.training_step is step_of_model:
        yield "output = model(**data)"
        yield 'loss = part(output, "loss")'
    elif getattr(workload.training_step, "__module__", "") == step_of_model.__module__:
        yield 'loss = part(built, "loss_fn")(model(data[0]), data[1])'
    else:
        yield 'loss = part(built, "training_step")(model, data)'


def update_lines(traits: Traits, scaled: bool) -> Iterator[str]:
    """What comes after backward."""
    gradients = "{name: parameter.grad for name, parameter in model.named_parameters()}"
    if scaled:
        yield "    scaler.unscale_(optimizer)"
    yield f'    look(found, "gradient", {gradients})'
    yield '    look(found, "buffer", dict(model.named_buffers()))'
    if traits.settings.clip is not None:
        yield f"    torch.nn.utils.clip_grad_norm_(list(model.parameters()), {traits.settings.clip!r})"
    if traits.workload.has_optimizer:
        yield f"    {'scaler.step(optimizer)' if scaled else 'optimizer.step()'}"
        yield '    look(found, "parameter", dict(model.named_parameters()))'
        yield '    look(found, "buffer", dict(model.named_buffers()))'


def main_lines(traits: Traits) -> Iterator[str]:
    """The function that puts all together."""
    yield "def main() -> int:"
    yield '    """Rewind to the step, run it, and say whether it does again what it did."""'
    yield '    path = Path(__file__).with_name("step.pt")'
    where = "None" if traits.device != "cpu" else ""
    place = 'None if DEVICE != "cpu" else "cpu"' if where else '"cpu"'
    yield f"    saved = torch.load(path, map_location={place}, weights_only=True)"
    if traits.compiled:
        yield '    torch.compiler.set_stance("force_eager")'
    if traits.others:
        yield "    modules, optimizers = note_what_is_made()"
    yield '    built = build(saved["settings"])'
    yield f'    model = part(built, "model").to(DEVICE).train({not traits.settings.eval})'
    yield f"    optimizer = {optimizer_expression(traits)}"
    if traits.rebuilds:
        yield "    saved = rebuild(saved)"
    yield from restoring_lines(traits)
    yield "    found: list[str] = []"
    yield "    try:"
    yield "        run_step(saved, built, model, optimizer, found)"
    yield "    except Exception as error:"
    yield "        raised = f\"{type(error).__name__}: {[*str(error).strip().splitlines(), ''][0]}\""
    yield '        if not found and raised not in saved["error"]:'
    yield "            raise"
    yield '        print(f"raised {raised}")'
    yield '        found.append("error")'
    yield '    expected = (saved["found"] or ["error"])[0]'
    yield "    if not found:"
    yield "        print(f\"every value of step {saved['step']} is finite; gradcheck found: {expected}\")"
    yield "    elif expected in found:"
    yield "        print(f\"step {saved['step']} fails as gradcheck found it: {expected}\")"
    yield "    else:"
    yield "        print(f\"step {saved['step']} fails, but not as gradcheck found it: {expected}\")"
    yield "    return 1 if found else 0"


def optimizer_expression(traits: Traits) -> str:
    """How the script comes by the optimizer."""
    if traits.settings.optimizer:
        kind = type(traits.workload.optimizer).__name__
        return f"torch.optim.{kind}([p for p in model.parameters() if p.requires_grad])  # --optimizer"
    if traits.workload.has_optimizer:
        return 'part(built, "optimizer")'
    if traits.session.scaler.is_enabled():
        return "torch.optim.SGD(model.parameters())  # to unscale the gradients: the run had no optimizer"
    return "None  # the run had none"


def restoring_lines(traits: Traits) -> Iterator[str]:
    """Put back what step.pt holds."""
    content = traits.saved.content
    yield '    restore(model, saved["modules"]["model"])'
    if "loss_fn" in content["modules"]:
        yield '    restore(part(built, "loss_fn").to(DEVICE), saved["modules"]["loss_fn"])'
    if "" in content["optimizers"]:
        yield '    restore_optimizer(optimizer, saved["optimizers"][""])'
    for number in sorted({*content["modules"]} - {"model", "loss_fn"}, key=int):
        kind = type(dict(traits.session.births.numbered_modules())[int(number)]).__name__
        yield f'    restore(modules[{number}], saved["modules"]["{number}"])  # {kind}'
    for number in sorted({*content["optimizers"]} - {""}, key=int):
        yield f'    restore_optimizer(optimizers[{number}], saved["optimizers"]["{number}"])'
