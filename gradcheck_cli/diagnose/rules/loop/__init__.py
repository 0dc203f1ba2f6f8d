"""The rules on a script's own loop, in the order of their codes: they judge what `Recording.audit` saw."""

from __future__ import annotations

from gradcheck_cli.diagnose.rule import Rule
from gradcheck_cli.diagnose.rules.loop import (
    accumulation_not_scaled,
    clip_after_step,
    clip_before_unscale,
    clip_by_value,
    clip_each_micro_batch,
    eval_mode_training,
    last_window_dropped,
    missing_zero_grad,
    nan_guard_hides_problem,
    no_clip_with_recurrence_or_transformer,
    optimizer_holds_stale_parameters,
    scheduler_before_step,
    step_bypasses_scaler,
    unscale_twice,
    zero_grad_inside_accumulation,
)
from gradcheck_cli.records import Recording

LOOP_RULES: tuple[Rule[Recording], ...] = (
    clip_after_step.check,
    clip_before_unscale.check,
    accumulation_not_scaled.check,
    missing_zero_grad.check,
    zero_grad_inside_accumulation.check,
    step_bypasses_scaler.check,
    unscale_twice.check,
    clip_each_micro_batch.check,
    clip_by_value.check,
    scheduler_before_step.check,
    last_window_dropped.check,
    optimizer_holds_stale_parameters.check,
    eval_mode_training.check,
    no_clip_with_recurrence_or_transformer.check,
    nan_guard_hides_problem.check,
)
