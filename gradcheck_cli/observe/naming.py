"""What the parameters and modules of a model are called."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim import Optimizer

from gradcheck_cli.records import Location, ModuleInfo, ParameterInfo


def parameters_of(model: nn.Module, optimizer: Optimizer) -> list[tuple[ParameterInfo, nn.Parameter]]:
    """Every parameter of the model and of the optimizer once, with its description.

    Tied parameters keep the first of their names. What the optimizer holds beyond the model (a criterion's
    parameters, say) is called `optimizer.<group>.<index>`.
    """
    groups = groups_of(optimizer)
    names: dict[int, list[str]] = {}
    tensors: dict[int, nn.Parameter] = {}
    for name, parameter in named_with_ties(model, optimizer):
        names.setdefault(id(parameter), []).append(name)
        tensors[id(parameter)] = parameter
    return [(describe(names[key], tensors[key], groups.get(key)), tensors[key]) for key in names]


def groups_of(optimizer: Optimizer) -> dict[int, int]:
    """The number of each parameter's group, by the parameter's identity."""
    return {id(p): number for number, group in enumerate(optimizer.param_groups) for p in group["params"]}


def named_with_ties(model: nn.Module, optimizer: Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters, tied ones under each name."""
    inside = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        inside.add(id(parameter))
        yield clean(name), parameter
    for number, group in enumerate(optimizer.param_groups):
        for index, parameter in enumerate(group["params"]):
            if id(parameter) not in inside:
                yield f"optimizer.{number}.{index}", parameter


def describe(names: list[str], parameter: nn.Parameter, group: int | None) -> ParameterInfo:
    """Plain data about one parameter."""
    return ParameterInfo(
        name=names[0],
        module=owner(names[0]),
        shape=tuple(parameter.shape),
        numel=parameter.numel(),
        dtype=str(parameter.dtype).removeprefix("torch."),
        requires_grad=parameter.requires_grad,
        in_optimizer=group is not None,
        aliases=tuple(names[1:]),
        group=group,
    )


def owner(name: str) -> str:
    """The module to which a parameter belongs; for a parametrized one, the module whose parameter it makes."""
    module, _, parametrized = name.partition("parametrizations.")
    return module.rstrip(".") if parametrized else name.rpartition(".")[0]


def clean(name: str) -> str:
    """A dotted name without the part that torch.compile inserts."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def modules_of(model: nn.Module, eager: bool = False) -> list[tuple[ModuleInfo, nn.Module]]:
    """Every module once, with its description; `probe` is still None. None is compiled where all runs `eager`."""
    found = []
    compiled: list[str] = []
    sources = {kind: source_of(kind) for kind in {type(module) for module in model.modules()}}
    for name, module in model.named_modules():
        if is_compiled(module):
            compiled.append(name)
        if type(module).__name__ == "OptimizedModule":
            continue
        inside = not eager and any(not root or name == root or name.startswith(root + ".") for root in compiled)
        info = ModuleInfo(clean(name), type(module).__name__, compiled=inside, source=sources[type(module)])
        found.append((info, module))
    return found


def is_compiled(module: nn.Module) -> bool:
    """Whether calls of this module run code that torch.compile made."""
    return type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None


def bears_weights(module: nn.Module) -> bool:
    """Whether the module holds parameters of its own, directly or through torch.nn.utils.parametrize.

    Not a scripted one, which takes no hooks.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return False
    own = any(True for _ in module.parameters(recurse=False))
    return (own and type(module).__name__ != "ParametrizationList") or hasattr(module, "parametrizations")


def source_of(kind: type) -> Location | None:
    """Where a class stands, unless a library's: only the user's own code is worth pointing at."""
    try:
        file = inspect.getsourcefile(kind)
        if file is None or "site-packages" in file:
            return None
        return Location.of(file, inspect.getsourcelines(kind)[1])
    except (OSError, TypeError):
        return None
