"""The nine kinds of scripts, and what is to be seen of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"
BAD_STEP = 3


@dataclass(frozen=True)
class Kind:
    """A script and what it does.

    `models` are by the names that it gives them, "" for a single one. `accumulate` and `batches` are of the first
    model; the latter are indices within an epoch, -1 where no DataLoader delivers them. Where it logs its numbers
    rounded, `tolerance` is larger. Of its fault, `phase`, `op`, `cause` and `micro_batch` are those of the origin,
    `code` that of the finding, and `sick` the name of the model.
    """

    name: str
    steps: int
    phase: str
    op: str
    cause: str
    models: tuple[str, ...] = ("",)
    accumulate: int = 1
    precision: str = "fp32"
    batches: tuple[int, ...] = ()
    optimizer: str = "AdamW"
    max_norm: float | None = None
    tolerance: float = 1e-5
    micro_batch: int = 0
    code: str = "GC301"
    sick: str = ""

    def __str__(self) -> str:
        return self.name


KINDS = (
    Kind("plain", 24, "loss", "aten::log", "log-of-softmax", batches=(0, 1, 2, 3, 4, 5) * 4, optimizer="SGD"),
    Kind(
        "accumulation_amp_clip",
        16,
        "forward",
        "aten::mul",
        "half-square-overflow",
        accumulate=2,
        precision="fp16",
        batches=tuple(range(0, 32, 2)),
        max_norm=0.75,
        micro_batch=1,
    ),
    Kind(
        "nanogpt",
        10,
        "forward",
        "aten::_softmax",
        "softmax-fully-masked",
        accumulate=4,
        precision="bf16",
        max_norm=0.25,
        micro_batch=1,
    ),
    Kind(
        "gan",
        16,
        "loss",
        "aten::reciprocal",
        "division-by-zero",
        models=("generator", "discriminator"),
        optimizer="Adam",
        sick="generator",
    ),
    Kind(
        "actor_critic",
        120,
        "loss",
        "aten::div",
        "standardise-constant",
        models=("actor", "critic"),
        optimizer="Adam",
        max_norm=0.65,
        sick="actor",
    ),
    Kind("tbptt_lstm", 16, "forward", "aten::exp", "exp-overflow", optimizer="Adam", max_norm=0.29),
    Kind(
        "lightning_fit",
        12,
        "loss",
        "aten::nll_loss_forward",
        "every-label-ignored",
        accumulate=2,
        batches=(0, 2, 4, 6, 8, 10) * 2,
        max_norm=0.8,
        micro_batch=1,
    ),
    Kind(
        "hf_trainer",
        8,
        "loss",
        "aten::div",
        "masked-mean-of-empty",
        accumulate=2,
        batches=tuple(range(0, 16, 2)),
        max_norm=0.75,
        tolerance=1e-3,
    ),
    Kind(
        "accelerate_loop",
        12,
        "backward",
        "aten::sqrt",
        "sqrt-at-zero",
        accumulate=2,
        batches=(0, 2, 4, 6, 8, 10) * 2,
        max_norm=1.3,
        micro_batch=1,
        code="GC302",
    ),
)
