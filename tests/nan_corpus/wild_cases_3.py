"""Held out while nan-trace was made, from reports of users: diffusion, radiance fields, flows, VAEs, statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from tests.nan_corpus.corpus import case

Batch = dict[str, Tensor]


def train(model: nn.Module, batches: list[Any], step: Callable[[Any, Any], Tensor], lr: float = 0.01) -> dict[str, Any]:
    """The parts of a run with SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr)
    return {"model": model, "dataloader": batches, "training_step": step, "optimizer": optimizer}


@case(phase="loss", op="aten::div", cause="zero-divided-by-zero", samples=(3,))
def min_snr_weight_at_zero_terminal_snr() -> dict[str, Any]:
    alphas = torch.linspace(0.99, 0.0, 10)

    def training_step(net: nn.Module, batch: Batch) -> Any:
        t = batch["t"]
        alpha = alphas[t][:, None]
        noisy = alpha.sqrt() * batch["x"] + (1 - alpha).sqrt() * batch["noise"]
        predicted = net(torch.cat((noisy, t[:, None] / 10), 1))
        snr = alphas[t] / (1 - alphas[t])
        weight = snr.clamp(max=5.0) / snr  # origin
        return (weight * (predicted - batch["noise"]).square().mean(1)).mean()

    batch = {"x": torch.randn(4, 3), "noise": torch.randn(4, 3), "t": torch.tensor([0, 4, 7, 9])}
    return train(nn.Linear(4, 3), [batch], training_step)


@case(phase="loss", op="aten::div", cause="division-by-zero", kind="inf", step=1, samples=(0, 2))
def clean_image_from_pure_noise() -> dict[str, Any]:
    class Denoiser(nn.Module):
        alphas: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 3)
            self.register_buffer("alphas", torch.cos(torch.linspace(0, 1, 11) * torch.pi / 2).clamp(min=0))
            self.alphas[-1] = 0

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.net(x))

    def training_step(model: Denoiser, batch: Batch) -> Tensor:
        alpha, noise = model.alphas[batch["t"]][:, None], torch.randn_like(batch["x"])
        noisy = alpha * batch["x"] + (1 - alpha**2).sqrt() * noise
        clean = (noisy - (1 - alpha**2).sqrt() * model(noisy)) / alpha  # origin
        return functional.mse_loss(clean, batch["x"])

    times = (torch.tensor([1, 2, 3]), torch.tensor([10, 4, 10]))
    return train(Denoiser(), [{"x": torch.randn(3, 3), "t": t} for t in times], training_step)


@case(phase="buffer", source="buffer:posterior_log_variance", kind="inf", step=1, cause="buffer-nonfinite")
def posterior_log_variance_of_the_first_step() -> dict[str, Any]:
    class Schedule(nn.Module):
        posterior_log_variance: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 6)
            beta = torch.linspace(0.1, 0.3, 5)
            product = torch.cumprod(1 - beta, 0)
            before = functional.pad(product[:-1], (1, 0), value=1.0)
            self.register_buffer("posterior_log_variance", torch.log(beta * (1 - before) / (1 - product)))  # origin

        def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            mean, log_variance = self.net(x).chunk(2, 1)
            return mean, log_variance - self.posterior_log_variance[t][:, None]

    def training_step(model: Schedule, batch: Batch) -> Any:
        mean, gap = model(batch["x"], batch["t"])
        kl = 0.5 * (gap.exp() - gap - 1 + (mean - batch["mean"]).square())
        return kl.mean()

    times = (torch.tensor([1, 2, 4]), torch.tensor([3, 0, 1]))
    batches = [{"x": torch.randn(3, 3), "mean": torch.randn(3, 3), "t": t} for t in times]
    return train(Schedule(), batches, training_step)


@case(phase="forward", op="aten::div", cause="zero-divided-by-zero", samples=(1,))
def disparity_of_an_empty_ray() -> dict[str, Any]:
    class RadianceField(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.density = nn.Linear(3, 1, bias=False)
            nn.init.constant_(self.density.weight, 1.0)

        def forward(self, points: Tensor, depth: Tensor) -> Tensor:
            alpha = 1 - torch.exp(-0.3 * torch.relu(self.density(points).squeeze(-1)))
            passed = torch.cumprod(functional.pad(1 - alpha + 1e-10, (1, 0), value=1.0), 1)[:, :-1]
            weights = alpha * passed
            expected = (weights * depth).sum(1) / weights.sum(1)  # origin
            return 1 / torch.max(torch.full_like(expected, 1e-10), expected)

    def training_step(field: nn.Module, rays: Batch) -> Tensor:
        return functional.smooth_l1_loss(field(rays["points"], rays["depth"]), rays["disparity"])

    rays = {"points": torch.rand(4, 6, 3), "depth": torch.rand(4, 6) + 1, "disparity": torch.rand(4)}
    rays["points"][1] *= -1
    return train(RadianceField(), [rays], training_step)


@case(phase="forward", op="aten::log", cause="log-of-zero", kind="inf")
def actnorm_initialised_on_a_constant_channel() -> dict[str, Any]:
    """The first batch sets the parameters; a flag that is no buffer remembers that it did."""

    class ActNorm(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.bias, self.log_scale = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))
            self.initialised = False

        def forward(self, x: Tensor) -> Tensor:
            if not self.initialised:
                self.bias.data = -x.mean(0)
                self.log_scale.data = -torch.log(x.std(0))  # origin
                self.initialised = True
            return (x + self.bias) * self.log_scale.exp()

    def training_step(flow: nn.Module, x: Tensor) -> Any:
        return 0.5 * flow(x).square().mean()

    x = torch.randn(5, 3)
    x[:, 1] = 2.0
    return train(nn.Sequential(ActNorm(3), nn.Linear(3, 3)), [x, torch.randn(5, 3)], training_step)


@case(phase="loss", op="aten::log", kind="inf", samples=(2,), cause="normal-scale-zero")
def divergence_of_a_collapsed_posterior() -> dict[str, Any]:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.scale = nn.Linear(3, 2), nn.Linear(3, 2)
            nn.init.constant_(self.scale.weight, 0.5)

        def forward(self, x: Tensor) -> Normal:
            return Normal(self.mean(x), functional.softplus(self.scale(x)), validate_args=False)

    def training_step(encoder: nn.Module, x: Tensor) -> Any:
        posterior = encoder(x)
        prior = Normal(torch.zeros(2), torch.ones(2))
        return kl_divergence(posterior, prior).sum(1).mean() + posterior.rsample().square().mean()  # origin

    x = torch.rand(4, 3)
    x[2] = -100.0
    return train(Encoder(), [x], training_step)


@case(phase="forward", op="aten::div", cause="zero-divided-by-zero")
def codebook_entry_that_nobody_chose() -> dict[str, Any]:
    """The loss and the gradients of the step are finite: the codebook is spoiled after its use."""

    class Quantizer(nn.Module):
        codes: Tensor
        sizes: Tensor
        sums: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Linear(4, 2)
            self.register_buffer("codes", torch.tensor([[0.0, 0.0], [0.5, 0.5], [90.0, 90.0]]))
            self.register_buffer("sizes", torch.zeros(3))
            self.register_buffer("sums", torch.zeros(3, 2))

        def forward(self, x: Tensor) -> Tensor:
            z = self.encode(x)
            chosen = torch.cdist(z, self.codes).argmin(1)
            loss = functional.mse_loss(z, self.codes[chosen])
            with torch.no_grad():
                self.sizes.mul_(0.9).add_(torch.bincount(chosen, minlength=3), alpha=0.1)
                self.sums.mul_(0.9).index_add_(0, chosen, z, alpha=0.1)
                self.codes.copy_(self.sums / self.sizes[:, None])  # origin
            return loss

    return train(Quantizer(), [torch.randn(6, 4)], lambda model, x: model(x))


@case(phase="loss", op="aten::div", cause="normalise-zero-vector", kind="inf")
def adaptive_weight_of_a_silent_discriminator() -> dict[str, Any]:
    """The reconstruction's gradient over that of the discriminator, at the last layer, as in VQGAN."""
    decoder = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4))
    discriminator = nn.Linear(4, 1)
    nn.init.zeros_(discriminator.weight)

    def training_step(net: nn.Sequential, batch: tuple[Tensor, Tensor]) -> Any:
        made = net(batch[0])
        reconstruction, deception = functional.l1_loss(made, batch[1]), -discriminator(made).mean()
        last = net[-1].weight
        (of_reconstruction,) = torch.autograd.grad(reconstruction, last, retain_graph=True)  # type: ignore[arg-type]
        (of_deception,) = torch.autograd.grad(deception, last, retain_graph=True)  # type: ignore[arg-type]
        weight = of_reconstruction.norm() / of_deception.norm()  # origin
        return reconstruction + weight.detach() * deception

    return train(decoder, [(torch.randn(5, 3), torch.randn(5, 4))], training_step)


@case(phase="loss", op=("aten::reciprocal", "aten::div"), cause="division-by-zero", kind="inf")
def sinkhorn_at_too_small_a_temperature() -> dict[str, Any]:
    def sinkhorn(cost: Tensor, epsilon: float) -> Tensor:
        kernel = torch.exp(-cost / epsilon)
        u, v = torch.full((len(cost),), 1 / len(cost)), torch.full((cost.shape[1],), 1 / cost.shape[1])
        for _ in range(3):
            u = (1 / len(cost)) / (kernel @ v)  # origin
            v = (1 / cost.shape[1]) / (kernel.T @ u + 1e-8)
        return (u[:, None] * kernel * v * cost).sum()

    def training_step(embed: nn.Module, batch: Batch) -> Tensor:
        return sinkhorn(torch.cdist(embed(batch["a"]), batch["b"]).square(), 0.01)

    batch = {"a": 0.1 * torch.randn(4, 3), "b": 0.1 * torch.randn(5, 2)}
    batch["a"][3] = 50
    return train(nn.Linear(3, 2), [batch], training_step)


@case(phase="loss", op="aten::lgamma", kind="inf", samples=(1,), cause="gamma-function-pole")
def negative_binomial_without_dispersion() -> dict[str, Any]:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.dispersion = nn.Linear(3, 2), nn.Linear(3, 2)
            nn.init.constant_(self.dispersion.weight, 0.5)

        def forward(self, cell: Tensor) -> tuple[Tensor, Tensor]:
            return functional.softplus(self.mean(cell)), torch.exp(self.dispersion(cell))

    def negative_log_likelihood(count: Tensor, mean: Tensor, theta: Tensor) -> Tensor:
        odds = theta * torch.log1p(mean / (theta + 1e-8)) + count * torch.log1p(theta / (mean + 1e-8))
        ways = torch.lgamma(count + theta) - torch.lgamma(theta) - torch.lgamma(count + 1)  # origin
        return (odds - ways).mean()

    def training_step(model: nn.Module, batch: Batch) -> Tensor:
        return negative_log_likelihood(batch["count"], *model(batch["cell"]))

    batch = {"cell": torch.rand(3, 3), "count": torch.randint(1, 9, (3, 2)).float()}
    batch["cell"][1] = -100.0
    return train(Counts(), [batch], training_step)
