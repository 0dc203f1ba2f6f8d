"""Make a workload one that its ranks train together: DDP or FSDP2 around a plain model, or what it comes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gradcheck_cli.drive.ranks.group import Place
from gradcheck_cli.drive.ranks.wrappers import Hold, TrainingStepModule, replicate, shard, unsharded_only
from gradcheck_cli.drive.usercode import user_code
from gradcheck_cli.drive.workload import TrainingStep, Workload
from gradcheck_cli.errors import TargetError

OWN = "own"


@dataclass(frozen=True)
class Strategy:
    """How ranks synchronise: ddp, fsdp2, none or OWN, by these modules.

    `place` is that among the ranks whose gradients are averaged, which train on different batches; None where none are.
    """

    name: str = "none"
    place: Place | None = None
    modules: tuple[nn.Module, ...] = ()

    @classmethod
    def of(cls, name: str, model: nn.Module) -> Strategy:
        """That of a wrapped model."""
        modules = tuple(module for module in model.modules() if is_synchroniser(module))
        is_split = any(hasattr(parameter, "device_mesh") for parameter in model.parameters())
        if not modules and not is_split:
            return cls()
        return cls(name, max(map(place_of, modules), key=lambda place: place.size, default=Place()), modules)

    @property
    def degree(self) -> int:
        """Over how many ranks gradients are averaged."""
        return self.place.size if self.place else 1

    @property
    def finds_unused(self) -> bool:
        """Whether no rank waits for the gradient of a parameter that another one does not use."""
        waiting = [one for one in self.modules if isinstance(one, DistributedDataParallel) and not one.static_graph]
        return all(module.find_unused_parameters for module in waiting)

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


def place_of(module: Any) -> Place:
    """Where this rank is among those over which it averages gradients."""
    if isinstance(module, DistributedDataParallel):
        return Place(dist.get_rank(module.process_group), dist.get_world_size(module.process_group))
    state = module._get_fsdp_state()
    groups = getattr(state, "_fsdp_param_groups", None) or [state._fsdp_param_group]
    info = groups[0].mesh_info if groups and groups[0] else None
    shards, copies = getattr(info, "shard_mesh_size", 1), getattr(info, "replicate_mesh_size", 1)
    copy, shard = getattr(info, "replicate_mesh_rank", 0), getattr(info, "shard_mesh_rank", 0)
    return Place(copy * shards + shard, shards * copies)


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
    module = TrainingStepModule(workload)
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
    """The model inside DDP, compiled if that is."""
    if isinstance(model, DistributedDataParallel):
        return model.module  # type: ignore[no-any-return]
    inner = getattr(model, "_orig_mod", None)  # of torch.compile
    return type(model)(inner.module, model.dynamo_ctx) if isinstance(inner, DistributedDataParallel) else model


def of_wrapped(workload: Workload) -> TrainingStep:
    """The user's step, which is given the model that the user returned."""
    return lambda _, batch: workload.training_step(workload.model, batch)


def own_hold(model: nn.Module) -> Hold:
    """The same for a model that came wrapped, whichever wrappers it has."""

    @contextmanager
    def hold() -> Iterator[None]:
        with ExitStack() as stack:
            for module in model.modules():
                if isinstance(module, DistributedDataParallel):
                    if not module.static_graph or module._static_graph_delay_allreduce_enqueued:  # else it would fail
                        stack.enter_context(module.no_sync())
                elif hasattr(module, "set_requires_gradient_sync"):
                    stack.enter_context(unsharded_only(module))
            yield

    return hold
