"""What the scripts share: their arguments, some data, and a book of what they see themselves."""

from __future__ import annotations

import argparse
import math
import pickle
import random

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset


def arguments(description: str | None) -> argparse.Namespace:
    """Where to save the end of the run, and at which optimizer step to make the fault, if at any."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", required=True)
    parser.add_argument("--bad_step", type=int, default=-1)
    return parser.parse_args()


def samples(count: int) -> TensorDataset:
    """Inputs (count, 6) float32 and the classes (count,) int64, of three, that a linear map gives them."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(count, 6, generator=generator)
    return TensorDataset(inputs, (inputs @ torch.randn(6, 3, generator=generator)).argmax(dim=1))


def gradient_norm(model: nn.Module) -> float:
    """The L2 norm of all gradients as they are now, in float64."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))


class Logbook:
    """Of each model, a row for each step: the loss, the gradient's norm before and after clipping."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[float, float, float]]] = {}

    def note(self, model: str, loss: float | Tensor, norm: float, clipped: float | None = None) -> None:
        """Write a row; without `clipped` nothing is."""
        value = loss.item() if isinstance(loss, Tensor) else loss
        self.rows.setdefault(model, []).append((value, norm, norm if clipped is None else clipped))

    def save(self, path: str, *models: nn.Module) -> None:
        """The rows, parameters and buffers of the models, and the random states, as they are at the end."""
        states = [model.state_dict() for model in models]
        numbers = torch.get_rng_state(), pickle.dumps(np.random.get_state()), repr(random.getstate())
        torch.save({"rows": self.rows, "states": states, "random": numbers}, path)
