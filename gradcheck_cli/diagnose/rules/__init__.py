"""All rules, in the order of their codes. A new rule is a file here and a line in RULES."""

from __future__ import annotations

from gradcheck_cli.diagnose.rule import Rule
from gradcheck_cli.diagnose.rules import (
    exploding_gradient,
    frozen_parameter,
    gradient_growth,
    gradient_spike,
    large_gradient,
    loss_divergence,
    loss_scale_collapse,
    loss_spike,
    nonfinite_gradient,
    nonfinite_input,
    nonfinite_loss,
    nonfinite_parameter,
    parameter_not_optimized,
    tiny_gradient,
    unused_parameter,
    vanishing_gradient,
    weight_blowup,
    zero_gradient,
)
from gradcheck_cli.records import Recording

RULES: tuple[Rule[Recording], ...] = (
    vanishing_gradient.check,
    exploding_gradient.check,
    unused_parameter.check,
    zero_gradient.check,
    frozen_parameter.check,
    parameter_not_optimized.check,
    large_gradient.check,
    tiny_gradient.check,
    gradient_spike.check,
    loss_spike.check,
    loss_divergence.check,
    gradient_growth.check,
    nonfinite_loss.check,
    nonfinite_gradient.check,
    nonfinite_parameter.check,
    nonfinite_input.check,
    loss_scale_collapse.check,
    weight_blowup.check,
)
