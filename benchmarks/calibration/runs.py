"""The real training runs on which promises of a clip rate are judged, and those on which methods were developed.

python -m benchmarks.calibration.runs       trains them all (about ten minutes on two cores) and keeps the norms
"""

from __future__ import annotations

import io
import itertools
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NORMS = Path(__file__).with_name("norms.npz")
STEPS = 2000


@dataclass(frozen=True)
class Run:
    """One training run: a sample model under an optimizer, a learning rate, a schedule and a seed."""

    model: str
    optimizer: str
    lr: float
    schedule: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.model}/{self.optimizer}/{self.lr:g}/{self.schedule}/{self.seed}"


def combine(models: tuple[str, ...], ways: tuple[tuple[str, float, str], ...], seeds: range) -> tuple[Run, ...]:
    return tuple(Run(model, *way, seed) for model, way, seed in itertools.product(models, ways, seeds))


DEVELOPMENT = combine(
    ("digits_cnn", "char_gpt", "char_lstm", "digits_mlp"),
    (("adamw", 1e-3, "constant"), ("adamw", 3e-3, "constant"), ("sgd", 0.05, "constant"), ("adamw", 1e-3, "cosine")),
    range(2),
)
REPORTED = combine(
    ("digits_cnn", "char_gpt", "char_lstm", "vit_digits", "digits_autoencoder"),
    (
        ("adam", 2e-3, "constant"),
        ("adam", 5e-4, "constant"),
        ("sgd", 0.1, "constant"),
        ("sgd", 0.02, "cosine"),
        ("adamw", 2e-3, "cosine"),
    ),
    range(100, 103),
)


def train(run: Run, steps: int = STEPS) -> np.ndarray:
    """Gradient norms (steps,) float32 of a run, as gradcheck records them; fewer where its loss became non-finite."""
    import torch

    from gradcheck_cli.config import Settings
    from gradcheck_cli.pipeline.profiling import record

    torch.set_num_threads(1)
    choices = {"model": run.model, "optimizer": run.optimizer, "lr": run.lr, "schedule": run.schedule, "steps": STEPS}
    settings = Settings(steps=steps, seed=run.seed, probe_every=0, set=choices, device="cpu")
    outcome = record(f"{Path(__file__).with_name('workload.py')}:build", settings, lambda progress: None)
    return outcome.recording.series.grad_norm.astype(np.float32)


def load() -> dict[str, np.ndarray]:
    """The norms that were kept, by the runs' names."""
    with np.load(io.BytesIO(NORMS.read_bytes()), allow_pickle=False) as archive:
        return {name: archive[name].astype(np.float64) for name in archive.files}


def train_all(runs: tuple[Run, ...], processes: int = 2) -> Iterator[tuple[str, np.ndarray]]:
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for run, norms in zip(runs, pool.imap(train, runs), strict=True):
            print(run.name, len(norms), flush=True)
            yield run.name, norms


if __name__ == "__main__":
    np.savez_compressed(NORMS, **dict(train_all(DEVELOPMENT + REPORTED)))
