"""Held out while nan-trace was made, from reports of users: geometry, graphs, contrastive losses, teachers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.nan_corpus.corpus import case

Batch = dict[str, Tensor]


def train(model: nn.Module, batches: list[Any], step: Callable[[Any, Any], Tensor], lr: float = 0.01) -> dict[str, Any]:
    """The parts of a run with SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr)
    return {"model": model, "dataloader": batches, "training_step": step, "optimizer": optimizer}


@case(phase="forward", op=("aten::reciprocal", "aten::div"), cause="division-by-zero", kind="inf", samples=(1,))
def inverse_depth_upsampled_with_a_hole() -> dict[str, Any]:
    """Holes are masked after the interpolation, which has spread them."""

    class Completion(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, depth: Tensor) -> Tensor:
            inverse = 1 / depth  # origin
            inverse = functional.interpolate(inverse, scale_factor=2, mode="bilinear")
            hole = functional.interpolate(depth, scale_factor=2) == 0
            return torch.sigmoid(self.conv(inverse.masked_fill(hole, 0.0)))

    def training_step(net: nn.Module, batch: Batch) -> Tensor:
        return functional.l1_loss(net(batch["depth"]), batch["truth"])

    batch = {"depth": torch.rand(3, 1, 4, 4) + 0.5, "truth": torch.rand(3, 1, 8, 8)}
    batch["depth"][1, 0, 2, 2] = 0
    return train(Completion(), [batch], training_step)


@case(phase="forward", op="aten::div", cause="division-by-zero", kind="inf", samples=(0,))
def reprojection_of_a_point_in_the_camera_plane() -> dict[str, Any]:
    class Warp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.translation = nn.Parameter(torch.tensor([0.1, -0.1, 0.0]))

        def forward(self, image: Tensor, points: Tensor) -> Tensor:
            x, y, z = (points + self.translation).unbind(-1)
            grid = torch.stack((x, y), -1) / z[..., None]  # origin
            return functional.grid_sample(image, grid, padding_mode="zeros", align_corners=False)

    def training_step(warp: nn.Module, batch: Batch) -> Any:
        return (warp(batch["source"], batch["points"]) - batch["target"]).abs().mean()

    points = torch.rand(2, 4, 4, 3) + 0.5
    points[0, 1, 2, 2] = 0
    return train(
        Warp(), [{"source": torch.rand(2, 1, 4, 4), "target": torch.rand(2, 1, 4, 4), "points": points}], training_step
    )


@case(phase="forward", op="aten::div", cause="zero-divided-by-zero", samples=(1,))
def phase_correlation_of_a_blank_image() -> dict[str, Any]:
    class Registration(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filter = nn.Conv2d(1, 1, 3, padding=1, bias=False)

        def forward(self, fixed: Tensor, moving: Tensor) -> Any:
            cross = torch.fft.fft2(self.filter(fixed)) * torch.fft.fft2(self.filter(moving)).conj()
            cross = cross / cross.abs()  # origin
            return torch.fft.ifft2(cross).real

    def training_step(net: nn.Module, batch: Batch) -> Tensor:
        return functional.mse_loss(net(batch["fixed"], batch["moving"]), batch["peak"])

    batch = {key: torch.rand(3, 1, 4, 4) for key in ("fixed", "moving", "peak")}
    batch["moving"][1] = 0
    return train(Registration(), [batch], training_step)


@case(phase="forward", op="aten::div", cause="zero-divided-by-zero", samples=(2,))
def slerp_of_equal_latents() -> dict[str, Any]:
    class Interpolator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decode = nn.Linear(3, 2)

        def forward(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
            angle = torch.acos((a * b).sum(-1, keepdim=True).clamp(-1, 1))
            near, far = torch.sin((1 - t) * angle), torch.sin(t * angle)
            return torch.tanh(self.decode((near * a + far * b) / torch.sin(angle)))  # origin

    def training_step(net: nn.Module, batch: Batch) -> Tensor:
        return functional.mse_loss(net(batch["a"], batch["b"], batch["t"]), batch["image"])

    a, b = functional.normalize(torch.randn(2, 4, 3), dim=-1)
    a[2] = b[2] = torch.tensor([0.0, 1.0, 0.0])
    return train(Interpolator(), [{"a": a, "b": b, "t": torch.rand(4, 1), "image": torch.rand(4, 2)}], training_step)


@case(phase="backward", op="aten::acosh", kind="inf", cause="acosh-at-one")
def poincare_distance_of_a_word_to_itself() -> dict[str, Any]:
    class Hierarchy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.points = nn.Embedding(6, 2)
            nn.init.uniform_(self.points.weight, -0.3, 0.3)

        def forward(self, pairs: Tensor) -> Tensor:
            u, v = self.points(pairs).unbind(1)
            room = (1 - u.square().sum(-1)) * (1 - v.square().sum(-1))
            return torch.acosh(1 + 2 * (u - v).square().sum(-1) / room)  # origin

    def training_step(model: nn.Module, batch: Batch) -> Tensor:
        return functional.l1_loss(model(batch["pair"]), batch["distance"])

    pairs = torch.tensor([[0, 1], [2, 5], [3, 3], [4, 1]])
    return train(Hierarchy(), [{"pair": pairs, "distance": torch.rand(4) + 0.1}], training_step)


@case(phase="forward", op="aten::pow", kind="inf", cause="rsqrt-at-zero")
def degree_of_an_isolated_node() -> dict[str, Any]:
    class GraphConvolution(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Linear(3, 2)

        def forward(self, x: Tensor, adjacency: Tensor) -> Any:
            scale = adjacency.sum(-1) ** -0.5  # origin
            normalised = scale[:, None] * adjacency * scale[None, :]
            return normalised @ self.weight(x)

    def training_step(model: nn.Module, graph: Batch) -> Tensor:
        return functional.cross_entropy(model(graph["x"], graph["adjacency"]), graph["label"])

    adjacency = torch.tensor([[0.0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    graph = {"x": torch.randn(4, 3), "adjacency": adjacency, "label": torch.randint(0, 2, (4,))}
    return train(GraphConvolution(), [graph], training_step)


@case(phase="forward", op="aten::div", cause="zero-divided-by-zero", step=1)
def mean_message_of_no_edges() -> dict[str, Any]:
    class Sage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.neighbours = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor, edges: Tensor) -> Any:
            source, target = edges
            total = torch.zeros_like(x).index_add(0, target, x[source])
            count = torch.bincount(target, minlength=len(x))
            return self.own(x) + self.neighbours(total / count[:, None])  # origin

    def training_step(model: nn.Module, graph: Batch) -> Tensor:
        return functional.mse_loss(model(graph["x"], graph["edges"]), graph["y"])

    edges = (torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]), torch.tensor([[0, 1, 2], [1, 2, 1]]))
    graphs = [{"x": torch.randn(4, 3), "edges": e, "y": torch.randn(4, 2)} for e in edges]
    return train(Sage(), graphs, training_step)


@case(phase="forward", op=("aten::addmm", "aten::linear"), cause="operator-over-infinity")
def maximum_over_no_neighbours() -> dict[str, Any]:
    """A node without neighbours keeps the -inf that the maximum begins with."""

    class MaxPool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift, self.update = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            messages = self.lift(x)[edges[0]]
            pooled = torch.full((len(x), 6), -torch.inf)
            pooled = pooled.scatter_reduce(0, edges[1][:, None].expand(-1, 6), messages, "amax")
            updated: Tensor = self.update(pooled)  # origin
            return updated

    def training_step(model: nn.Module, graph: Batch) -> Tensor:
        return functional.mse_loss(model(graph["x"], graph["edges"]), graph["y"])

    graph = {"x": torch.randn(4, 3), "edges": torch.tensor([[0, 1, 3], [1, 2, 1]]), "y": torch.randn(4, 2)}
    return train(MaxPool(), [graph], training_step)


@case(phase="loss", op="aten::div", cause="masked-mean-of-empty", step=1)
def supervised_contrast_without_a_partner() -> dict[str, Any]:
    def supervised_contrast(features: Tensor, label: Tensor, temperature: float = 0.5) -> Tensor:
        itself = torch.eye(len(label), dtype=torch.bool)
        positive = ((label[:, None] == label) & ~itself).float()
        logits = features @ features.T / temperature
        log_prob = logits - torch.logsumexp(logits.masked_fill(itself, -torch.inf), 1, keepdim=True)
        mean_log_prob = (positive * log_prob).sum(1) / positive.sum(1)  # origin
        return -mean_log_prob.mean()

    def training_step(encoder: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return supervised_contrast(functional.normalize(encoder(batch[0]), dim=1), batch[1])

    labels = (torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 2]))
    return train(nn.Linear(5, 3), [(torch.randn(4, 5), label) for label in labels], training_step)


@case(phase="loss", op="aten::div", kind="inf", step=2, cause="division-by-zero")
def temperature_annealed_to_nothing() -> dict[str, Any]:
    state = {"step": 0}

    def training_step(encoder: nn.Module, views: tuple[Tensor, Tensor]) -> Tensor:
        left, right = (functional.normalize(encoder(view), dim=1) for view in views)
        temperature = 0.5 * (1 - state["step"] / 2)
        state["step"] += 1
        logits = left @ right.T / temperature  # origin
        return functional.cross_entropy(logits, torch.arange(len(logits)))

    return train(nn.Linear(5, 3), [(torch.randn(4, 5), torch.randn(4, 5)) for _ in range(6)], training_step)


@case(phase="forward", op="aten::div", samples=(0, 1, 2, 3), cause="underflowed-total")
def sharpened_guess_of_an_averaged_teacher() -> dict[str, Any]:
    def sharpen(p: Tensor, temperature: float) -> Tensor:
        p = p ** (1 / temperature)
        return p / p.sum(1, keepdim=True)  # origin

    def training_step(student: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                slow.lerp_(fast, 0.01)
            guess = sharpen(torch.softmax(teacher(batch[0]), 1), 0.01)
        return functional.mse_loss(torch.softmax(student(batch[1]), 1), guess)

    student = nn.Linear(5, 10)
    teacher = copy.deepcopy(student)
    return train(student, [(0.1 * torch.randn(4, 5), 0.1 * torch.randn(4, 5))], training_step)
