"""Small entrypoints that several ranks train."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(torch.relu(self.wide(self.norm(x))))


class Residual(nn.Module):
    """Odd widths, so that shards are uneven, and one output, so that some are empty."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 15)
        self.blocks = nn.ModuleList(Block(15) for _ in range(3))
        self.last = nn.Linear(15, 1)

    def features(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.features(x))


def data(samples: int = 192) -> TensorDataset:
    torch.manual_seed(1)
    x = torch.randn(samples, 7)
    return TensorDataset(x, x[:, :1].sin() + 0.5 * x[:, 1:2])


def residual(batch_size: int = 8, shuffle: bool = True, lr: float = 1e-2) -> dict[str, Any]:
    """A training step that calls methods of the model, as a wrapped one would not let it."""
    torch.manual_seed(0)
    model = Residual()

    def training_step(model: Any, batch: Any) -> Tensor:
        return nn.functional.mse_loss(model.last(model.features(batch[0])), batch[1])

    return {
        "model": model,
        "dataloader": DataLoader(data(), batch_size, shuffle=shuffle),
        "training_step": training_step,
        "optimizer": torch.optim.SGD(model.parameters(), lr, momentum=0.9),
    }


class RootOfDistance(nn.Module):
    """The slope of a square root at 0 is infinite: for a sample of zeros the loss is finite, the gradient is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(7, 5, bias=False), nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        distance = self.first(x).square().sum(1, keepdim=True).sqrt()
        return self.last(distance)


def with_bad_sample(kind: str = "slope", index: Any = 38, batch_size: int = 4) -> dict[str, Any]:
    """Sample 38 is in batch 9: the fifth of rank 1 when two ranks take turns."""
    torch.manual_seed(0)
    x = torch.randn(96, 7)
    y = x[:, :1].sin()
    if kind == "slope":
        x[index] = 0
    elif kind == "data":
        x[index, 2] = torch.nan
    else:
        x[:, 6] = 0  # no gradient for its weights: Adam without eps divides 0 by 0
    model = RootOfDistance() if kind == "slope" else Residual()
    return {
        "model": model,
        "dataloader": DataLoader(TensorDataset(x, y), batch_size),
        "loss_fn": nn.MSELoss(),
        "optimizer": torch.optim.Adam(model.parameters(), 1e-3, eps=0 if kind == "update" else 1e-8),
    }


def returned(model: nn.Module, dataloader: Any, **others: Any) -> dict[str, Any]:
    """For models that are called with the first of two tensors."""
    return {
        "model": model,
        "dataloader": dataloader,
        "loss_fn": nn.functional.mse_loss,
        "optimizer": torch.optim.SGD(model.parameters(), 1e-2, momentum=0.9, foreach=False),
        **others,
    }


def small(batch_size: int = 4) -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    return returned(model, DataLoader(data(), batch_size, shuffle=True))


KEPT: list[dict[str, Any]] = []
"""What was built last, to be looked at afterwards."""


def kept(dropout: float = 0.1) -> dict[str, Any]:
    """Batches of rank's own sampler, and random numbers in training."""
    parts = small()
    parts["model"].append(nn.Dropout(dropout))
    parts["dataloader"] = DataLoader(data(), 4, sampler=DistributedSampler(data()))
    KEPT[:] = [parts]
    return parts


def wrapped(batch_size: int = 4, wrapper: str = "ddp", compiled: str = "", **options: Any) -> dict[str, Any]:
    """Wrapped by the entrypoint, where there are several ranks."""
    torch.manual_seed(0)
    model: nn.Module = Residual()
    if compiled == "inside":
        model = torch.compile(model, backend="eager")  # type: ignore[assignment]
    if dist.is_initialized():
        model = WRAPPERS[wrapper](model, **options)
    if compiled == "outside":
        model = torch.compile(model, backend="eager")  # type: ignore[assignment]
    return returned(model, DataLoader(data(), batch_size, shuffle=True))


def sharded(model: Any, mesh: tuple[int, ...] = ()) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    names = ("replicate", "shard")
    over = init_device_mesh("cpu", tuple(mesh), mesh_dim_names=names[: len(mesh)]) if mesh else None
    for block in model.blocks:
        fully_shard(block, mesh=over)
    return fully_shard(model, mesh=over)


def flat(model: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(model, device_id=torch.device("cpu"))


WRAPPERS: dict[str, Any] = {"ddp": DistributedDataParallel, "fsdp2": sharded, "fsdp1": flat}


class Entered(Block):
    """With a place where its input can be split."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.enter = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(torch.relu(self.wide(self.norm(self.enter(x)))))


class Sequences(nn.Module):
    """Blocks of sequences, which ranks can split by width and by position."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(7, 16), nn.Linear(16, 1)
        self.blocks = nn.ModuleList(Entered(16) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x[:, None, :] * torch.arange(1, 5)[None, :, None])
        for block in self.blocks:
            x = block(x)
        return self.last(x).mean(1)


def split(batch_size: int = 8, by_position: bool = False, shard: bool = False) -> dict[str, Any]:
    """Tensor parallel over two ranks, and FSDP2 over the other dimension of a mesh of four if `shard`."""
    torch.manual_seed(0)
    model = Sequences()
    if dist.is_initialized():
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (dist.get_world_size() // 2, 2), mesh_dim_names=("data", "tensor"))
        for block in model.blocks:
            split_block(block, mesh["tensor"], by_position)
        for part in [*model.blocks, model] if shard else []:
            fully_shard(part, mesh=mesh["data"])
    return returned(model, DataLoader(data(), batch_size, shuffle=True))


def split_block(block: nn.Module, mesh: Any, by_position: bool) -> None:
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        PrepareModuleInput,
        RowwiseParallel,
        SequenceParallel,
        parallelize_module,
    )

    plan: dict[str, Any] = {"wide": ColwiseParallel(), "narrow": RowwiseParallel()}
    if by_position:
        plan["enter"] = PrepareModuleInput(
            input_layouts=Replicate(), desired_input_layouts=Shard(1), use_local_output=False
        )
        plan["norm"], plan["wide"] = SequenceParallel(), ColwiseParallel(input_layouts=Shard(1))
    parallelize_module(block, mesh, plan)


class Words(nn.Module):
    """What a model may have: tied, frozen, sparse, complex, in lists of lists."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 8, sparse=kind == "sparse")
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.last = nn.Linear(8, 10, bias=False)
        if kind == "nested":
            self.blocks = nn.ModuleList([nn.ModuleList([block]) for block in self.blocks])
        if kind in ("tied", "tied in a list"):
            self.last.weight = self.words.weight
        if kind == "tied in a list":
            self.outputs = nn.ModuleList([self.last])
        if kind == "frozen":
            self.blocks[0].weight.requires_grad_(False)
        if kind == "complex":
            self.waves = nn.Parameter(torch.randn(8, dtype=torch.complex64))

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words)
        for block in self.blocks:
            for layer in block if isinstance(block, nn.ModuleList) else [block]:
                x = x + torch.relu(layer(x))
        return self.last((torch.fft.fft(x) * self.waves).abs() if hasattr(self, "waves") else x)


class Tempered(nn.Module):
    """A criterion that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor([1.5]))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output * self.temperature, target)


def words(batch_size: int = 8, kind: str = "", optimizer: str = "sgd") -> dict[str, Any]:
    torch.manual_seed(0)
    model, loss_fn = Words(kind), Tempered() if kind in ("criterion", "hidden criterion") else nn.CrossEntropyLoss()
    whole = [torch.randint(0, 10, (8,)) for _ in range(12)]
    batches = [(part, (part + 1) % 10) for one in whole for part in one.split(batch_size)]
    trained = [one for one in [*model.parameters(), *loss_fn.parameters()] if one.requires_grad]
    groups = [{"params": trained[:1], "lr": 0.1}, {"params": trained[1:]}]
    momentum = 0.0 if kind == "sparse" else 0.9
    made = torch.optim.Adagrad(trained) if optimizer == "adagrad" else torch.optim.SGD(groups, 0.05, momentum)
    parts = {"model": model, "dataloader": batches, "loss_fn": loss_fn, "optimizer": made}
    if kind == "hidden criterion":
        del parts["loss_fn"]
        parts["training_step"] = lambda model, batch: loss_fn(model(batch[0]), batch[1])
    if kind == "schedule":
        parts["scheduler"] = torch.optim.lr_scheduler.StepLR(made, 2)
    if kind == "plateau":  # a loss that is not a tenth of a percent better halves the rate
        parts["scheduler"] = torch.optim.lr_scheduler.ReduceLROnPlateau(made, factor=0.5, patience=0, threshold=1e-3)
    return {name: value for name, value in parts.items() if name != "optimizer" or optimizer != "none"}


class Checkpointed(Residual):
    reentrant = False

    def features(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)  # type: ignore[assignment]
        return x


def checkpointed(batch_size: int = 4, reentrant: bool = False, own: bool = False) -> dict[str, Any]:
    torch.manual_seed(0)
    model: Any = Checkpointed()
    model.reentrant = reentrant
    if own and dist.is_initialized():
        model = DistributedDataParallel(model)
    return returned(model, DataLoader(data(), batch_size, shuffle=True))


class Branches(nn.Module):
    """One of its layers is not used where no sample of the batch is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.side, self.last = nn.Linear(7, 8), nn.Linear(7, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        is_positive = x[:, :1] > 0
        hidden = self.main(x)
        if is_positive.any():
            hidden = hidden + self.side(x) * is_positive
        return self.last(torch.relu(hidden))


def branches(batch_size: int = 8, find_unused: bool | None = None, bucket_view: bool = False) -> dict[str, Any]:
    """The samples of rank 0 of two are positive, those of rank 1 not. Wrapped unless `find_unused` is None."""
    torch.manual_seed(0)
    model: nn.Module = Branches()
    if find_unused is not None and dist.is_initialized():
        options = {"find_unused_parameters": find_unused, "gradient_as_bucket_view": bucket_view}
        model = DistributedDataParallel(model, **options)
    x = data().tensors[0].abs()
    whole = [torch.cat([part[:4], -part[4:]]) for part in x.split(8)]
    batches = [(part, part[:, 1:2].sin()) for one in whole for part in one.split(batch_size)]
    return returned(model, batches)


def troubled(batch_size: int = 4, trouble: str = "", at: int = 3) -> dict[str, Any]:
    """In a step of rank 1 something happens."""
    parts, calls = small(batch_size), iter(range(10**6))

    def training_step(model: Any, batch: Any) -> Tensor:
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        if next(calls) != at or not dist.is_initialized() or dist.get_rank() != 1:
            return loss
        if trouble == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        if trouble == "written":
            with torch.no_grad():
                model[3].bias += 1.0
        return loss * {"nan": float("nan"), "large": 1e4}.get(trouble, 1.0)

    del parts["loss_fn"]
    return {**parts, "training_step": training_step}


def limited(batches: int = 99, of_rank_1: int = 99, fails: int = 99) -> dict[str, Any]:
    """A generator that gives rank 1 other numbers of batches, or raises there."""
    rank = dist.get_rank() if dist.is_initialized() else 0

    def make() -> Iterator[Any]:
        x, y = data().tensors
        for number, one in enumerate(zip(x.split(4), y.split(4), strict=True)):
            if number == fails and rank == 1:
                raise ValueError("a broken file")
            if number == (of_rank_1 if rank == 1 else batches):
                return
            yield one

    KEPT[:] = [{**small(), "dataloader": make()}]
    return KEPT[0]
