"""What holds for every test: one thread a process, and nothing left behind in torch."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers with two threads each would wait for one another

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.amp import GradScaler
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers
from torch.utils._python_dispatch import _get_current_dispatch_mode

pytest_plugins = ["pytester"]

MODULE_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_hooks_with_kwargs",
    "_global_forward_hooks_always_called",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
)
REGISTRATION_HOOKS = ("_global_parameter_registration_hooks", "_global_buffer_registration_hooks")


def torch_state() -> dict[str, Any]:
    """Every place in torch where gradcheck hooks in, and what it could leave switched on."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return {
        "optimizer hooks": (
            dict(optimizers._global_optimizer_pre_hooks),
            dict(optimizers._global_optimizer_post_hooks),
        ),
        "module hooks": [dict(getattr(modules, name)) for name in (*MODULE_HOOKS, *REGISTRATION_HOOKS)],
        "optimizer": optimizers.Optimizer.__init__,
        "backward": torch.autograd.backward,
        "clips": [
            getattr(home, name)
            for home in (torch.nn.utils, torch.nn.utils.clip_grad)
            for name in ("clip_grad_norm_", "clip_grad_value_")
        ],
        "scaler": (GradScaler.scale, GradScaler.unscale_, GradScaler.step, GradScaler.update),
        "dispatch mode": _get_current_dispatch_mode(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
        "grad mode": torch.is_grad_enabled(),
        "process group": torch.distributed.is_available() and torch.distributed.is_initialized(),
        "stance": compiler.stance if (compiler := getattr(dynamo, "_stance", None)) else "default",
    }


@pytest.fixture(autouse=True)
def leave_nothing_behind() -> Iterator[None]:
    """Fail a test after which torch is not as it was before."""
    before = torch_state()
    yield
    assert torch_state() == before
