"""`GradcheckCallback` for Lightning, whichever name it was installed under."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from gradcheck_cli.integrations.frameworks import find_class
from gradcheck_cli.integrations.training import Training, read_options

Callback = find_class("Callback", "lightning", "lightning.pytorch", "pytorch_lightning")
PRECISIONS = {"32-true": "fp32", "16-mixed": "fp16", "bf16-mixed": "bf16"}


class GradcheckCallback(Callback):  # type: ignore[misc, valid-type]  # Lightning need not be installed
    """Watches `fit` from its start to its end and prints what `gradcheck profile` would say to stderr.

    `output`: paths to write the report to, their suffixes (.json, .npz, .txt) choosing the format; with several
    optimizers their numbers are added to the names. `raise_on`: "error" or "warning" makes `fit` raise GradcheckError
    when it is over and there is a finding as bad as that. `probe_every`, `select`, `ignore`: as in `gradcheck profile`.
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

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to watch every optimizer; in a distributed run on the first process only."""
        if trainer.is_global_zero:
            precision = PRECISIONS.get(trainer.precision, trainer.precision)
            self.training.begin(
                pl_module,
                trainer.optimizers,
                probing=getattr(pl_module, "_compiler_ctx", None) is None,
                precision=precision,
                accumulate=trainer.accumulate_grad_batches,
                max_norm=max_norm_of(trainer),
            )

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Note the batch."""
        for watch in self.training.watches:
            watch.look_at(batch, batch_idx, trainer.current_epoch)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Report."""
        self.training.report()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Raise, if there is a reason to, now that every callback has seen the end of the training."""
        self.training.check()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Report what was seen."""
        self.training.report_failure("interrupted" if isinstance(exception, KeyboardInterrupt) else "failed")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave nothing behind, however the training ended."""
        self.training.close()


def max_norm_of(trainer: Any) -> float | None:
    """Where the trainer clips the norm of the gradients."""
    by_norm = str(trainer.gradient_clip_algorithm or "norm").endswith("norm")
    return (trainer.gradient_clip_val or None) if by_norm else None
