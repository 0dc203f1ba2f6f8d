"""How sharp attention is: the spread of its logits, and the entropy of its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradcheck_cli.observe.native import library
from gradcheck_cli.observe.signals.sampling import Term, every, first
from gradcheck_cli.records import Floats, Ints

EXAMPLES, HEADS, QUERIES = 2, 16, 64
HIDDEN = -5e3
"""A logit below this hides its key: masks are written as -inf, -1e4, or the smallest number of a type."""
GAP = 40.0
"""Keys that are this far below the others weigh nothing (e^-40): masks are also written as -100, as in Swin."""


def measure_products(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Term, Term] | None:
    """As `measure_logits`, from what scaled_dot_product_attention was called with; None for shapes of another kind.

    The spread is that of the products alone, without a bias that is added to them.
    """
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    query, key, mask = given["query"].detach(), given["key"].detach(), given.get("attn_mask")
    if query.dim() < 3 or query.is_nested or not query.is_floating_point():
        return None
    scale = given.get("scale") or 1 / math.sqrt(query.shape[-1])
    queries = some_rows(some(query)).float()
    products = scale * (queries @ keys_for(queries, query, key).transpose(-1, -2))
    if mask is None and library.COMPILED:
        limits = limits_of(query, key, bool(given.get("is_causal")))
        sharpness = library.COMPILED.sharpness(products, limits.tobytes(), products.shape[-1])
        if sharpness is not None:
            return summarise(np.frombuffer(sharpness).reshape(-1, 2))
    bias = torch.zeros_like(products)
    if given.get("is_causal"):
        bias = add_mask(bias, causal_mask(query, key))
    if mask is not None:
        bias = add_mask(bias, some_rows(some(align(mask.detach(), query.dim()))))
    seen = (bias > HIDDEN) & (bias > bias.amax(-1, keepdim=True) - GAP)
    return measure(products, products + bias, seen)


def limits_of(query: Tensor, key: Tensor, is_causal: bool) -> Ints:
    """How many keys some of the queries see, the first ones: all, or up to their own number."""
    queries, keys = query.shape[-2], key.shape[-2]
    chosen = np.arange(0, queries, max(1, queries // QUERIES))
    return np.minimum(chosen + 1, keys) if is_causal else np.full(len(chosen), keys)


def summarise(sharpness: Floats) -> tuple[float, float]:
    """Mean of the deviations, median of the entropies, of (queries, 2); NaN where no query sees two keys."""
    known = sharpness[~np.isnan(sharpness[:, 0])]
    if not len(known):
        return math.nan, math.nan
    middle = (len(known) - 1) // 2
    return float(known[:, 0].mean()), float(np.partition(known[:, 1], middle)[middle])


def keys_for(queries: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """The keys that some of the queries meet, float32; in grouped attention several heads share them."""
    keys = some(align(key, query.dim())).float()
    if query.dim() > 3 and 1 < key.shape[-3] < query.shape[-3]:
        keys = first(keys.repeat_interleave(query.shape[-3] // key.shape[-3], -3), -3, queries.shape[-3])
    return keys


def causal_mask(query: Tensor, key: Tensor) -> Tensor:
    """(some queries, keys) bool: each sees the keys up to its own number."""
    queries, keys = (torch.arange(tensor.shape[-2], device=query.device) for tensor in (query, key))
    return some_rows(queries.unsqueeze(-1)) >= keys


def add_mask(bias: Tensor, mask: Tensor) -> Tensor:
    """A bias with a mask applied, True where a key is seen, or added to it."""
    return torch.where(mask, bias, -math.inf) if mask.dtype is torch.bool else bias + mask.float()


def align(tensor: Tensor, dims: int) -> Tensor:
    """With as many dimensions as the queries have, as broadcasting would give it."""
    return tensor.reshape((1,) * (dims - tensor.dim()) + tensor.shape)


def some(tensor: Tensor) -> Tensor:
    """The first EXAMPLES and HEADS of a tensor (..., [examples, [heads,]] n, m), as a view."""
    while tensor.dim() > 4:
        tensor = tensor.select(0, 0)
    return first(first(tensor, 0, EXAMPLES), 1, HEADS) if tensor.dim() == 4 else first(tensor, 0, EXAMPLES * HEADS)


def some_rows(tensor: Tensor) -> Tensor:
    """Of a tensor (..., queries, n), QUERIES of the queries or up to twice as many, at even distances, as a view."""
    return every(tensor, -2, max(1, tensor.shape[-2] // QUERIES))


def sample_logits(logits: Tensor) -> Tensor:
    """Of attention logits (..., queries, keys), those of some examples, heads and queries."""
    return some_rows(some(logits.detach())).float()


def measure_logits(logits: Tensor) -> tuple[Term, Term]:
    """Standard deviation over the keys that a query sees, mean over queries; and the median, over the
    queries that see more than one, of the entropy of its weights over the log of the number of keys.
    """
    return measure(logits, logits, find_seen(logits))


def find_seen(logits: Tensor) -> Tensor:
    """Which keys are not hidden by what was added to the logits: those above HIDDEN, and above a gap.

    The gap is in the middle between largest and smallest, wider than GAP and than what is above it, two keys or more,
    and what is below it: logits that are sharp by themselves lie scattered.
    """
    seen = logits > HIDDEN
    top = logits.amax(-1, keepdim=True)
    bottom = torch.where(seen, logits, math.inf).amin(-1, keepdim=True)
    middle = (top + bottom) / 2
    above = logits >= middle
    lowest = torch.where(above, logits, math.inf).amin(-1, keepdim=True)
    below = torch.where(seen & (logits < middle), logits, -math.inf).amax(-1, keepdim=True)
    gap = lowest - below
    tight = (gap > top - lowest) & (gap > below - bottom) & (above.sum(-1, keepdim=True) > 1)
    apart = (gap > GAP) & gap.isfinite() & tight
    return torch.where(apart, seen & above, seen)


def measure(spread: Tensor, logits: Tensor, seen: Tensor) -> tuple[Term, Term]:
    """As `measure_logits`: the standard deviation of `spread`, the entropy of the softmax of `logits`."""
    count = seen.sum(-1)
    centre = torch.where(seen, spread, 0).sum(-1) / count.clamp(min=1)
    variance = torch.where(seen, (spread - centre.unsqueeze(-1)).square(), 0).sum(-1) / count.clamp(min=1)
    weights = torch.softmax(torch.where(seen, logits, -math.inf), -1)
    entropy = torch.special.entr(weights).sum(-1) / count.clamp(min=2).log()
    several = count > 1
    deviation = torch.where(several, variance.sqrt(), torch.nan)
    return deviation.nanmean(), torch.where(several, entropy, torch.nan).nanmedian()
