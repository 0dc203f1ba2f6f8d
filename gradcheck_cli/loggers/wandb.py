"""Weights & Biases: the run that the user's script has open, or one of our own beside it.

A row that we end in somebody's run would move the steps of all rows after it, and rows logged with `step=` would be
refused. So numbers wait there for the row that the script ends next; `gradcheck/step` says which step they are of.
"""

from __future__ import annotations

import os
from typing import Any

from gradcheck_cli.loggers.extras import load_extra
from gradcheck_cli.loggers.scalars import scalars
from gradcheck_cli.step_statistics import StepStatistics


def check_project(project: str) -> str:
    """The same. Raises ConfigError without wandb."""
    load_extra("wandb")
    return project


class Wandb:
    """Logs scalars, gradcheck/grad_norm and gradcheck/layer/grad_rms/NAME for example."""

    def __init__(self, project: str) -> None:
        self._wandb, self._trigger = load_extra("wandb"), load_extra("wandb.trigger")
        self._project = project
        self._own: Any = None
        self._joined = False
        self._defined: set[tuple[str, str]] = set()
        self.note = ""
        self._trigger.register("on_init", self._make_way)  # their wandb.init would return our run while it is open

    def write(self, step: StepStatistics) -> None:
        """Log all numbers of a step, to the user's run if there is one; after that has ended, no more."""
        run = self._wandb.run
        self._joined |= run is not None
        if run is None and not self._joined:
            run = self._own = self._own or self._begin()
        if run is None:
            return
        prefix = "/".join(filter(None, ("gradcheck", step.model)))
        if (run.id, prefix) not in self._defined:
            run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/step")
            self._defined.add((run.id, prefix))
        numbers = {f"{prefix}/{tag}": number for tag, number in scalars(step).items()}
        run.log({f"{prefix}/step": step.step, **numbers}, commit=run is self._own)

    def close(self) -> None:
        """End our own run; the user's is theirs."""
        self._trigger.unregister("on_init", self._make_way)
        self._make_way()

    def _make_way(self) -> None:
        if self._own is not None:
            self._own.finish()
            self._own = None

    def _begin(self) -> Any:
        settings = self._wandb.Settings(console="off", silent=True)  # stdout and stderr stay as they are
        run = self._wandb.init(
            project=self._project or None, job_type="gradcheck", reinit="create_new", settings=settings
        )
        self.note = f"logged to wandb: {os.path.dirname(run.dir) if run.offline else run.url}"
        return run
