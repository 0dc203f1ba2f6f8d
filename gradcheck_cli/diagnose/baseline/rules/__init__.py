"""The rules that set a run beside its baseline. They judge a `Change`, where there is one."""

from __future__ import annotations

from gradcheck_cli.diagnose.baseline.change import Change
from gradcheck_cli.diagnose.baseline.rules import (
    activation_shift,
    depth_slope_shift,
    gradient_shift,
    lost_gradient,
    max_norm_shift,
)
from gradcheck_cli.diagnose.rule import Rule

SHIFT_RULES: tuple[Rule[Change], ...] = (
    depth_slope_shift.check,
    gradient_shift.check,
    activation_shift.check,
    lost_gradient.check,
    max_norm_shift.check,
)
