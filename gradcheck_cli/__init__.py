"""Gradient diagnostics for PyTorch from the command line.

             drive                    observe                   diagnose               report
 argv ──► Settings ──► Workload ──► training steps ──► Recording ──► findings, advice ──► Report ──► text, files
                        (torch)        (torch)          (numpy)         (numpy)           (plain data)

`drive` runs training steps and knows nothing of measuring. `observe` watches any training code through torch's
own hook points. `diagnose` and `report` are pure functions over plain values. `pipeline` joins them, `cli` is
plumbing. Imports point one way: cli -> pipeline -> drive, observe, diagnose, report -> config -> records, errors.

`gradcheck_cli.watch` watches a loop that stays where it is. It imports torch, so it is imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

__all__ = ["watch"]
__version__ = "0.1.0"

if TYPE_CHECKING:
    from gradcheck_cli.integrations.watching import watch
else:

    def __getattr__(name: str) -> Any:
        if name == "watch":
            from gradcheck_cli.integrations.watching import watch

            return watch
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
