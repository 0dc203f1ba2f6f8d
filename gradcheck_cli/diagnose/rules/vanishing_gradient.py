"""# GC101 vanishing-gradient

## What it detects

A gradient that shrinks layer by layer on its way from the loss to the input, so that the first layers hardly learn.

## Why it matters

The first layers stay near their random initial values and everything behind them works on noise. The loss falls a
little, while the last layers adapt, and then stops. Optimizers that normalise, such as Adam, hide it at first and
amplify rounding noise instead. Hochreiter 1991; Bengio et al., "Learning long-term dependencies with gradient descent
is difficult", 1994; Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
2010, section 4.

## How to fix

1. If the forward signal shrinks too, weights begin too small: He initialisation (`nn.init.kaiming_normal_`) before
   ReLU, Xavier (`nn.init.xavier_normal_`) before tanh.
2. If the forward signal keeps its size, activations saturate: ReLU or GELU instead of sigmoid and tanh. Behind ReLU,
   biases can keep it up while weights begin too small: He initialisation, and biases of zero.
3. Normalisation between the layers (`nn.LayerNorm`, `nn.BatchNorm2d`).
4. Residual connections around blocks of two or three layers.

Clipping does not help: it only makes gradients smaller.

## How it decides

On each probed step, the RMS of the loss gradient with respect to the output of each layer is taken for every group of
at least four like layers (same type, same name but for digits; else same type), in execution order. The depth slope D
is the Theil-Sen slope of its log10, times the number of layers less one: the decades lost from the last layer to the
first. D is the median over the probed steps, at least three. D >= 4 is an error, D >= 3 a warning, for the worst
group; healthy networks measure -2.3 to 2.7. It is only information while the loss clearly falls (by a tenth, and by a
Mann-Kendall test at 1 %). The forward slope A, likewise of the output's RMS on the first probed step, tells the cause:
A near -D means that the signal shrinks with the gradient.

Activation gradients are used because those of weights can hide it: weight gradients are products of activations and
activation gradients, and where one grows as the other shrinks the product stays even.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from gradcheck_cli.diagnose.flow import Flow, flows, loss_falls, why_none
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.records import Recording, Severity

SATURATING = frozenset({"Sigmoid", "Tanh", "Softsign", "Hardtanh", "Hardsigmoid", "LogSigmoid", "Softmax", "ReLU6"})
RECTIFIERS = frozenset({"ReLU", "LeakyReLU", "PReLU", "GELU", "SiLU", "ELU", "Mish"})
ERROR = 4.0
WARNING = 3.0


@rule("GC101", "vanishing-gradient", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    groups = flows(recording)
    if not groups:
        yield check.skip(why_none(recording))
        return
    worst = max(groups, key=lambda flow: flow.backward)
    if not worst.backward >= WARNING:
        return
    falls = loss_falls(recording.series.loss)
    severity = Severity.INFO if falls else Severity.ERROR if worst.backward >= ERROR else Severity.WARNING
    yield check.finding(
        describe(worst) + (" (the loss still falls clearly)" if falls else ""),
        hint_for(worst, {module.type for module in recording.modules}),
        severity=severity,
        layer=worst.group,
        evidence={**worst.evidence, "error_at": ERROR, "warning_at": WARNING, "loss_falls": falls},
    )


def describe(flow: Flow) -> str:
    """What happens between the two ends of the group."""
    return (
        f"the gradient shrinks by {flow.backward:.1f} decades toward the input: RMS of dL/d(output) is"
        f" {flow.last_rms:.1e} at {flow.layers[-1]} but {flow.first_rms:.1e} at {flow.layers[0]},"
        f" {flow.per_layer:.2f} decades a layer over {len(flow.layers)} layers"
    )


def hint_for(flow: Flow, types: Collection[str]) -> str:
    """The cure for the cause that the forward signal points at."""
    if flow.forward <= -flow.backward / 2:
        return (
            f"the forward signal shrinks as well, by {-flow.forward:.1f} decades, so the weights begin too small:"
            " nn.init.kaiming_normal_ before ReLU, nn.init.xavier_normal_ before tanh; or normalise between layers"
        )
    if RECTIFIERS.intersection(types) and not SATURATING.intersection(types):
        return (
            "the forward signal keeps its size through the biases alone, and the weights begin too small:"
            " nn.init.kaiming_normal_ for the weights, zero for the biases; or normalise between layers"
        )
    return (
        "the forward signal keeps its size, so the activations saturate: ReLU or GELU instead of sigmoid or tanh,"
        " normalisation between layers, residual connections"
    )
