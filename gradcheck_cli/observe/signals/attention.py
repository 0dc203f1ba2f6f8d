"""How sharp attention is: the spread of its logits, and the entropy of its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

EXAMPLES, HEADS, QUERIES = 2, 16, 64
HIDDEN = -1e4
"""A logit below this hides its key: masks are written as -inf, or as the smallest number of a type."""
GAP = 40.0
"""Keys that lie so far below the others have no weight (e^-40): masks are also written as -100, as in Swin."""


def measure_products(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """As `measure_logits`, from what scaled_dot_product_attention was called with; None for shapes of another kind.

    The spread is that of the products alone, without a mask or bias that is added to them.
    """
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    query, key, mask = given["query"].detach(), given["key"].detach(), given.get("attn_mask")
    if query.dim() < 3 or query.is_nested or not query.is_floating_point():
        return None
    scale = given.get("scale") or 1 / math.sqrt(query.shape[-1])
    lead = torch.broadcast_shapes(query.shape[:-3], key.shape[:-3], *([] if mask is None else [mask.shape[:-3]]))
    rows = torch.arange(0, query.shape[-2], max(1, query.shape[-2] // QUERIES), device=query.device)
    chosen, keys = some(query, lead)[..., rows, :].float(), some(key, lead, query.shape[-3]).float()
    products = scale * (chosen @ keys.transpose(-1, -2))
    bias = torch.zeros((), device=query.device)
    if given.get("is_causal"):
        bias = as_bias(torch.arange(key.shape[-2], device=query.device) <= rows[:, None])
    if mask is not None:
        bias = bias + as_bias(mask_rows(mask.detach(), lead, query, rows))
    return measure(products, products + bias, (products + bias > HIDDEN) & (bias > bias.amax(-1, True) - GAP))


def mask_rows(mask: Tensor, lead: torch.Size, query: Tensor, rows: Tensor) -> Tensor:
    """Those rows of a mask that `rows` of the queries meet, of some examples and heads."""
    whole = mask.expand(*mask.shape[: -2 or None], query.shape[-2], mask.shape[-1]) if mask.dim() > 1 else mask
    if mask.dim() < 3:
        return whole[rows] if mask.dim() == 2 else whole
    return some(whole, lead, query.shape[-3])[..., rows, :]
