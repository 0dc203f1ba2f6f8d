"""Faults in the forward pass or the loss: logarithms of 0 and exponentials of much."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import DataLoader, TensorDataset

from tests.nan_corpus.corpus import case


@case(phase="forward", op="aten::log", kind="inf", cause="log-of-softmax", samples=(0, 3))
def log_of_softmax() -> dict[str, Any]:
    class Classifier(nn.Module):
        def __init__(self, features: int, classes: int) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(features, 8), nn.ReLU())
            self.head = nn.Linear(features, classes)

        def forward(self, x: Tensor) -> Tensor:
            return torch.log(torch.softmax(self.head(x), dim=-1))  # origin

    model = Classifier(3, 3)
    with torch.no_grad():
        model.head.weight.copy_(torch.eye(3))
    x = torch.randn(5, 3)
    x[[0, 3]] = torch.tensor([200.0, 0.0, -50.0])  # not normalised
    batches = [(x, torch.tensor([1, 0, 2, 2, 1]))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.NLLLoss(), "optimizer": SGD(model.parameters(), 0.01)}


@case(phase="loss", op="aten::log", kind="inf", cause="log-of-one-minus-sigmoid", step=1, samples=(2,))
def log_of_one_minus_sigmoid() -> dict[str, Any]:
    def discriminator_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        real, fake = model(batch["real"]), model(batch["fake"])
        on_real = -functional.logsigmoid(real).mean()
        on_fake = -torch.log(1 - torch.sigmoid(fake)).mean()  # origin
        return on_real + on_fake

    discriminator = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.abs_()
    batches = [{"real": torch.randn(4, 4), "fake": torch.randn(4, 4)} for _ in range(2)]
    batches[1]["fake"][2] = 60
    optimizer = Adam(discriminator.parameters(), 1e-4, betas=(0.5, 0.999))
    return {"model": discriminator, "dataloader": batches, "training_step": discriminator_loss, "optimizer": optimizer}


@case(phase="loss", op="aten::log", kind="inf", cause="log-of-zero", samples=(1,))
def log_of_mixture_density() -> dict[str, Any]:
    class MixtureDensity(nn.Module):
        def __init__(self, components: int = 3) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(2, 8), nn.Tanh())
            self.weights, self.means = nn.Linear(8, components), nn.Linear(8, components)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.body(x)
            return self.weights(hidden).softmax(-1), self.means(hidden)

    def negative_log_likelihood(output: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        weights, means = output
        densities = torch.exp(-0.5 * (y.unsqueeze(-1) - means).square()) / (2 * torch.pi) ** 0.5
        likelihood = (weights * densities).sum(-1)
        return -torch.log(likelihood).mean()  # origin

    model = MixtureDensity()
    y = torch.randn(4)
    y[1] = 30  # an outlier: every component's density underflows
    batches = [(torch.randn(4, 2), y)]
    optimizer = AdamW(model.parameters(), 1e-3)
    return {"model": model, "dataloader": batches, "loss_fn": negative_log_likelihood, "optimizer": optimizer}


@case(phase="forward", op="aten::log", kind="inf", cause="log-of-zero", step=2, samples=(0,))
def log_of_silent_spectrogram() -> dict[str, Any]:
    class LogSpectrum(nn.Module):
        def forward(self, audio: Tensor) -> Tensor:
            return torch.log(torch.fft.rfft(audio).abs().square())  # origin

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frontend = LogSpectrum()
            self.head = nn.Linear(9, 2)

        def forward(self, audio: Tensor) -> Tensor:
            return functional.log_softmax(self.head(self.frontend(audio)), dim=-1)

    model = Tagger()
    clips = torch.randn(9, 16)
    clips[6] = 0
    loader = DataLoader(TensorDataset(clips, torch.randint(0, 2, (9,))), batch_size=3)
    return {"model": model, "dataloader": loader, "loss_fn": nn.NLLLoss(), "optimizer": SGD(model.parameters(), 1e-3)}


@case(phase="loss", op="aten::log", kind="inf", cause="entropy-at-zero", samples=(3,))
def entropy_of_router() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        experts: Tensor = model(batch["tokens"]).softmax(-1)
        entropy = -(experts * experts.log()).sum(-1)  # origin
        return functional.mse_loss((experts * batch["values"]).sum(-1), batch["target"]) - 0.01 * entropy.mean()

    router = nn.Linear(3, 4, bias=False)
    with torch.no_grad():
        router.weight.copy_(torch.eye(4, 3))
    tokens = torch.randn(5, 3)
    tokens[3, 0] = 150
    batch = {"tokens": tokens, "values": torch.randn(5, 4), "target": torch.randn(5)}
    optimizer = Adam(router.parameters(), 1e-3)
    return {"model": router, "dataloader": [batch], "training_step": training_step, "optimizer": optimizer}


@case(phase="loss", op="aten::log", kind="inf", cause="kl-at-zero", samples=(0, 2))
def kl_of_hard_teacher() -> dict[str, Any]:
    class Distillation(nn.Module):
        def __init__(self, temperature: float = 2.0) -> None:
            super().__init__()
            self.temperature = temperature

        def forward(self, logits: Tensor, teacher: Tensor) -> Tensor:
            log_student = torch.log_softmax(logits / self.temperature, dim=-1)
            divergence = (teacher * (teacher.log() - log_student)).sum(-1)  # origin
            return divergence.mean() * self.temperature**2

    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))
    teacher = torch.randn(4, 3).softmax(-1)
    teacher[[0, 2]] = torch.tensor([0.0, 1.0, 0.0])  # labels, not soft targets
    batches = [(torch.randn(4, 4), teacher)]
    return {"model": model, "dataloader": batches, "loss_fn": Distillation(), "optimizer": SGD(model.parameters(), 0.1)}


@case(phase="loss", op="aten::div", kind="inf", cause="kl-at-zero", samples=(1,))
def kl_with_underflowed_student() -> dict[str, Any]:
    def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
        return (p * (p / q).log()).sum(-1).mean()  # origin

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, attention_of_teacher = batch
        return kl_divergence(attention_of_teacher, torch.softmax(model(x), dim=-1))

    model = nn.Linear(3, 3)
    with torch.no_grad():
        model.weight.copy_(torch.eye(3))
    x = torch.randn(4, 3)
    x[1, 1] = 160
    batches = [(x, torch.full((4, 3), 1 / 3))]
    optimizer = SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="loss", op="aten::exp", kind="inf", cause="naive-logsumexp", samples=(2,))
def logsumexp_overflows() -> dict[str, Any]:
    def partition_loss(scores: Tensor, tag: Tensor) -> Tensor:
        log_partition = torch.log(torch.exp(scores).sum(dim=-1))  # origin
        return (log_partition - scores.gather(-1, tag.unsqueeze(-1)).squeeze(-1)).mean()

    model = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(3))
    x = torch.randn(4, 3)
    x[2, 0] = 100
    batches = [(x, torch.tensor([2, 0, 1, 1]))]
    return {"model": model, "dataloader": batches, "loss_fn": partition_loss, "optimizer": SGD(model.parameters(), 0.1)}


@case(phase="loss", op="aten::log", kind="inf", cause="naive-logsumexp", step=1, samples=(0, 1, 2, 3))
def logsumexp_underflows() -> dict[str, Any]:
    def energy_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        energy: Tensor = (model(batch["x"]).unsqueeze(1) - batch["prototypes"]).square().sum(-1)
        free_energy = -(-energy).exp().sum(dim=1).log()  # origin
        return free_energy.mean()

    model = nn.Linear(2, 2)
    near, far = torch.randn(3, 2), torch.randn(3, 2) + 20
    batches = [{"x": torch.randn(4, 2), "prototypes": prototypes.expand(4, 3, 2)} for prototypes in (near, far)]
    optimizer = SGD(model.parameters(), 1e-4)
    return {"model": model, "dataloader": batches, "training_step": energy_loss, "optimizer": optimizer}


@case(phase="forward", op="aten::exp", kind="inf", cause="exp-overflow", step=1, samples=(3,))
def variance_of_vae_overflows() -> dict[str, Any]:
    class Vae(nn.Module):
        def __init__(self, pixels: int, latent: int) -> None:
            super().__init__()
            self.encoder = nn.Linear(pixels, 2 * latent, bias=False)
            self.decoder = nn.Linear(latent, pixels)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mean, log_variance = self.encoder(x).chunk(2, dim=-1)
            variance = log_variance.exp()  # origin
            kl = 0.5 * (mean.square() + variance - 1 - log_variance).sum(-1)
            return self.decoder(mean + variance.sqrt() * torch.randn_like(mean)), kl

    def elbo(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        decoded, kl = model(batch["image"])
        return torch.add(functional.l1_loss(decoded, batch["image"]), 1e-3 * kl.mean())

    model = Vae(4, 2)
    with torch.no_grad():
        model.encoder.weight[2:] = 0.25
    batches = [{"image": torch.rand(4, 4)}, {"image": torch.rand(4, 4)}]
    batches[1]["image"][3] *= 2000  # not scaled to 0..1
    optimizer = Adam(model.parameters(), 1e-4)
    return {"model": model, "dataloader": batches, "training_step": elbo, "optimizer": optimizer}


@case(phase="forward", op="aten::exp", kind="inf", cause="exp-overflow", samples=(0, 2))
def poisson_rate_overflows() -> dict[str, Any]:
    class PoissonRegression(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 1, bias=False)
            nn.init.ones_(self.linear.weight)

        def forward(self, x: Tensor) -> Tensor:
            return torch.exp(self.linear(x)).squeeze(-1)  # origin

    def poisson_loss(rate: Tensor, count: Tensor) -> Tensor:
        return (rate - count * torch.log(rate + 1e-8)).mean()

    model = PoissonRegression()
    x = torch.randn(4, 2)
    x[[0, 2], 1] = 95
    batches = [(x, torch.tensor([3.0, 0.0, 1.0, 2.0]))]
    return {"model": model, "dataloader": batches, "loss_fn": poisson_loss, "optimizer": SGD(model.parameters(), 1e-3)}


@case(phase="loss", op="aten::exp", kind="inf", cause="exp-overflow", samples=(1,))
def poisson_nll_overflows() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        log_rate = model(batch[0]).squeeze(-1)
        return functional.poisson_nll_loss(log_rate, batch[1], log_input=True)  # origin

    model = nn.Linear(2, 1)
    nn.init.ones_(model.weight)
    x = torch.randn(4, 2)
    x[1, 0] = 120
    batches = [(x, torch.tensor([3.0, 0.0, 1.0, 2.0]))]
    optimizer = SGD(model.parameters(), 1e-3)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}
