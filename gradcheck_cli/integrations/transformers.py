"""`GradcheckCallback` for the Trainer of transformers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from gradcheck_cli.integrations.frameworks import find_class
from gradcheck_cli.integrations.training import Training, read_options

TrainerCallback = find_class("TrainerCallback", "transformers", "transformers")


class GradcheckCallback(TrainerCallback):  # type: ignore[misc, valid-type]  # transformers need not be installed
    """Watches `train` from its start to its end and prints what `gradcheck profile` would say to stderr.

    `output`: paths to write the report to, their suffixes (.json, .npz, .txt) choosing the format. `raise_on`: "error"
    or "warning" makes `train` raise GradcheckError at its end when there is a finding as bad as that. `probe_every`,
    `select`, `ignore`: as in `gradcheck profile`.
    """

    def __init__(
        self,
        output: str | Path | Sequence[str | Path] = (),
        raise_on: str | None = None,
        probe_every: int = 10,
        select: Collection[str] = (),
        ignore: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.training = Training(read_options(output, raise_on, probe_every, select, ignore))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to watch the optimizer; in a distributed run on the first process only."""
        if state.is_world_process_zero:
            precision = {"precision": "bf16"} if args.bf16 else {}  # fp16 shows itself by its scaler
            self.training.begin(
                kwargs["model"],
                [unwrapped(kwargs["optimizer"])],
                probing=not args.torch_compile,
                accumulate=args.gradient_accumulation_steps,
                max_norm=args.max_grad_norm or None,
                **precision,
            )
            close_after_train(self.training.close)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report, and raise if there is a reason to."""
        self.training.report()
        self.training.check()


def unwrapped(optimizer: Any) -> Any:
    """The optimizer of torch in that of accelerate."""
    while type(optimizer).__module__.startswith("accelerate."):
        optimizer = optimizer.optimizer
    return optimizer


class Guard:
    """Calls a function when nothing refers to it any more."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def __del__(self) -> None:
        self._call()


def close_after_train(close: Callable[[], None]) -> None:
    """Call `close` when `Trainer.train` has been left, by an exception too, of which no callback is told.

    A guard among the local variables of that call lives as long as the call, or as the traceback that holds it.
    """
    frame: FrameType | None = sys._getframe()
    while frame and (frame.f_globals.get("__name__"), frame.f_code.co_name) != ("transformers.trainer", "train"):
        frame = frame.f_back
    if frame:
        frame.f_locals["gradcheck_guard"] = Guard(close)
