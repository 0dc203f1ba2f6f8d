"""A workload whose steps can be run again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.utils._python_dispatch import _disable_current_modes

from gradcheck_cli.drive.batches import Batch, clone
from gradcheck_cli.drive.loop import LoopSettings, make_scaler, run
from gradcheck_cli.drive.workload import Workload
from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.observe.inputs import floating_tensors
from gradcheck_cli.observe.nan.births import Births
from gradcheck_cli.observe.nan.held import HeldStep
from gradcheck_cli.observe.nan.snapshot import Snapshot
from gradcheck_cli.observe.nan.tracer import Tracer
from gradcheck_cli.tape import Tape
from gradcheck_cli.tracing.ranks import ALONE, Lead, Ranks

Inspect = Callable[[Iterable[Batch]], Iterable[Batch]]
Change = Callable[[Any], Any]


@dataclass(frozen=True)
class Session:
    """What is trained, how, with which scaler; which tensors were bad before; where things were made; on which ranks.

    With a `lead`, other ranks follow each replay.
    """

    workload: Workload
    loop: LoopSettings
    scaler: GradScaler
    known_bad: frozenset[str]
    births: Births
    ranks: Ranks = ALONE
    lead: Lead | None = None

    def snapshot(self) -> Snapshot:
        """The present state of everything that a step changes."""
        parts = (self.workload.model, self.workload.loss_fn, *self.births.modules)
        modules = [part for part in parts if isinstance(part, nn.Module)]
        functions = [self.workload.training_step, self.workload.loss_fn, *(module.forward for module in modules)]
        return Snapshot(modules, self.optimizers, self.schedulers, self.scaler, functions)

    @property
    def optimizers(self) -> list[Optimizer]:
        """The one that is driven, and those that a training_step may call itself."""
        mine = self.workload.optimizer
        return [mine, *(other for other in self.births.optimizers if other is not mine)]

    @property
    def schedulers(self) -> list[Any]:
        """The one that is driven, and those that a training_step may call itself."""
        mine = self.workload.scheduler
        return [mine, *(other for other in self.births.schedulers if other is not mine)]

    def run_again(self, step: HeldStep, inspect: Inspect = iter, change: Change = clone) -> None:
        """Train one step on kept batches, `change` being made to the data of each; raises what the step raises."""

        def rewound(batches: Iterable[Batch]) -> Iterator[Batch]:
            for held, batch in zip(step.batches, batches, strict=True):
                with _disable_current_modes():  # it is no part of the step
                    data = change(batch.data)
                    held.random.restore()
                yield replace(batch, data=data)

        if self.lead:
            self.lead.announce(step)
        window: list[Batch] = [held.batch for held in step.batches]
        settings = replace(self.loop, steps=1)
        for _ in run(self.workload, [window], settings, lambda batches: inspect(rewound(batches)), self.scaler):
            pass

    def without_scaling(self) -> Session:
        """The same in fp32, without a loss scale."""
        loop = replace(self.loop, precision="fp32")
        return replace(self, loop=loop, scaler=make_scaler(loop))


@dataclass(frozen=True)
class Repairs:
    """What a replay makes finite: results of operations by index, all results of the autograd nodes of operations
    by the index of those, tensors from outside by their source's name.
    """

    operations: Mapping[int, float]
    derivatives: Mapping[int, float]
    sources: Mapping[str, float]

    def make(self, model: nn.Module) -> None:
        """Repair the parameters and buffers among the sources, in place."""
        named = {f"parameter:{name}": p.data for name, p in model.named_parameters()}
        named.update({f"buffer:{name}": buffer for name, buffer in model.named_buffers()})
        for source, value in self.sources.items():
            if source in named:
                named[source].nan_to_num_(value, value, -value)

    def change(self, data: Any) -> Any:
        """A copy of a batch with the fields among the sources repaired."""
        copy = clone(data)
        for path, tensor in floating_tensors(copy, "batch:"):
            if path in self.sources:
                value = self.sources[path]
                tensor.nan_to_num_(value, value, -value)
        return copy


NO_REPAIRS = Repairs({}, {}, {})


def trace(session: Session, step: HeldStep, before: Snapshot, repairs: Repairs = NO_REPAIRS) -> Tape:
    """Replay a step from the state `before` it, operation by operation."""
    before.restore()
    model = session.workload.model
    repairs.make(model)
    tracer = Tracer(model, session.optimizers, repairs.operations, repairs.derivatives, session.known_bad)
    with tracer.tracing():
        try:
            session.run_again(step, tracer.inspect, repairs.change)
        except GradcheckError as error:
            tracer.note_error(error.message.partition(": ")[2])
    return tracer.tape(step.number)
