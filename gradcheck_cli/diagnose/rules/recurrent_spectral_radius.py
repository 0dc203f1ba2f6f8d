"""# GC607 recurrent-spectral-radius

## What it detects

A recurrent matrix that makes the hidden state's gradient grow (or all but vanish) from one time step to the next, by
its spectral radius and norm before the first step.

## Why it matters

A plain recurrent network multiplies the gradient by the matrix and by the nonlinearity's slope at every time step.
If the largest singular value times the largest slope is under 1, the gradient is sure to vanish, and only if it is
over 1 can it explode; how fast it does in the long run, as long as nothing saturates, is the spectral radius. Pascanu
et al., "On the difficulty of training recurrent neural networks", 2013, section 2.1.

## How to fix

1. `nn.init.orthogonal_(rnn.weight_hh_l0)`: radius and norm are 1.
2. For ReLU, the identity (`nn.init.eye_`) with small input weights: Le et al., "A Simple Way to Initialize Recurrent
   Networks of Rectified Linear Units", 2015.
3. Scale the matrix: `weight.mul_(1 / radius)` under `torch.no_grad()`.
4. An LSTM or GRU, whose gates carry the state past the matrix.

## How it decides

Only information, because it misleads: saturation and gates shrink what the matrix enlarges, and training moves it. The
gain is the spectral radius times the largest slope of the nonlinearity (1 for tanh and ReLU, 1/4 for sigmoid). A plain
RNN is named where its gain exceeds 1.2 (PyTorch's default begins at 0.6, orthogonal and identity matrices at 1, random
ones of Xavier's size at about 1), or where the largest singular value times that slope is under 0.5. The largest
singular value alone does not count upwards: it is 1.1 for the default, and 2 for Xavier's, which are healthy. An LSTM
or GRU (1.12 when healthy) is named only where GC606 measures that the gradient grows through time. Not evaluated
without a recurrent matrix.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.recurrence import passages
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.rules.exploding_through_time import WARNING
from gradcheck_cli.records import Recording, Severity
from gradcheck_cli.signals import RecurrentMatrix

SLOPES = {"sigmoid": 0.25, "tanh": 1.0, "relu": 1.0}
GROWS = 1.2
SHRINKS = 0.5


@rule("GC607", "recurrent-spectral-radius", Severity.INFO)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    if recording.signals is None:
        yield check.skip("the recording has no signals: it was made without them")
        return
    matrices = recording.signals.weights.recurrent
    exploding = {way.site.module for way in passages(recording) if way.growth >= WARNING}
    by_module: dict[str, list[RecurrentMatrix]] = {}
    for matrix in matrices:
        by_module.setdefault(matrix.parameter.rpartition(".")[0], []).append(matrix)
    for module, own in by_module.items():
        grows = max(own, key=lambda matrix: gain(matrix, matrix.radius))
        shrinks = min(own, key=lambda matrix: gain(matrix, matrix.norm))
        if gain(grows, grows.radius) > GROWS and (not grows.gate or module in exploding):
            yield growing(grows, module)
        elif not shrinks.gate and gain(shrinks, shrinks.norm) < SHRINKS:
            yield shrinking(shrinks, module)


def gain(matrix: RecurrentMatrix, size: float) -> float:
    """A radius or norm times the largest slope of the nonlinearity; 1, which says nothing, where it is not known."""
    return size * SLOPES.get(matrix.nonlinearity, 1.0) if size == size else 1.0


def growing(matrix: RecurrentMatrix, module: str) -> Outcome:
    """The finding for a matrix that enlarges."""
    return check.finding(
        f"{describe(matrix)} has spectral radius {matrix.radius:.2f} and norm {matrix.norm:.2f}: the gradient grows"
        f" {gain(matrix, matrix.radius):.2f} times at each time step where {matrix.nonlinearity} is steepest",
        "nn.init.orthogonal_ for the recurrent matrix, or divide it by its radius; clip the gradient's norm",
        layer=module or None,
        evidence=evidence(matrix),
    )


def shrinking(matrix: RecurrentMatrix, module: str) -> Outcome:
    """The finding for a matrix that forgets."""
    return check.finding(
        f"{describe(matrix)} has norm {matrix.norm:.2g}: the gradient shrinks to at most"
        f" {gain(matrix, matrix.norm):.2g} of itself at each time step, so the network forgets at once",
        "nn.init.orthogonal_ for the recurrent matrix",
        layer=module or None,
        evidence=evidence(matrix),
    )


def describe(matrix: RecurrentMatrix) -> str:
    """Its name, and its gate where it has one."""
    return f"{matrix.parameter} ({matrix.gate} gate)" if matrix.gate else matrix.parameter


def evidence(matrix: RecurrentMatrix) -> dict[str, str | float]:
    """Pascanu's condition in numbers."""
    return {
        "parameter": matrix.parameter,
        "gate": matrix.gate,
        "nonlinearity": matrix.nonlinearity,
        "largest_slope": SLOPES.get(matrix.nonlinearity, 1.0),
        "spectral_radius": matrix.radius,
        "spectral_norm": matrix.norm,
        "information_above_radius_times_slope": GROWS,
        "information_below_norm_times_slope": SHRINKS,
    }
