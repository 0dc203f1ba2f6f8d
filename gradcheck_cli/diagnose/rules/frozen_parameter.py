"""# GC105 frozen-parameter

## What it detects

Parameters with `requires_grad` False, and what share of the model they make up.

## Why it matters

They keep their values. That is the point of fine-tuning a part of a model (LoRA, Hu et al. 2021; a linear probe on a
frozen backbone), and a mistake when a layer that was frozen for an earlier phase was never released, or when a new
head was frozen along with the rest.

## How to fix

1. If it is meant: nothing. `--ignore GC105` silences it.
2. Release a part with `module.requires_grad_(True)`, and give its parameters to the optimizer too: one that was built
   from the trainable parameters only does not hold them.

## How it decides

Parameters that were released within the run, and got gradients, are not among them.

One finding for the outermost module of which every parameter is frozen; a frozen parameter next to trainable ones is
named itself. Modules whose names differ by their numbers only (`blocks.0.fc`, `blocks.1.fc`) share one finding, under
`blocks.*.fc`.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.selection import by_pattern, by_topmost_module
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.records import Recording, Severity


@rule("GC105", "frozen-parameter", Severity.INFO)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    trainable = {*recording.trainable}
    frozen = [parameter for parameter in recording.parameters if parameter not in trainable]
    groups = by_topmost_module(frozen, recording.parameters)
    total = sum(parameter.numel for parameter in recording.parameters)
    for layer, like in by_pattern(list(groups)).items():
        parameters = [parameter for name in like for parameter in groups[name]]
        numel = sum(parameter.numel for parameter in parameters)
        places = f" ({len(like)} of them)" if len(like) > 1 else ""
        yield check.finding(
            f"{layer}{places} is frozen: {count(len(parameters), 'parameter tensor')},"
            f" {numel:,} elements, {numel / max(1, total):.1%} of the model",
            "nothing to do if that is meant; otherwise requires_grad_(True), and give the parameters to the optimizer",
            layer=layer,
            evidence={
                "layers": like,
                "parameters": [parameter.name for parameter in parameters],
                "numel": numel,
                "model_numel": total,
            },
        )
