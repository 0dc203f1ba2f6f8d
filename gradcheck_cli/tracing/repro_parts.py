"""Functions of repro.py: `repro_script` copies their source there, so they use torch, NumPy and one another only."""

from __future__ import annotations

import importlib
import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

DEVICE = "cpu"
IGNORED: list[str] = []


def import_file(path: Path, name: str) -> Any:
    """Import a file that belongs to no package, with its folder first on sys.path."""
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def import_module(folders: list[Path], name: str) -> Any:
    """Import a module by its dotted name, looked for in these folders first."""
    sys.path[:0] = map(str, folders)
    return importlib.import_module(name)


def part(built: Any, name: str) -> Any:
    """A part of what the entrypoint returned: a mapping, a tuple or an object."""
    if hasattr(built, name):
        return getattr(built, name)
    if isinstance(built, (tuple, list)):
        return dict(zip(("model", "dataloader", "loss_fn", "optimizer"), built)).get(name)  # noqa: B905
    return built.get(name) if hasattr(built, "get") else None


@torch.no_grad()
def restore(module: Any, kept: dict[str, Any]) -> None:
    """Parameters, gradients, buffers and counters as they were before the step."""
    for name, value in kept["parameters"].items():
        module.get_parameter(name).copy_(value)
    for name, value in kept["gradients"].items():
        module.get_parameter(name).grad = value.to(module.get_parameter(name).device)
    for name, value in kept["buffers"].items():
        owner, _, key = name.rpartition(".")
        buffers = module.get_submodule(owner)._buffers
        if buffers.get(key) is not None and buffers[key].shape == value.shape:
            buffers[key].copy_(value)
        else:  # the run made it anew
            buffers[key] = value
    for name, attributes in kept["attributes"].items():
        vars(module.get_submodule(name)).update(attributes)


@torch.no_grad()
def restore_optimizer(optimizer: Any, kept: dict[str, Any]) -> None:
    """State and hyperparameters as they were before the step."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for group, values in zip(optimizer.param_groups, kept["groups"]):  # noqa: B905
        group.update(values)
    for number, state in kept["state"].items():
        optimizer.state[parameters[number]] = state
    for number, value in kept["parameters"].items():  # those of no module
        parameters[number].copy_(value)
    vars(optimizer).update(kept["attributes"])


def restore_random(kept: dict[str, Any]) -> None:
    """Draw from here on what was drawn then."""
    torch.set_rng_state(kept["torch"])
    for number, state in enumerate(kept["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, number)
    if kept["numpy"]:
        name, keys, *rest = kept["numpy"]
        np.random.set_state((name, keys.numpy().astype("uint32"), *rest))
    random.setstate(kept["python"])


def move(value: Any) -> Any:
    """A batch on the device."""
    if hasattr(value, "to"):
        return value.to(DEVICE)
    if type(value) in (tuple, list):
        return type(value)(move(item) for item in value)
    return {key: move(item) for key, item in value.items()} if type(value) is dict else value


def look(found: list[str], what: str, tensors: dict[str, Any]) -> None:
    """Print which of these tensors are not finite, each once."""
    for name, tensor in tensors.items():
        if tensor is None or not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        values = tensor.detach().coalesce().values() if tensor.is_sparse else tensor.detach()
        nan, inf = int(values.isnan().sum()), int(values.isinf().sum())
        label = f"{what} {name}".strip()
        if (nan or inf) and label not in (*found, *IGNORED):
            found.append(label)
            print(f"not finite: {label}, {nan} NaN and {inf} Inf of {values.numel()} elements")


def look_before_updates(found: list[str], model: Any) -> None:
    """Look at the gradients before any optimizer's step, for the training step may call some itself."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    register_optimizer_step_pre_hook(
        lambda *_: look(found, "gradient", {name: parameter.grad for name, parameter in model.named_parameters()})
    )


def note_error(saved: dict[str, Any], found: list[str], error: Exception) -> None:
    """An error counts where a value was bad before, or where gradcheck saw the same one. Raises any other."""
    raised = f"{type(error).__name__}: {[*str(error).strip().splitlines(), ''][0]}"
    if not found and raised not in saved["error"]:
        raise error
    print(f"raised {raised}")
    found.append("error")


def tell(saved: dict[str, Any], found: list[str]) -> int:
    """Print whether the step does what it did, and give the exit code."""
    expected = (saved["found"] or ["error"])[0]
    if not found:
        print(f"everything is finite in step {saved['step']}, where gradcheck found: {expected}")
        print("the code or torch is another now, or the step depends on more than step.pt holds: see README.md")
    elif expected in found:
        print(f"step {saved['step']} fails as gradcheck found it: {expected}")
    else:
        print(f"step {saved['step']} fails, but not as gradcheck found it: {expected}")
    return 1 if found else 0


def note_what_is_made() -> tuple[list[Any], list[Any]]:
    """Lists to which modules, at each registration of a parameter or buffer and when copied, and optimizers come."""
    modules: list[Any] = []
    optimizers: list[Any] = []
    make: Any = torch.optim.Optimizer.__init__
    copy: Any = torch.nn.Module.__setstate__

    def made(optimizer: Any, *args: Any, **kwargs: Any) -> None:
        optimizers.append(optimizer)
        make(optimizer, *args, **kwargs)

    def copied(module: Any, state: Any) -> None:
        modules.append(module)
        copy(module, state)

    torch.optim.Optimizer.__init__, torch.nn.Module.__setstate__ = made, copied  # type: ignore
    hooks = torch.nn.modules.module
    hooks.register_module_parameter_registration_hook(lambda module, *_: modules.append(module))
    hooks.register_module_buffer_registration_hook(lambda module, *_: modules.append(module))
    return modules, optimizers
