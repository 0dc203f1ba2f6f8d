"""What gradcheck runs on, for a bug report, and whether it measures rightly there."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import torch

from gradcheck_cli import __version__
from gradcheck_cli.observe.native import library
from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.records import RunInfo

NEEDED = ("numpy", "typer", "rich", "pyyaml")
EXTRAS = ("jinja2", "lightning", "transformers", "accelerate", "tensorboard", "wandb", "pytest")
VARIABLES = ("CUDA_", "OMP_", "MKL_", "PYTORCH_", "TORCH", "NCCL_", "WANDB_MODE", "NO_COLOR", "COLUMNS")
EXACT = 1e-6

Section = Mapping[str, str]


def describe() -> dict[str, Section]:
    """Sections of names and values, all as text. Raises nothing for what is absent: it says so."""
    return {
        "gradcheck": {
            "gradcheck": __version__,
            "python": f"{platform.python_version()} ({sys.executable})",
            "platform": f"{platform.platform()}, {os.cpu_count()} cores",
            **{name: version_of(name) for name in NEEDED},
            "reductions": reductions(),
        },
        "torch": {
            "torch": torch.__version__,
            "threads": f"{torch.get_num_threads()}, {torch.get_num_interop_threads()} between operations",
            "cuda": cuda(),
            "mps": "available" if torch.backends.mps.is_available() else "not available",
        },
        "optional": {name: version_of(name) for name in EXTRAS},
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)},
        "measures": {device: measure(device) for device in devices()},
    }


def version_of(package: str) -> str:
    """The version that is installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def reductions() -> str:
    """How gradients on a CPU are read."""
    if library.COMPILED is not None:
        return "compiled"
    return "not compiled, which costs time: install a C compiler and Python's headers, then gradcheck again"


def cuda() -> str:
    """The version that torch was built for, and the devices that are there."""
    if torch.version.cuda is None:
        return "not in this build of torch"
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return f"{torch.version.cuda}, " + (", ".join(names) or "no device")


def devices() -> list[str]:
    """All that a run could be on."""
    found = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def measure(device: str) -> str:
    """Measure a gradient that is known, (3, 4) of norm 5, through the hooks of one training step; how right it is."""
    try:
        norm = known_gradient_norm(torch.device(device))
    except Exception as error:
        return f"FAILED: {type(error).__name__}: {error}"
    return "right" if abs(norm - 5) <= 5 * EXACT else f"WRONG: a gradient of norm 5 was measured as {norm:.9g}"


def known_gradient_norm(device: torch.device) -> float:
    """The gradient norm that is recorded for the loss 3 w1 + 4 w2."""
    model = torch.nn.Linear(2, 1, bias=False, device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, optimizer) as recorder:
        model(torch.tensor([[3.0, 4.0]], device=device)).sum().backward()
        optimizer.step()
    run = RunInfo(target="doctor", device=str(device), precision="fp32", seed=None)
    return float(recorder.recording(run).series.grad_norm[0])
