"""# GC605 rank-collapse

## What it detects

Tokens that differ at the first block of a stack and are all alike at the last: whatever the input, one vector is left.

## Why it matters

Attention averages tokens. Without residual connections, or where normalisation after every block weakens them, each
block makes the tokens more alike, and their matrix loses its rank doubly exponentially with depth. Nothing behind can
tell one token from another, and the gradient of queries and keys vanishes. Dong, Cordonnier and Loukas, "Attention is
not all you need: pure attention loses rank doubly exponentially with depth", 2021, sections 2 and 3; Noci et al.,
"Signal Propagation in Transformers: Theoretical Perspectives and the Role of Rank Collapse", 2022, section 3.

## How to fix

1. Residual connections around the attention and around the feed-forward network.
2. Normalise the input of each branch instead of the stream (pre-LN: `norm_first=True`). Xiong et al., "On Layer
   Normalization in the Transformer Architecture", 2020.
3. With post-LN: smaller initial weights of what writes to the stream, divided by sqrt(2 x number of blocks), or a
   larger weight of the stream (DeepNet: Wang et al., 2022, section 3).

## How it decides

The cosine similarity of two different tokens of an example, mean over pairs, at the first and last block of each
stack. Collapsed: cosine > 0.99 at the last block and 1 - cosine under a tenth of what it is at the first: error;
cosine > 0.97 and under three tenths: warning. Where tokens are alike from the start (constant or padded sequences:
1 - cosine under 0.005 at the first block) nothing is said.

On the first step, unless the weights were trained before: broken models measured 0.978 to 1.000, healthy ones up to
0.957 (Llama, 48 layers), pre-LN GPT-2 with 48 layers 0.09.

Later a healthy language model passes through a collapse, too, while it learns how frequent each token is: up to 0.997
in the first 20 steps, 0.3 after 300. A collapse that was not there on the first step counts only, as a warning, if it
was there on at least three probed steps that make the second half of them, and the loss does not clearly fall.

Convolutions, whose second dimension is one of channels, are left out, unless there is attention within the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.flow import loss_falls
from gradcheck_cli.diagnose.initialisation import starts_untrained
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.stacks import Stack, holds, stacks
from gradcheck_cli.records import Finding, Recording, Severity

ERROR_COSINE, WARNING_COSINE = 0.99, 0.97
ERROR_SHARE, WARNING_SHARE = 0.1, 0.3
DIFFERENT = 0.005
FEWEST_PROBES = 3


@rule("GC605", "rank-collapse", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    if recording.signals is None or not len(recording.probes.steps):
        yield check.skip("tokens were not compared: the recording has no signals, or no step was probed")
        return
    untrained = starts_untrained(recording)
    for stack in stacks(recording):
        if not is_of_tokens(recording, stack):
            continue
        severity = severity_at(stack, 0) if untrained else None
        if severity:
            yield finding(recording, stack, 0, severity, "before anything is learned")
        elif stays_collapsed(stack) and not loss_falls(recording.series.loss):
            yield finding(recording, stack, -1, Severity.WARNING, "and stay so while the loss does not fall")


def is_of_tokens(recording: Recording, stack: Stack) -> bool:
    """Whether the second dimension of what the blocks return is surely not one of channels."""
    assert recording.signals is not None
    inside = tuple(f"{name}." for name in stack.names)
    attends = any(f"{site.module}.".startswith(inside) for site in recording.signals.attention.sites)
    return attends or not holds(recording, stack.names, "Conv")


def severity_at(stack: Stack, row: int) -> Severity | None:
    """How bad the collapse is on one probed step; None where there is none, or nothing was measured."""
    first, last = float(stack.token_cosine[row, 0]), float(stack.token_cosine[row, -1])
    if not 1 - first >= DIFFERENT:
        return None
    if last > ERROR_COSINE and 1 - last < ERROR_SHARE * (1 - first):
        return Severity.ERROR
    return Severity.WARNING if last > WARNING_COSINE and 1 - last < WARNING_SHARE * (1 - first) else None


def stays_collapsed(stack: Stack) -> bool:
    """Whether tokens are all alike on each probed step of the second half."""
    rows = np.flatnonzero(np.isfinite(stack.token_cosine[:, -1]))
    later = rows[len(rows) // 2 :]
    return len(later) >= FEWEST_PROBES and all(severity_at(stack, row) is Severity.ERROR for row in later)


def finding(recording: Recording, stack: Stack, row: int, severity: Severity, when: str) -> Finding:
    """The finding for one stack, with the numbers of one probed step."""
    first, last = float(stack.token_cosine[row, 0]), float(stack.token_cosine[row, -1])
    return check.finding(
        f"all tokens become alike {when}: their cosine similarity is {first:.2f} after {stack.names[0]}"
        f" but {last:.4f} after {stack.names[-1]}",
        "residual connections around attention and feed-forward network; normalise the input of each branch instead of"
        " the stream (pre-LN, norm_first=True); or smaller initial weights of what writes to the stream",
        severity=severity,
        layer=stack.layer,
        step=int(recording.probes.steps[row]),
        evidence={
            **stack.evidence,
            "first_cosine": first,
            "last_cosine": last,
            "error_at": ERROR_COSINE,
            "warning_at": WARNING_COSINE,
        },
    )
