"""Devices, precision and random state."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gradcheck_cli.errors import DeviceError, TargetError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
HOLDERS = ("model", "state_dict", "model_state_dict")


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """The device called `name`; `auto` is cuda, else mps, else cpu. Raises DeviceError when it is not there.

    One of several ranks on a machine takes the CUDA device of its number; none of them mps, which has no collectives.
    """
    if local_rank is not None and name in ("auto", "cuda"):
        name = f"cuda:{local_rank}" if name == "cuda" or torch.cuda.is_available() else "cpu"
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    advice = "use auto, cpu, cuda, cuda:N or mps"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"there is no device {name!r}", advice) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"gradcheck cannot train on the device {name!r}", advice)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"{name} is not there: torch sees {torch.cuda.device_count()} CUDA devices", "use --device cpu or auto"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("mps is not available on this machine", "use --device cpu or auto")
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Autocast to the precision; nothing for fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed % 2**64)


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Load weights saved with `torch.save(model.state_dict(), path)`, bare or inside a training checkpoint.

    Raises TargetError when the file cannot be read without running code from it, or does not fit the model.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise TargetError(
            f"cannot read the checkpoint {path}: {error.strerror}", "--checkpoint takes a file"
        ) from error
    except Exception as error:
        raise TargetError(
            f"{path} is not a checkpoint of weights", "save it with torch.save(model.state_dict(), path)"
        ) from error
    try:
        model.load_state_dict(renamed(weights_in(content, path), model))
    except RuntimeError as error:
        raise TargetError(
            f"the weights in {path} do not fit the model", "save and load the same model", str(error)
        ) from error


def weights_in(content: Any, path: Path) -> dict[str, Any]:
    """The state dict in a loaded checkpoint."""
    for holder in HOLDERS:
        if isinstance(content, dict) and isinstance(content.get(holder), dict):
            content = content[holder]
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise TargetError(f"{path} holds no state dict", "save it with torch.save(model.state_dict(), path)")
    return content


def renamed(weights: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """The weights under the model's names, whichever of the two DataParallel or torch.compile has wrapped."""
    names = {bare(name): name for name in model.state_dict()}
    return {names.get(bare(name), name): value for name, value in weights.items()}


def bare(name: str) -> str:
    """A parameter's name without what DataParallel and torch.compile add to it."""
    return name.replace("_orig_mod.", "").removeprefix("module.")
