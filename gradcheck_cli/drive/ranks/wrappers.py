"""A plain model's training step in DDP or FSDP2."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from gradcheck_cli.drive.workload import Workload
from gradcheck_cli.errors import TargetError

Hold = Callable[[], AbstractContextManager[Any]]
"""Keeps gradients from being synchronised."""


class TrainingStepModule(nn.Module):
    """A training step as the forward pass of a module, so that whatever it calls of the model is synchronised."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.model, self.training_step = workload.model, workload.training_step
        if isinstance(workload.loss_fn, nn.Module):
            self.loss_fn = workload.loss_fn

    def forward(self, batch: Any) -> Tensor:
        """The loss of one batch."""
        return self.training_step(self.model, batch)

    def others(self, workload: Workload) -> list[nn.Parameter]:
        """What the optimizer trains besides: parameters that a training step gets from elsewhere."""
        known = set(map(id, self.parameters()))
        held = [parameter for group in workload.optimizer.param_groups for parameter in group["params"]]
        return [parameter for parameter in held if id(parameter) not in known]


def replicate(step: TrainingStepModule, workload: Workload, device: torch.device) -> tuple[nn.Module, Hold]:
    """The step in DDP. It looks for unused parameters: a rank that does not use one must not make the others wait."""
    for number, parameter in enumerate(step.others(workload)):
        step.register_parameter(f"other{number}", parameter)
    wrapped = DistributedDataParallel(step, find_unused_parameters=True)

    def check_once(module: nn.Module, args: Any, loss: Any) -> None:
        handle.remove()
        check_checkpoints(loss)

    handle = step.register_forward_hook(check_once)
    return wrapped, wrapped.no_sync


def check_checkpoints(loss: Any) -> None:
    """Raise TargetError where DDP cannot look for unused parameters: those in a reentrant checkpoint are hidden."""
    if isinstance(loss, Tensor) and any(node.name() == "CheckpointFunctionBackward" for node in graph_of(loss)):
        raise TargetError(
            "the model uses reentrant gradient checkpointing, in which DDP cannot look for unused parameters",
            "pass use_reentrant=False to torch.utils.checkpoint.checkpoint (in transformers: gradient_checkpointing_"
            "enable({'use_reentrant': False})), or return the model in DistributedDataParallel",
        )


def graph_of(loss: Tensor) -> Iterator[Any]:
    """Every node of the graph behind a loss."""
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
            yield node


def shard(step: TrainingStepModule, workload: Workload, device: torch.device) -> tuple[nn.Module, Hold]:
    """The step in FSDP2: each block of every ModuleList by itself, then the rest. The optimizer gets the shards."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    check_shardable(step, workload)
    names = {id(parameter): name for name, parameter in step.named_parameters()}
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in blocks_of(step):
        fully_shard(block, mesh=mesh)
    fully_shard(step, mesh=mesh)
    adopt_shards(workload.optimizer, names, dict(step.named_parameters()))
    return step, lambda: unsharded_only(step)


def check_shardable(step: TrainingStepModule, workload: Workload) -> None:
    """Raise TargetError for an optimizer that cannot be given shards, and for gradients that FSDP2 cannot reduce."""
    sparse = [name for name, module in step.model.named_modules() if getattr(module, "sparse", False) is True]
    if sparse:
        raise TargetError(
            f"{sparse[0]} makes sparse gradients, which FSDP2 cannot reduce", "set sparse=False, or use --strategy ddp"
        )
    if workload.optimizer.state:
        kind = type(workload.optimizer).__name__
        raise TargetError(
            f"{kind} has state of the whole parameters already, and --strategy fsdp2 shards them",
            "return the optimizer before its first step (Adagrad has state from the start), or use --strategy ddp",
        )
    if step.others(workload):
        raise TargetError(
            "the optimizer holds parameters that are neither the model's nor its loss_fn's: --strategy fsdp2 cannot"
            " shard them",
            "make them part of the model, or use --strategy ddp",
        )


def blocks_of(step: nn.Module) -> list[nn.Module]:
    """What is in ModuleLists, inner ones first, unless it shares a parameter with the rest, or is itself a list."""
    uses = Counter(id(parameter) for _, parameter in step.named_parameters(remove_duplicate=False))
    found: dict[int, nn.Module] = {}
    lists = [module for module in step.modules() if isinstance(module, nn.ModuleList)]
    for blocks in reversed(lists):
        for block in (one for one in blocks if type(one).forward is not nn.Module.forward):
            inside = Counter(id(parameter) for _, parameter in block.named_parameters(remove_duplicate=False))
            if inside and all(uses[one] == inside[one] for one in inside):
                found[id(block)] = block
    return list(found.values())


def adopt_shards(optimizer: Optimizer, names: dict[int, str], shards: dict[str, nn.Parameter]) -> None:
    """Give the optimizer the new parameters for the old ones."""
    for group in optimizer.param_groups:
        group["params"] = [shards[names[id(parameter)]] for parameter in group["params"]]


@contextmanager
def unsharded_only(module: Any) -> Iterator[None]:
    """Add gradients up on each rank without synchronising them."""
    module.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        module.set_requires_gradient_sync(True)
