"""Whether what a model says depends on what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gradcheck_cli.observe.native import library
from gradcheck_cli.observe.native.library import apply
from gradcheck_cli.observe.signals.blocks import first_tensor
from gradcheck_cli.observe.signals.sampling import Term, every, thin

ROWS = 512


def measure_output(output: Any, given: Tensor | None) -> tuple[tuple[Term, ...], int] | None:
    """Standard deviation across examples over the RMS; share of examples whose largest score is the most frequent
    one, none where the output is no row of scores; that deviation of the input, none where it is `given` as no batch.
    And how many scores there are. None for an output without a batch.

    Three dimensions are taken as (examples, positions, scores), each position as an example.
    """
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    tensor = first_tensor(output if found is None else found)
    if tensor is None or tensor.dim() < 2:
        return None
    rows = tensor.detach().flatten(0, 1) if tensor.dim() == 3 else tensor.detach()
    rows = every(rows, 0, max(1, rows.shape[0] // ROWS))
    if rows.shape[0] < 2:
        return None
    scores = rows.shape[1] if rows.dim() == 2 else 1
    return (variation(rows), same_class(rows, scores), input_variation(given, tensor)), scores


def input_variation(given: Tensor | None, output: Tensor) -> Term:
    """How much the input of the model varies from example to example, as `variation`; None where that can't be told."""
    if given is None or given.dim() < 2 or given.shape[0] != output.shape[0] or given.is_complex():
        return None
    return variation(every(given.detach(), 0, max(1, given.shape[0] // ROWS)))


def variation(rows: Tensor) -> Term:
    """Standard deviation across the rows over the RMS, of a sample of their elements; 0 where all are 0."""
    values = thin(rows, keep=(0,))
    known = apply(library.COMPILED.variation, values, len(values)) if library.COMPILED else None
    if known is not None:
        return known
    values = values.flatten(1).float()
    square = values.square().mean()
    return ((values - values.mean(0)).square().mean() / square).sqrt().masked_fill(square == 0, 0.0)


def same_class(rows: Tensor, scores: int) -> Term:
    """Share of the rows (n, scores) whose largest score is the most frequent one, 0-d; None for fewer than 2 scores."""
    if scores < 2:
        return None
    known = library.COMPILED.same_class(rows, len(rows)) if library.COMPILED else None
    if known is not None:
        return known
    best = rows.argmax(1)
    return (best.unsqueeze(1) == best).sum(1).amax() / len(best)
