"""What goes to stderr: errors, notices and the progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from gradcheck_cli.errors import GradcheckError

if TYPE_CHECKING:
    from gradcheck_cli.pipeline import Progress as Step
    from gradcheck_cli.pipeline import Watcher

REFRESH_SECONDS = 0.1


def show_error(error: GradcheckError) -> None:
    """What is wrong, the user's traceback if there is one, and what to do; of many ranks' errors only the first."""
    from gradcheck_cli.cli.ranks import speaking

    with speaking(error) as mine:
        if mine:
            print_error(mine)


def print_error(error: GradcheckError) -> None:
    """The error's parts, to stderr."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(Text.assemble(("error: ", "bold red"), error.message))
    if error.details:
        console.print(Text("\n" + "\n".join(f"  {line}" for line in error.details.splitlines()) + "\n"))
    if error.hint:
        console.print(Text.assemble(("hint: ", "bold"), error.hint))


def notify(text: str) -> None:
    """One line to stderr."""
    print(text, file=sys.stderr)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Watcher]:
    """A bar on stderr with step, loss, gradient norm, the step's text, and time left.

    None when quiet or when stderr is no terminal.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda step: None
        return
    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(None),
        TextColumn("loss {task.fields[loss]:.4g}  gradient norm {task.fields[norm]:.3g}  {task.fields[text]}"),
        TimeRemainingColumn(),
    )
    # No thread of its own: it would run beside the user's code, and be lost when a data loader forks.
    bar = Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
    with bar:
        task = bar.add_task("steps", total=None, loss=float("nan"), norm=float("nan"), text="")
        shown = 0.0

        def watch(step: Step) -> None:
            nonlocal shown
            now = time.monotonic()
            refresh = now - shown > REFRESH_SECONDS
            shown = now if refresh else shown
            known: dict[str, Any] = {"loss": step.loss, "norm": step.grad_norm, "text": step.text}
            bar.update(task, completed=step.done, total=step.steps, refresh=refresh, **known)

        yield watch
