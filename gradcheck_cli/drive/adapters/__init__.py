"""What entrypoints may return beside the parts of a workload: objects of Lightning and of transformers.

They are told by the names of their classes, so that neither library is imported unless the user did.
"""

from __future__ import annotations

from typing import Any

from gradcheck_cli.drive.adapters.lightning import find_fit, parts_of_fit
from gradcheck_cli.drive.adapters.parts import Adapted
from gradcheck_cli.drive.adapters.transformers import is_trainer, parts_of_trainer


def adapt(returned: Any) -> Adapted:
    """What the entrypoint returned as a mapping of the contract's parts; as it is where it is no framework's object.

    Raises TargetError for what only the framework itself can train, and when the user's code in it fails.
    """
    if is_trainer(returned):
        return parts_of_trainer(returned)
    if fit := find_fit(returned):
        return parts_of_fit(fit)
    return Adapted(returned)


def is_adapted(training_step: Any) -> bool:
    """Whether a workload's training step is one that an adapter made of a framework's object."""
    return getattr(training_step, "__module__", "").startswith(f"{__name__}.")
