"""Read from the autograd graph how a loss was reduced, and what it was multiplied by since."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Any

from torch import Tensor

from gradcheck_cli.observe.audit.measures import number_in

SCALED = "gradcheck: multiplied by a GradScaler"
REDUCTIONS = {1: "mean", 2: "sum"}
PASSING = frozenset(
    {"ToCopy", "Neg", "Clone", "View", "UnsafeView", "Squeeze", "Unsqueeze"}
    | {"Reshape", "Alias", "Add", "Sub", "Rsub", "Select", "Expand"}
)
MOST_NODES = 64


@dataclass(frozen=True)
class Reading:
    """`reduction`: "mean", "sum", or "" where it is not known. `factor`: absolute; NaN where it is not known."""

    reduction: str = ""
    factor: float = nan
    divisors: tuple[float, ...] = ()
    scaled: bool = False


def mark_scaled(scaled: Tensor) -> None:
    """Let `read_loss` know the node in which a GradScaler multiplied a loss. The mark goes when the graph goes."""
    node: Any = scaled.grad_fn
    if node is not None:
        node.metadata[SCALED] = True


WHOLE = {reduction: Reading(reduction, 1.0) for reduction in ("mean", "sum", "")}


def describe(losses: Any, weighted: bool) -> dict[str, Any]:
    """What is known of that on which backward is called; `weighted`: a gradient of the loss was given."""
    every = [losses] if isinstance(losses, Tensor) else [one for one in losses if isinstance(one, Tensor)]
    if len(every) == 1 and every[0].numel() == 1 and not weighted:
        return {"loss": number_in(every[0]), **vars(read_loss(every[0]))}
    return vars(Reading(scaled=any(read_loss(one).scaled for one in every)))


def read_loss(loss: Tensor) -> Reading:
    """Of a sum of several losses, the mean with the largest factor; else a sum; else nothing is known of it."""
    if loss.grad_fn is not None and (at_once := reduction_of(loss.grad_fn)) is not None:
        return WHOLE[at_once]
    found: list[Reading] = []
    ahead: list[tuple[Any, Reading]] = [(loss.grad_fn, Reading(factor=1.0))]
    for _ in range(MOST_NODES):
        if not ahead:
            break
        node, so_far = ahead.pop()
        if node is not None:
            reduction = reduction_of(node)
            if reduction is None:
                ahead += [(inner, after(node, so_far)) for inner in inner_nodes(node)]
            else:
                found.append(Reading(reduction, so_far.factor, so_far.divisors, so_far.scaled))
    return choose(found)


def choose(found: list[Reading]) -> Reading:
    """One reading for all: what is known wins, and of that the largest factor."""
    known = [one for one in found if one.reduction == "mean"] or [one for one in found if one.reduction]
    scaled = any(one.scaled for one in found)
    best = max(known or found or [Reading()], key=lambda one: one.factor if one.factor == one.factor else -1.0)
    unsure = any(one.factor != one.factor for one in known)
    return Reading(best.reduction, nan if unsure else best.factor, best.divisors, scaled)


def reduction_of(node: Any) -> str | None:
    """How a node reduces; "" for one that is not known; None for one that is gone through."""
    name: str = node.name().partition("Backward")[0]
    if name in ("Mean", "Sum"):
        return name.lower()
    if hasattr(node, "_saved_reduction"):
        return REDUCTIONS.get(node._saved_reduction, "")
    if SCALED in node.metadata or name in PASSING:
        return None
    return None if name in ("Mul", "Div") and len(inner_nodes(node)) == 1 else ""


def inner_nodes(node: Any) -> list[Any]:
    """The nodes behind those inputs that need a gradient."""
    return [inner for inner, _ in node.next_functions if inner is not None]


def after(node: Any, so_far: Reading) -> Reading:
    """What is known behind a node that is gone through."""
    if SCALED in node.metadata:
        return Reading("", so_far.factor, so_far.divisors, True)
    name = node.name().partition("Backward")[0]
    if name == "Div":
        number = constant(node, "_saved_other")
        return Reading("", so_far.factor / number if number else nan, (*so_far.divisors, number), so_far.scaled)
    if name == "Mul":
        number = constant(node, "_saved_other" if node.next_functions[0][0] is not None else "_saved_self")
        return Reading("", so_far.factor * number, so_far.divisors, so_far.scaled)
    return so_far


def constant(node: Any, name: str) -> float:
    """The other operand's magnitude; NaN where only the device knows it, or it is no single number."""
    try:
        saved = getattr(node, name)
    except RuntimeError:  # it was changed since, or the graph is freed
        return nan
    if not isinstance(saved, Tensor) or saved.device.type != "cpu" or saved.numel() != 1 or saved.is_complex():
        return nan
    return abs(saved.item())
