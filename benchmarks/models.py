"""The training runs that are timed. Batches are made beforehand, so that only steps count, except where named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Run:
    """A model, its optimizer, some batches, and how many steps make one round."""

    name: str
    model: nn.Module
    optimizer: torch.optim.Optimizer
    batches: Batches
    loss_fn: Callable[[Tensor, Tensor], Tensor]
    steps: int

    def train(self) -> None:
        """The plain loop."""
        for _, batch in zip(range(self.steps), self.endless(), strict=False):
            self.train_step(batch)

    def endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches, again and again."""
        while True:
            yield from self.batches

    def train_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """One optimizer step."""
        inputs, target = batch
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_fn(self.model(inputs), target).backward()
        self.optimizer.step()


def tiny_mlp() -> Run:
    """26 thousand parameters: the hardest case, because a step takes a few hundred microseconds."""
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    batches = [(torch.randn(64, 64), torch.randint(10, (64,))) for _ in range(16)]
    return Run("tiny MLP", model, torch.optim.AdamW(model.parameters()), batches, functional.cross_entropy, 200)


def tiny_mlp_with_loader() -> Run:
    """The same with batches of 64 from a shuffling DataLoader, as it would really be trained."""
    data = TensorDataset(torch.randn(1797, 64), torch.randint(10, (1797,)))
    return replace(tiny_mlp(), name="tiny MLP with its DataLoader", batches=DataLoader(data, 64, shuffle=True))


def mnist_mlp() -> Run:
    """102 thousand parameters, nearly all in one matrix: little arithmetic for each of them."""
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    batches = [(torch.randn(64, 784), torch.randint(10, (64,))) for _ in range(16)]
    return Run(
        "MLP of MNIST's size", model, torch.optim.AdamW(model.parameters()), batches, functional.cross_entropy, 200
    )


def digits_cnn() -> Run:
    """A residual network with BatchNorm on 8x8 images."""
    model = nn.Sequential(convolution(1, 32), Residual(32), Residual(32), nn.Flatten(), nn.Linear(32 * 64, 10))
    batches = [(torch.randn(64, 1, 8, 8), torch.randint(10, (64,))) for _ in range(16)]
    return Run("digits CNN", model, torch.optim.AdamW(model.parameters()), batches, functional.cross_entropy, 50)


def small_gpt() -> Run:
    """0.6 million parameters in 149 tensors: many calls for little work."""
    model = GPT(vocabulary=200, width=64, depth=12, heads=4, context=32)
    tokens = torch.randint(200, (8, 8, 33))
    batches = [(window[:, :-1], window[:, 1:]) for window in tokens]
    return Run("GPT, 12 narrow blocks", model, torch.optim.AdamW(model.parameters()), batches, language_loss, 40)


def gpt_10m() -> Run:
    """About ten million parameters: 6 blocks of width 384, as in nanoGPT's character model."""
    model = GPT(vocabulary=96, width=384, depth=6, heads=6, context=128)
    tokens = torch.randint(96, (8, 8, 129))
    batches = [(window[:, :-1], window[:, 1:]) for window in tokens]
    return Run("GPT, 10M parameters", model, torch.optim.AdamW(model.parameters()), batches, language_loss, 10)


def language_loss(logits: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), target.flatten())


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(convolution(width, width), convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (part.view(b, t, self.heads, -1).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, c)
        x = x + self.out(attended)
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, context: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def gpt2_gradients() -> list[Tensor]:
    """Random gradients of the sizes of GPT-2 small's 148 parameter tensors, 124M elements in one piece of memory."""
    width = 768
    block: list[tuple[int, ...]] = [(width,), (width,), (width, 3 * width), (3 * width,), (width, width), (width,)]
    block += [(width,), (width,), (width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    shapes: list[tuple[int, ...]] = [(50257, width), (1024, width), *block * 12, (width,), (width,)]
    sizes = [int(torch.Size(shape).numel()) for shape in shapes]
    memory = torch.randn(sum(sizes))
    return [part.view(shape) for part, shape in zip(memory.split(sizes), shapes, strict=True)]


RUNS: tuple[Callable[[], Run], ...] = (tiny_mlp, tiny_mlp_with_loader, mnist_mlp, digits_cnn, small_gpt, gpt_10m)
