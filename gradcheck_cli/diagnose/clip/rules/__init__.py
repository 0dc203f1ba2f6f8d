"""The rules on clipping, in the order of their codes: they judge the advice of recommend-clip, not a recording."""

from __future__ import annotations

from gradcheck_cli.clip_advice import ClipAdvice
from gradcheck_cli.diagnose.clip.rules import (
    clip_always_acts,
    clip_needed,
    clip_never_acts,
    one_layer_dominates,
    too_few_steps,
)
from gradcheck_cli.diagnose.rule import Rule

CLIP_RULES: tuple[Rule[ClipAdvice], ...] = (
    clip_never_acts.check,
    clip_always_acts.check,
    clip_needed.check,
    one_layer_dominates.check,
    too_few_steps.check,
)
