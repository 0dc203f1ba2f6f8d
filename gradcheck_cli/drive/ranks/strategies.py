"""Make a workload one that its ranks train together: DDP or FSDP2 around a plain model, or what it comes with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gradcheck_cli.drive.usercode import user_code
from gradcheck_cli.drive.workload import TrainingStep, Workload
from gradcheck_cli.errors import TargetError

OWN = "own"
Hold = Callable[[], AbstractContextManager[Any]]


class TrainingStepModule(nn.Module):
    """A training step as the forward pass of a module, so that whatever it calls of the model is synchronised."""

    def __init__(self, model: nn.Module, training_step: TrainingStep, loss_fn: Any) -> None:
        super().__init__()
        self.model, self.training_step = model, training_step
        if isinstance(loss_fn, nn.Module):
            self.loss_fn = loss_fn

    def forward(self, batch: Any) -> Tensor:
        """The loss of one batch."""
        return self.training_step(self.model, batch)


@dataclass(frozen=True)
class Strategy:
    """How ranks synchronise: ddp, fsdp2, none or OWN, by these modules, averaging gradients over `degree` ranks."""

    name: str = "none"
    degree: int = 1
    modules: tuple[nn.Module, ...] = ()

    @classmethod
    def of(cls, name: str, model: nn.Module) -> Strategy:
        """That of a wrapped model."""
        modules = tuple(module for module in model.modules() if is_synchroniser(module))
        return cls(name, max(map(degree_of, modules), default=1), modules)

    @property
    def finds_unused(self) -> bool:
        """Whether no rank waits for the gradient of a parameter that another one does not use."""
        return all(getattr(module, "find_unused_parameters", True) for module in self.modules)

    @property
    def sync_seconds(self) -> float:
        """What DDP's own clock says of one synchronisation, the mean of those that it has timed; else NaN."""
        for module in self.modules:
            if isinstance(module, DistributedDataParallel):
                timed = module._get_ddp_logging_data()  # type: ignore[no-untyped-call]
                return float(timed.get("avg_backward_comm_time", float("nan"))) / 1e9
        return float("nan")


UNSYNCHRONISED = Strategy()


def is_synchroniser(module: nn.Module) -> bool:
    """Whether it is a module in DDP, or one that FSDP2 has sharded."""
    return isinstance(module, DistributedDataParallel) or hasattr(module, "set_requires_gradient_sync")


def degree_of(module: Any) -> int:
    """Over how many ranks it averages gradients."""
    if isinstance(module, DistributedDataParallel):
        return dist.get_world_size(module.process_group)
    state = module._get_fsdp_state()
    groups = getattr(state, "_fsdp_param_groups", None) or [state._fsdp_param_group]
    info = groups[0].mesh_info if groups and groups[0] else None
    return getattr(info, "shard_mesh_size", 1) * getattr(info, "replicate_mesh_size", 1)


def distribute(workload: Workload, strategy: str | None, device: torch.device) -> tuple[Workload, Strategy]:
    """The workload as the ranks train it, and the strategy: `strategy`, DDP without one, or OWN.

    Its model is the bare one, whose parameters have the names of a run of one process. A model that comes wrapped is
    left as it is. Raises TargetError where the strategy cannot be used with it.
    """
    if is_synchronised(workload.model):
        check_own(workload.model)
        hold, step = own_hold(workload.model), of_wrapped(workload)
        return replace(workload, model=bare(workload.model), training_step=step, holding=hold), Strategy.of(
            OWN, workload.model
        )
    if strategy == "none":
        return workload, UNSYNCHRONISED
    wrap = shard if strategy == "fsdp2" else replicate
    module = TrainingStepModule(workload.model, workload.training_step, workload.loss_fn)
    with user_code(f"--strategy {strategy or 'ddp'} does not take this model", kind=TargetError):
        wrapped, hold = wrap(module, workload, device)
    trained = replace(workload, training_step=lambda _, batch: wrapped(batch), holding=hold)
    return trained, Strategy.of(strategy or "ddp", wrapped)


def is_synchronised(model: nn.Module) -> bool:
    """Whether the model came wrapped, or its parameters are distributed tensors."""
    kinds = ("DistributedDataParallel", "FullyShardedDataParallel")
    wrapped = any(type(module).__name__ in kinds for module in model.modules())
    return wrapped or any(hasattr(parameter, "device_mesh") for parameter in model.parameters())


def check_own(model: nn.Module) -> None:
    """Raise TargetError for a wrapper whose gradients are shards without names."""
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        raise TargetError(
            "the model is wrapped in FullyShardedDataParallel, whose gradients are pieces of flat parameters",
            "wrap it with torch.distributed.fsdp.fully_shard, or return it plain and use --strategy fsdp2",
        )


def bare(model: nn.Module) -> nn.Module:
    """The model inside DDP."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def of_wrapped(workload: Workload) -> TrainingStep:
    """The user's step, which is given the model that the user returned."""
    return lambda _, batch: workload.training_step(workload.model, batch)


def replicate(step: TrainingStepModule, workload: Workload, device: torch.device) -> tuple[nn.Module, Hold]:
    """The step in DDP. It looks for unused parameters: a rank that does not use one must not make the others wait."""
    devices = [device] if device.type == "cuda" else None
    wrapped = DistributedDataParallel(step, device_ids=devices, find_unused_parameters=True)
    return wrapped, wrapped.no_sync


def shard(step: TrainingStepModule, workload: Workload, device: torch.device) -> tuple[nn.Module, Hold]:
    """The step in FSDP2: each block of every ModuleList by itself, then the rest. The optimizer gets the shards."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    names = {id(parameter): name for name, parameter in step.named_parameters()}
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for blocks in [module for module in step.modules() if isinstance(module, nn.ModuleList)]:
        for block in blocks:
            fully_shard(block, mesh=mesh)
    fully_shard(step, mesh=mesh)
    adopt_shards(workload, names, dict(step.named_parameters()))
    return step, lambda: unsharded_only(step)


def adopt_shards(workload: Workload, names: dict[int, str], shards: dict[str, Tensor]) -> None:
    """Give the optimizer the new parameters for the old ones. Raises TargetError where it has state of those."""
    optimizer = workload.optimizer
    if optimizer.state:
        raise TargetError("the optimizer has state of the whole parameters already", "return it as it is before a step")
    for group in optimizer.param_groups:
        group["params"] = [shards[names[id(p)]] if id(p) in names else p for p in group["params"]]


@contextmanager
def unsharded_only(module: Any) -> Iterator[None]:
    """Add gradients up on each rank without synchronising them."""
    module.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        module.set_requires_gradient_sync(True)


def own_hold(model: nn.Module) -> Hold:
    """The same for a model that came wrapped, whichever wrappers it has."""

    @contextmanager
    def hold() -> Iterator[None]:
        with ExitStack() as stack:
            for module in model.modules():
                if isinstance(module, DistributedDataParallel):
                    stack.enter_context(module.no_sync())
                elif hasattr(module, "set_requires_gradient_sync"):
                    stack.enter_context(unsharded_only(module))
            yield

    return hold
