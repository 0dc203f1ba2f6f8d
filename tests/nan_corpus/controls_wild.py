"""Held out while nan-trace was made: what users do with Inf and NaN and is harmless."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from tests.nan_corpus.corpus import control

Batch = dict[str, Tensor]


def train(model: nn.Module, batches: list[Any], step: Callable[[Any, Any], Tensor], lr: float = 0.01) -> dict[str, Any]:
    """The parts of a run with SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr)
    return {"model": model, "dataloader": batches, "training_step": step, "optimizer": optimizer}


def regress(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The mean squared error."""
    return functional.mse_loss(model(batch[0]), batch[1])


@control()
def hardest_negative_where_there_is_none() -> dict[str, Any]:
    def training_step(encoder: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        embedding, label = encoder(batch[0]), batch[1]
        distance = torch.cdist(embedding, embedding)
        same = label[:, None] == label
        farthest = distance.masked_fill(~same, -torch.inf).amax(1)
        nearest = distance.masked_fill(same, torch.inf).amin(1)
        return torch.relu(farthest - nearest + 0.3).mean()

    labels = (torch.tensor([0, 0, 1, 1, 2]), torch.tensor([3, 3, 3, 3, 3]))
    return train(nn.Linear(4, 3), [(torch.randn(5, 4), label) for label in labels], training_step)


@control()
def isolated_node_set_to_zero() -> dict[str, Any]:
    class GraphConvolution(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Linear(3, 2)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            degree = torch.zeros(len(x)).index_add(0, edges[1], torch.ones(edges.shape[1]))
            scale = degree.pow(-0.5)
            scale[torch.isinf(scale)] = 0
            messages = (scale[edges[0]] * scale[edges[1]])[:, None] * self.weight(x)[edges[0]]
            return torch.zeros(len(x), 2).index_add(0, edges[1], messages)

    def training_step(model: nn.Module, graph: Batch) -> Tensor:
        return functional.cross_entropy(model(graph["x"], graph["edges"]), graph["y"])

    graph = {"x": torch.randn(4, 3), "edges": torch.tensor([[0, 1], [1, 0]]), "y": torch.randint(0, 2, (4,))}
    return train(GraphConvolution(), [graph], training_step)


@control()
def maximum_of_segments_by_scatter() -> dict[str, Any]:
    class MaxPool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift, self.update = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor, segment: Tensor) -> Tensor:
            start = torch.full((4, 6), -torch.inf)
            pooled = start.scatter_reduce(0, segment[:, None].expand(-1, 6), self.lift(x), "amax")
            pooled = torch.where(pooled == -torch.inf, 0.0, pooled)
            return torch.tanh(self.update(pooled))

    def training_step(model: nn.Module, batch: Batch) -> Any:
        return model(batch["x"], batch["segment"]).square().mean()

    batch = {"x": torch.randn(5, 3), "segment": torch.tensor([0, 0, 1, 3, 3])}
    return train(MaxPool(), [batch], training_step)


@control()
def empty_bags_and_empty_sequences() -> dict[str, Any]:
    class Bags(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag, self.head = nn.EmbeddingBag(7, 4, mode="mean"), nn.Linear(4, 2)

        def forward(self, words: Tensor, offsets: Tensor) -> Tensor:
            logits: Tensor = self.head(self.bag(words, offsets))
            return logits

    def training_step(model: nn.Module, batch: Batch) -> Tensor:
        return functional.cross_entropy(model(batch["words"], batch["offsets"]), batch["label"])

    batch = {"words": torch.randint(0, 7, (5,)), "offsets": torch.tensor([0, 2, 2]), "label": torch.tensor([0, 1, 1])}
    return train(Bags(), [batch], training_step)


@control()
def encoder_over_a_sequence_of_padding() -> dict[str, Any]:
    """The fused attention of torch gives 0 where every key is masked."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)

        def forward(self, x: Tensor, padding: Tensor) -> Tensor:
            hidden: Tensor = self.layer(x, src_key_padding_mask=padding)
            return hidden[:, 0]

    def training_step(model: nn.Module, batch: Batch) -> Any:
        return model(batch["x"], batch["padding"]).square().mean()

    padding = torch.tensor([[False, False, True], [True, True, True]])
    return train(Encoder(), [{"x": torch.randn(2, 3, 4), "padding": padding}], training_step)


@control()
def entropy_of_masked_actions() -> dict[str, Any]:
    def training_step(policy: nn.Module, batch: Batch) -> Any:
        logits = policy(batch["state"]).masked_fill(~batch["legal"], -torch.inf)
        distribution = Categorical(logits=logits)
        return -(distribution.log_prob(batch["action"]) + 0.01 * distribution.entropy()).mean()  # type: ignore[no-untyped-call]

    legal = torch.tensor([[True, False, True], [True, True, True], [False, True, False]])
    batch = {"state": torch.randn(3, 4), "legal": legal, "action": torch.tensor([2, 0, 1])}
    return train(nn.Linear(4, 3), [batch], training_step)


@control()
def earliest_stop_from_infinity() -> dict[str, Any]:
    """A best value that begins at Inf in a buffer and a module's attribute, and is compared only."""

    class Keeper(nn.Module):
        best: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 1)
            self.patience, self.best_seen = 0, math.inf
            self.register_buffer("best", torch.full((), torch.inf))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.fc(x)
            with torch.no_grad():
                self.patience += int(bool(out.mean() >= self.best))
                self.best_seen = min(self.best_seen, float(out.mean()))
                self.best.copy_(torch.minimum(self.best, out.mean()))
            return out

    return train(Keeper(), [(torch.randn(4, 3), torch.randn(4, 1))], regress)


@control()
def packed_recurrence_with_nan_padding() -> dict[str, Any]:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(2, 4, batch_first=True), nn.Linear(4, 1)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return torch.squeeze(self.head(self.rnn(packed)[1][0]), 1)

    def training_step(model: nn.Module, batch: Batch) -> Any:
        return (model(batch["x"], batch["lengths"]) - batch["y"]).square().mean()

    x = torch.randn(3, 4, 2)
    x[0, 2:] = x[2, 3:] = torch.nan
    return train(Reader(), [{"x": x, "lengths": torch.tensor([2, 4, 3]), "y": torch.randn(3)}], training_step)


@control()
def targets_missing_as_nan() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        known = ~torch.isnan(batch[1])
        return functional.mse_loss(model(batch[0])[known], batch[1][known])

    y = torch.randn(4, 2)
    y[1, 0] = y[3, 1] = torch.nan
    return train(nn.Linear(3, 2), [(torch.randn(4, 3), y)], training_step)
