"""The stream through a stack of like blocks."""

from __future__ import annotations

from math import inf, nan
from typing import Any

from torch import Tensor, nn

from gradcheck_cli.observe.signals.sampling import Term, every, first, mean_square

CONTAINERS = (nn.ModuleList, nn.Sequential)
EXAMPLES, TOKENS = 4, 64
FEWEST = 3


def is_stacked(parent: nn.Module, child: nn.Module) -> bool:
    """Whether a child is one of at least FEWEST members of a container that are of its class and hold modules."""
    if not isinstance(parent, CONTAINERS) or isinstance(child, (*CONTAINERS, nn.ModuleDict)):
        return False
    alike = sum(type(other) is type(child) for other in parent.children())
    return alike >= FEWEST and any(True for _ in child.children())


def puts_tokens_first(block: nn.Module) -> bool:
    """Whether its tensors are (tokens, examples, features), as torch's own attention takes them by default."""
    return any(isinstance(module, nn.MultiheadAttention) and not module.batch_first for module in block.modules())


def measure_block(given: Tensor | None, output: Tensor, tokens_first: bool) -> tuple[Term, Term, Term]:
    """Mean square of the output, that of what the block added over it, cosine similarity of tokens."""
    own = mean_square(output)
    same = given is not None and given.shape == output.shape and given.dtype == output.dtype
    added = divided(mean_square(output.detach() - given.detach()), own) if same and given is not None else None
    cosine = token_cosine(output.transpose(0, 1) if tokens_first else output) if output.dim() == 3 else None
    return own, added, cosine


def divided(part: Tensor | float, whole: Tensor | float) -> Term:
    """The quotient; infinite or NaN where the whole is 0, as torch has it."""
    if isinstance(part, float) and whole == 0:
        return inf if part > 0 else nan
    return part / whole


def token_cosine(output: Tensor) -> Term:
    """Mean cosine similarity of two different tokens of an example, of output (examples, tokens, features); 0-d.

    The squared length of a sum of n unit vectors is n + n (n - 1) times their mean cosine.
    """
    sample = every(first(output.detach(), 0, EXAMPLES), 1, max(1, output.shape[1] // TOKENS)).float()
    examples, n, _ = sample.shape
    units = nn.functional.normalize(sample, dim=-1)
    return (units.sum(1).square().sum() / examples - n) / (n * (n - 1)) if n > 1 else None


def first_tensor(values: Any) -> Tensor | None:
    """The first floating-point tensor of an argument list or output."""
    if isinstance(values, Tensor):
        return values if values.is_floating_point() and values.dim() else None
    members = values.values() if isinstance(values, dict) else values if isinstance(values, (tuple, list)) else ()
    return next((found for member in members if (found := first_tensor(member)) is not None), None)
