"""# GC102 exploding-gradient

## What it detects

A gradient that grows layer by layer on its way from the loss to the input, or a forward signal that grows by four
decades or more through the layers.

## Why it matters

The first layers get updates that are orders of magnitude too large for the last ones to follow. The loss jumps,
diverges or becomes NaN; a learning rate small enough for the first layers leaves the last ones standing still. Pascanu
et al., "On the difficulty of training recurrent neural networks", 2013; He et al., "Delving deep into rectifiers",
2015, section 2.2.

## How to fix

1. Initialise with a smaller scale: `nn.init.kaiming_normal_` before ReLU, `nn.init.xavier_normal_` before tanh; in
   residual networks, divide the last layer of each branch by sqrt(2 x number of blocks).
2. Normalise between the layers (`nn.LayerNorm`, `nn.BatchNorm2d`), before the branch in transformers.
3. Clip the gradient (`torch.nn.utils.clip_grad_norm_`): a stopgap, because it shrinks the small gradients of the last
   layers together with the large ones.

## How it decides

The depth slope D of GC101, with the opposite sign: D <= -3 is an error, D <= -2 a warning, for the worst group of like
layers. A forward slope A >= 4 decades is an error too. It is only information where BatchNorm explains it: at
initialisation each BatchNorm before a ReLU multiplies the gradient by up to sqrt(pi / (pi - 1)) = 1.21, or 0.083
decades (Yang et al., "A Mean Field Theory of Batch Normalization", 2019), so -D up to 2 + 0.083 x (number of BatchNorm
layers) is what that normalisation does by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.diagnose.flow import Flow, flows, why_none
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.records import Recording, Severity

ERROR = -3.0
WARNING = -2.0
FORWARD = 4.0
BATCH_NORM_DECADES = 0.083


@rule("GC102", "exploding-gradient", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    groups = flows(recording)
    if not groups:
        yield check.skip(why_none(recording))
        return
    norms = sum("BatchNorm" in module.type for module in recording.modules)
    worst = min(groups, key=lambda flow: flow.backward)
    loudest = max(groups, key=lambda flow: flow.forward)
    if worst.backward <= WARNING:
        yield of_gradient(worst, norms)
    elif loudest.forward >= FORWARD:
        yield of_signal(loudest)


def of_gradient(flow: Flow, norms: int) -> Outcome:
    """The finding for a gradient that grows toward the input."""
    explained = norms > 0 and -flow.backward <= -WARNING + BATCH_NORM_DECADES * norms
    severity = Severity.INFO if explained else Severity.ERROR if flow.backward <= ERROR else Severity.WARNING
    message = (
        f"the gradient grows by {-flow.backward:.1f} decades toward the input: RMS of dL/d(output) is"
        f" {flow.last_rms:.1e} at {flow.layers[-1]} but {flow.first_rms:.1e} at {flow.layers[0]},"
        f" {flow.per_layer:.2f} decades a layer over {len(flow.layers)} layers"
    )
    return check.finding(
        message + (f" (as {norms} BatchNorm layers do at initialisation)" if explained else ""),
        "nothing to do while the loss falls" if explained else hint_for(flow),
        severity=severity,
        layer=flow.group,
        evidence={**flow.evidence, "error_at": ERROR, "warning_at": WARNING, "batch_norm_layers": norms},
    )


def hint_for(flow: Flow) -> str:
    """The cure for the cause that the forward signal points at."""
    cure = (
        "nn.init.kaiming_normal_ before ReLU, nn.init.xavier_normal_ before tanh; or normalise between layers;"
        " clip_grad_norm_ is only a stopgap"
    )
    if flow.forward >= -flow.backward / 2:
        return (
            f"the forward signal grows as well, by {flow.forward:.1f} decades, so the weights begin too large: {cure}"
        )
    return f"the forward signal keeps its size, so large weights meet saturated or normalised activations: {cure}"


def of_signal(flow: Flow) -> Outcome:
    """The finding for a forward signal that grows toward the output."""
    return check.finding(
        f"the forward signal grows by {flow.forward:.1f} decades from {flow.layers[0]} to {flow.layers[-1]}"
        f" over {len(flow.layers)} layers",
        "initialise with a smaller scale (nn.init.kaiming_normal_ before ReLU); normalise between layers",
        layer=flow.group,
        evidence={**flow.evidence, "forward_error_at": FORWARD},
    )
