"""The functions of repro.py that differ from step to step, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gradcheck_cli.config import Settings
from gradcheck_cli.drive.workload import Workload, step_of_model
from gradcheck_cli.tracing.plain import needs_rebuilding
from gradcheck_cli.tracing.repro_state import Saved
from gradcheck_cli.tracing.session import Session

DTYPES = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}
GRADIENTS = "{name: parameter.grad for name, parameter in model.named_parameters()}"


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
    yield '        data = batch["data"]' if traits.device == "cpu" else '        data = move(batch["data"])'
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
    if scaled:
        yield "    scaler.unscale_(optimizer)"
    yield f'    look(found, "gradient", {GRADIENTS})'
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
    if traits.others:
        yield "    look_before_updates(found, model)"
    yield "    try:"
    yield "        run_step(saved, built, model, optimizer, found)"
    yield "    except Exception as error:"
    yield "        note_error(saved, found, error)"
    yield "    return tell(saved, found)"


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
