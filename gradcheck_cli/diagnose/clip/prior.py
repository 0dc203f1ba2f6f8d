"""What the field uses for a kind of model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gradcheck_cli.clip_advice import Prior
from gradcheck_cli.records import Floats, ModuleInfo

APART = 3.0
"""A measured value that is so many times outside the usual ones disagrees with them."""


@dataclass(frozen=True)
class Practice:
    """Usual values of max_norm for models with a module whose class is called like `pattern`."""

    kind: str
    pattern: str
    low: float
    high: float
    clips_rarely: bool = False


# The first that fits: a policy may be a transformer, and a vision transformer has a convolution.
PRACTICES = (
    Practice("reinforcement learning", r"Actor|Critic|Policy|QNet|DQN|PPO", 0.5, 0.5),
    Practice("transformer", r"Attention|Transformer|GPT|Bert|Llama|T5|ViT", 1.0, 1.0),
    Practice("recurrent network", r"LSTM|GRU|RNN", 0.5, 5.0),
    Practice("convolutional network", r"Conv|ResNet", 1.0, 10.0, clips_rarely=True),
)


def recall_practice(modules: Iterable[ModuleInfo], max_norm: float | None, norms: Floats) -> Prior | None:
    """What is usual for the model that these modules make, next to the measured value; None for no known kind.

    `norms` (n,) are the kept ones: they say how often the usual value would clip.
    """
    types = [module.type for module in modules]
    for practice in PRACTICES:
        if any(re.search(practice.pattern, name) for name in types):
            return compare(practice, max_norm, norms)
    return None


def compare(practice: Practice, max_norm: float | None, norms: Floats) -> Prior:
    """The usual values against the measured one; where they disagree, what the nearest of them would do here."""
    low, high = practice.low, practice.high
    if max_norm is None:
        return Prior(practice.kind, low, high, practice.clips_rarely, None, "")
    agrees = low / APART <= max_norm <= high * APART
    nearest = low if max_norm < low else high
    rate = 100 * float((norms > nearest).mean())
    sentence = "" if agrees else f"{nearest:g} would clip {rate:.3g} % of these steps"
    return Prior(practice.kind, low, high, practice.clips_rarely, agrees, sentence)
