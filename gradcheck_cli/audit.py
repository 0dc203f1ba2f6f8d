"""What was seen of a training script's own loop: its calls in their order, plain values, part of a recording."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

from gradcheck_cli.records import Location


@dataclass(frozen=True)
class LoopEvent:
    """One thing that the loop did, with what was measured of it. What a kind does not have keeps its default.

    Kinds:
    `backward`: gradients were added; `loss` its value, None if not known. The loss was read back to
        where it was reduced: `reduction` is "mean", "sum" or "" (not known), `factor` what it was multiplied by since,
        without the loss scale, and `divisors` the numbers by which it was divided. `scaled`: by a GradScaler.
        `retains`: called with retain_graph. `inactive`: modules of `LoopAudit.evals` that were in eval mode.
    `zero`: gradients were removed. `moved`: the parameters had changed since the backward before it.
    `edit`: the script changed gradients by hand; `ratio` by which number it multiplied them, NaN if it did otherwise.
    `replace`: the script replaced `count` non-finite elements of gradients.
    `clip-norm`, `clip-value`: `limit` is max_norm or clip_value, `norm` the total norm before it, `cosine` that between
        the gradient before and after, `scale` the loss scale at the time.
    `unscale`: gradients were divided by `scale`. `failed`: GradScaler refused.
    `step`, `skipped`: an optimizer changed the parameters, or its GradScaler left that out; `scaled`: it was called
        through GradScaler.step, `scale` the loss scale at the time.
    `scheduler`: a learning rate scheduler, number `scheduler`, made a step.
    `gap`: windows like many before them were left out, with `count` steps.

    `optimizers` are the numbers of those whose gradients, or parameters, it is about. `location` is the line of the
    user's source that made the call, and `site` a number of its own for every path of such lines. `measured` is False
    where no values of gradients were looked at, so that `edit` and a `zero` made by hand may be missing.
    """

    kind: str
    optimizers: tuple[int, ...] = ()
    location: Location | None = None
    site: int = -1
    measured: bool = True
    loss: float | None = None
    reduction: str = ""
    factor: float = nan
    divisors: tuple[float, ...] = ()
    scaled: bool = False
    retains: bool = False
    inactive: tuple[int, ...] = ()
    moved: bool = False
    ratio: float = nan
    count: int = 0
    limit: float = nan
    norm: float = nan
    cosine: float = nan
    scale: float = nan
    failed: bool = False
    scheduler: int = -1


@dataclass(frozen=True)
class OptimizerSeen:
    """An optimizer of the script: its type, the line that made it, and how many parameters it holds.

    `stale` are the names, in the model that is trained, of parameters that took the place of some of its own: same
    shape, with gradients, in no optimizer, while its own get none.
    """

    type: str
    location: Location | None = None
    parameters: int = 0
    stale: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvalSeen:
    """A module that the script put in eval mode, by the line `location`.

    `layers` are the types of those of its modules that this changes, dropout and batch norm. `optimizers` are those of
    which it holds all parameters that are trained, `partly` those of which it holds some.
    """

    type: str
    layers: tuple[str, ...]
    location: Location | None = None
    optimizers: tuple[int, ...] = ()
    partly: tuple[int, ...] = ()


@dataclass(frozen=True)
class LoopAudit:
    """The loop's events in their order, the first windows in full, later ones where they are unlike those before.

    `ended`: the events go on to the end of the script's loop; False where watching stopped before.
    """

    events: tuple[LoopEvent, ...]
    optimizers: tuple[OptimizerSeen, ...] = ()
    evals: tuple[EvalSeen, ...] = ()
    ended: bool = True
