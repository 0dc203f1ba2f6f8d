"""Held out while nan-trace was made, from reports of users: layers of torch, half precision, linear algebra."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from tests.nan_corpus.corpus import case

FP16 = {"precision": "fp16"}
LINEAR = ("aten::addmm", "aten::linear")
BATCH_NORM = ("aten::native_batch_norm", "aten::_native_batch_norm_legit_no_training")
Batch = dict[str, Tensor]


def train(model: nn.Module, batches: list[Any], step: Callable[[Any, Any], Tensor], lr: float = 0.01) -> dict[str, Any]:
    """The parts of a run with SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr)
    return {"model": model, "dataloader": batches, "training_step": step, "optimizer": optimizer}


def regress(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The mean squared error in 32 bits."""
    return functional.mse_loss(model(batch[0]).float(), batch[1].float())


@case(phase="forward", op="aten::div", cause="spectral-norm-of-zero")
def spectral_norm_of_a_zero_head() -> dict[str, Any]:
    class Discriminator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 1)
            nn.init.zeros_(self.head.weight)
            self.head = parametrizations.spectral_norm(self.head)  # type: ignore[assignment]

        def forward(self, x: Tensor) -> Tensor:
            hidden = functional.leaky_relu(self.body(x), 0.2, inplace=True)
            score: Tensor = self.head(hidden)  # origin
            return score

    return train(Discriminator(), [(torch.randn(4, 4), torch.rand(4, 1))], regress)


@case(phase="forward", op="aten::div", cause="normalise-zero-vector", samples=(0,))
def normalised_padding_in_half() -> dict[str, Any]:
    """`normalize` guards with 1e-12, which is 0 in half precision."""

    class Projector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(4, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return functional.normalize(self.project(x), dim=-1)  # origin

    x = torch.randn(3, 4).half()
    x[0] = 0
    return train(Projector().half(), [(x, torch.rand(3, 3))], regress)


@case(phase="forward", op=LINEAR, kind="inf", samples=(1,), settings=FP16, cause="half-matmul-overflow")
def encoder_layer_in_half() -> dict[str, Any]:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True, norm_first=True)
            nn.init.constant_(layer.linear1.weight, 300.0)
            nn.init.constant_(layer.linear2.weight, 100.0)
            nn.init.constant_(layer.norm2.bias, -0.5)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.gate = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            hidden: Tensor = self.encoder(x)  # origin
            return hidden

    model = Tagger()
    norm = model.encoder.layers[0].get_submodule("norm2")
    nn.init.zeros_(norm.get_parameter("weight"))
    nn.init.constant_(norm.get_parameter("bias"), -0.5)
    with torch.no_grad():
        norm.get_parameter("weight")[0] = 1.5
    x = torch.zeros(3, 2, 4) + torch.tensor([-1.0, 0.0, 0.0, 1.0])
    x[1] = torch.tensor([3.0, 0.0, 0.0, -1.0])
    return train(model, [(x, torch.zeros(3, 2, 4))], regress, 1e-9)


@case(phase="backward", op=("aten::_to_copy", "aten::to"), kind="inf", cause="gradient-overflow")
def loss_scaled_by_hand() -> dict[str, Any]:
    """Two to the sixteenth is beyond half precision where the gradient enters it."""

    class Regressor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(4, 8), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Any:
            out = self.outer(torch.tanh(self.inner(x.half())))
            return out.squeeze(1).float()  # origin

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return 2.0**16 * functional.mse_loss(model(batch[0]), batch[1])

    return train(Regressor().half(), [(torch.randn(2, 4), torch.full((2,), 5.0))], training_step, 1e-6)


@case(phase="forward", op="aten::cumsum", cause="half-overflow", kind="inf", samples=(1,), step=1)
def clock_of_events_in_half() -> dict[str, Any]:
    class Events(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate = nn.Linear(1, 1)
            self.head = nn.Linear(6, 1)

        def forward(self, gaps: Tensor) -> Tensor:
            clock = torch.cumsum(gaps.half(), 1).float()  # origin
            return torch.sigmoid(self.head(torch.cos(self.rate(clock[..., None]).squeeze(-1))))

    batches = [(torch.rand(3, 6), torch.rand(3, 1)) for _ in range(2)]
    batches[1][0][1] = 20_000.0
    return train(Events(), batches, regress)


@case(
    phase="forward",
    op=("aten::linalg_inv_ex", "aten::_linalg_check_errors", "aten::linalg_inv", "aten::inverse"),
    kind="finite",
    error=True,
    step=1,
    cause="singular-matrix-refused",
)
def inverse_of_a_flat_transform() -> dict[str, Any]:
    class Undo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(2))

        def forward(self, points: Tensor, transform: Tensor) -> Tensor:
            undone: Tensor = torch.linalg.inv(transform) @ points[..., None]  # origin
            return undone.squeeze(-1) + self.shift

    def training_step(model: nn.Module, batch: Batch) -> Any:
        return model(batch["points"], batch["transform"]).square().mean()

    transforms = torch.eye(2).repeat(2, 3, 1, 1)
    transforms[1, 2] = 1.0
    return train(Undo(), [{"points": torch.randn(3, 2), "transform": t} for t in transforms], training_step)


@case(
    phase="loss",
    op=("aten::linalg_cholesky_ex", "aten::_linalg_check_errors", "aten::linalg_cholesky"),
    kind="finite",
    error=True,
    cause="singular-matrix-refused",
)
def kernel_of_two_equal_inputs() -> dict[str, Any]:
    def marginal_likelihood(features: Tensor, y: Tensor) -> Any:
        kernel = torch.exp(-torch.cdist(features, features).square())
        factor = torch.linalg.cholesky(kernel)  # origin
        weights = torch.cholesky_solve(y[:, None], factor)
        return 0.5 * (y @ weights).sum() + factor.diagonal().log().sum()

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
        return marginal_likelihood(model(batch[0]), batch[1])

    x = torch.randn(5, 2)
    x[4] = x[0]
    return train(nn.Linear(2, 2), [(x, torch.randn(5))], training_step)


@case(phase="forward", op=BATCH_NORM, cause="running-variance-negative")
def frozen_batch_norm_of_a_weight_soup() -> dict[str, Any]:
    """Extrapolating between two checkpoints has made a running variance negative."""

    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(3), nn.Linear(3, 1)
            first, second = torch.tensor([1.0, 0.5, 2.0]), torch.tensor([1.2, 1.5, 2.1])
            self.norm.get_buffer("running_var").copy_(2 * first - second)

        def train(self, mode: bool = True) -> Backbone:
            super().train(mode)
            self.norm.eval()
            return self

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.head(self.norm(x)))  # origin

    return train(Backbone(), [(torch.randn(4, 3), torch.rand(4, 1))], regress)


@case(phase="forward", op="aten::log", cause="log-of-zero", kind="inf")
def attention_biased_by_the_log_of_distance() -> dict[str, Any]:
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            place = torch.arange(x.shape[1], dtype=x.dtype)
            bias = -torch.log((place[:, None] - place).abs())  # origin
            mixed: Tensor = self.attention(x, x, x, attn_mask=bias, need_weights=False)[0]
            return mixed

    return train(Attend(), [(torch.randn(2, 3, 4), torch.randn(2, 3, 4))], regress)


@case(phase="backward", op=("aten::sqrt", "aten::div"), kind="inf", samples=(1,), cause="sqrt-at-zero")
def forces_by_vmap_at_the_nucleus() -> dict[str, Any]:
    class Forces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.charge = nn.Parameter(torch.tensor(1.5))

        def energy(self, position: Tensor) -> Tensor:
            return self.charge * torch.sqrt(position.square().sum())  # origin

        def forward(self, positions: Tensor) -> Tensor:
            slopes: Tensor = torch.func.vmap(torch.func.grad(self.energy))(positions)
            return -slopes

    positions = torch.randn(3, 2)
    positions[1] = 0
    return train(Forces(), [(positions, torch.randn(3, 2))], regress)


@case(phase="forward", op="aten::div", kind="inf", cause="division-by-zero", samples=(2,))
def modulus_relu_of_complex_zero() -> dict[str, Any]:
    class ComplexLayer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 3, dtype=torch.complex64))
            self.threshold = nn.Parameter(torch.full((3,), 0.1))

        def forward(self, x: Tensor) -> Tensor:
            z = x.to(torch.complex64) @ self.weight
            z = z * (torch.relu(z.abs() + self.threshold) / z.abs())  # origin
            return z.real + z.imag

    x = torch.randn(4, 3)
    x[2] = 0
    return train(ComplexLayer(), [(x, torch.randn(4, 3))], regress)
