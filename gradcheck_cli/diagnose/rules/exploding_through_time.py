"""# GC606 exploding-through-time

## What it detects

In a recurrent network, a gradient that grows from time step to time step on its way back to the first: the inputs of
long ago move the loss more than those of just now. As information, a gradient that fades on that way.

## Why it matters

The recurrent matrix is multiplied in once for each time step, so growth is exponential in the length of the sequence.
Most batches pass, and then one meets a steep wall in the loss and throws the weights far off: the loss jumps or becomes
NaN, and longer sequences make it worse. Where the gradient fades instead, nothing is learned of what lies further back
than it reaches. Bengio et al., "Learning long-term dependencies with gradient descent is difficult", 1994; Pascanu et
al., "On the difficulty of training recurrent neural networks", 2013, sections 2.1 and 2.3.

## How to fix

Exploding:

1. Begin with a smaller recurrent matrix: `nn.init.orthogonal_(rnn.weight_hh_l0)` has every singular value at 1;
   PyTorch's default is smaller still.
2. Clip the gradient's norm (`torch.nn.utils.clip_grad_norm_(parameters, 1.0)`), Pascanu's own remedy: it takes the harm
   out of the steep walls.
3. An LSTM or GRU instead of a plain RNN; layer normalisation inside the cell.
4. Shorter sequences, or truncated backpropagation: detach the hidden state every so many steps.

Vanishing:

1. An LSTM or GRU with its forget gate open at the start (bias 1 or more), or attention over the time steps.
2. A loss on every time step, or the mean over the outputs instead of the last one.
3. Sequences no longer than the gradient reaches: the rest costs time and teaches nothing. Truncated backpropagation
   (detach the hidden state) loses nothing there.

## How it decides

On each probed step, the RMS of dL/dx_t, the loss gradient with respect to the input (of a cell: the hidden state) at
each time step, from the first to the last that gets any. The growth is the Theil-Sen slope of its log10 over time,
times the number of steps less one: the decades gained from the last time step to the first; or the slope of the
earlier half over that whole length, or the largest RMS over the last one's, where they are smaller. The half leaves
out what is no explosion: with a loss on every time step earlier inputs have more terms to add up, as many as steps
follow, which near the end looks like one (0.7 decades from last to largest in a healthy LSTM of 48 steps). Medians
over the probed steps, at least three, of at least six time steps. A growth of 1 decade is an error, of 0.7 a warning;
under 2 decades it is only information while the loss clearly falls (GC101): an LSTM with its forget gate open
measures 1.1 over 64 steps, and learns. Default, orthogonal, Xavier and identity initialisations of plain, LSTM and
GRU networks measure at most 0.6; plain networks with recurrent weights of five times the default measure 1.3 (8
steps) to 8 (64 steps).

A slope of -4 decades or less, which takes a loss on the last step alone, is information: a default LSTM loses 41
decades over a long sequence, and still learns from its last steps. Networks that read both ways are not evaluated: the
two directions' gradients come added up, and either end may be the late one.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.diagnose.flow import loss_falls
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.recurrence import Passage, has_recurrence, matrices_of, passages, why_none
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.records import Recording, Severity
from gradcheck_cli.signals import RecurrentMatrix

ERROR = 1.0
BEARABLE = 2.0
WARNING = 0.7
VANISHED = -4.0


@rule("GC606", "exploding-through-time", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    ways = passages(recording)
    if not ways and has_recurrence(recording):
        yield check.skip(why_none(recording))
    for way in ways:
        if way.growth >= WARNING:
            falls = way.growth < BEARABLE and loss_falls(recording.series.loss)
            yield exploding(way, matrices_of(recording, way.site), falls)
        elif way.slope <= VANISHED:
            yield vanishing(way)


def exploding(way: Passage, matrices: list[RecurrentMatrix], harmless: bool) -> Outcome:
    """The finding for a gradient that grows toward the first time step; `matrices` are its evidence."""
    severity = Severity.INFO if harmless else Severity.ERROR if way.growth >= ERROR else Severity.WARNING
    return check.finding(
        f"the gradient grows by {way.growth:.1f} decades through {way.length} time steps: RMS of {gradient_of(way)} is"
        f" {way.last_rms:.1e} at the last but {way.first_rms:.1e} at the first"
        + (" (the loss still falls clearly)" if harmless else ""),
        "begin with a smaller recurrent matrix (nn.init.orthogonal_), clip the gradient's norm (clip_grad_norm_), or"
        " use an LSTM or GRU; shorter sequences or truncated backpropagation limit the harm",
        severity=severity,
        layer=way.site.name,
        evidence={
            **way.evidence,
            "spectral_radius": {label(matrix): matrix.radius for matrix in matrices if matrix.radius == matrix.radius},
            "spectral_norm": {label(matrix): matrix.norm for matrix in matrices},
            "error_at": ERROR,
            "warning_at": WARNING,
            "bearable_below": BEARABLE,
            "loss_falls": harmless,
        },
    )


def label(matrix: RecurrentMatrix) -> str:
    """rnn.weight_hh_l0, with the gate where there are several."""
    return f"{matrix.parameter} ({matrix.gate})" if matrix.gate else matrix.parameter


def vanishing(way: Passage) -> Outcome:
    """The finding for a gradient that fades toward the first time step."""
    reach = f": {way.faded} steps back it is under a hundredth" if way.faded else ""
    return check.finding(
        f"the gradient fades by {-way.slope:.0f} decades through {way.length} time steps{reach}, so what lies further"
        " back is not learned",
        "if the task needs it: gating (LSTM or GRU, forget bias of 1 or more), a loss on every step or the mean of the"
        " outputs, attention; if not: shorter sequences or truncated backpropagation are cheaper and lose nothing",
        severity=Severity.INFO,
        layer=way.site.name,
        evidence={**way.evidence, "faded_after_steps": way.faded, "information_at": VANISHED},
    )


def gradient_of(way: Passage) -> str:
    """What was measured, in symbols."""
    return "dL/dh_t" if way.site.kind == "cell" else "dL/dx_t"
