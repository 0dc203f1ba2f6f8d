"""What is measured when training is over, on batches that it had; afterwards everything is as it was."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import torch

from gradcheck_cli.config import Settings
from gradcheck_cli.diagnose.diagnosis import selected
from gradcheck_cli.diagnose.rules import dominated_batch
from gradcheck_cli.drive.usercode import headline
from gradcheck_cli.drive.workload import Workload
from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.examination import Examination, SampleGradients, ScaleCheck
from gradcheck_cli.pipeline.kept_batches import KeptBatches, KeptStep
from gradcheck_cli.pipeline.kept_weights import KeptWeights
from gradcheck_cli.pipeline.rerun import Rerun
from gradcheck_cli.pipeline.sample_gradients import measure_samples
from gradcheck_cli.pipeline.scale_check import measure_scale
from gradcheck_cli.records import Recording

ENDED = {"interrupted": "the run was interrupted", "failed": "the run failed"}


def examine(
    recording: Recording, workload: Workload, device: torch.device, settings: Settings, kept: KeptBatches
) -> Examination:
    """Look at the last step's gradient if the settings say so, and at the samples of the worst step if there is one.

    A failure of the user's code, or Ctrl-C, is the reason why something was not measured.
    """
    worst = kept.worst if selected(dominated_batch.check, settings.select, settings.ignore) else None
    last = kept.last if settings.check_scale else None
    if not (last or worst):
        return Examination()
    if ended := ENDED.get(recording.run.ended):
        return unmeasured(last, worst, ended)
    try:
        return measure(recording, Rerun(workload, device), settings, last, worst, kept.weights)
    except (Exception, KeyboardInterrupt) as error:  # too little memory, say: the run's report must not be lost with it
        return unmeasured(last, worst, reason_of(error))


def unexamined(settings: Settings) -> Examination:
    """Of a run of several ranks: what was asked for was not measured."""
    return Examination(scale=ScaleCheck(reason="the run has several ranks")) if settings.check_scale else Examination()


def unmeasured(last: KeptStep | None, worst: KeptStep | None, reason: str) -> Examination:
    """The reason in place of what was asked for."""
    return Examination(
        scale=ScaleCheck(reason=reason) if last else None,
        samples=SampleGradients(worst.number, reason=reason) if worst else None,
    )


def measure(
    recording: Recording,
    rerun: Rerun,
    settings: Settings,
    last: KeptStep | None,
    worst: KeptStep | None,
    weights: KeptWeights,
) -> Examination:
    """What was asked for, each from the state after the run."""
    with ExitStack() as stack:
        if any(module.compiled for module in recording.modules):
            stack.enter_context(torch.compiler.set_stance("force_eager"))  # batches of one would be compiled anew
        stack.callback(rerun.restore)
        scale = check_scale(rerun, last, recording, settings) if last else None
        rerun.restore()
        return Examination(scale, check_samples(rerun, worst, weights) if worst else None)


def check_scale(rerun: Rerun, last: KeptStep, recording: Recording, settings: Settings) -> ScaleCheck:
    """The scale of the gradient, or why it could not be measured."""
    if not last.is_intact:
        return ScaleCheck(reason="the last batch was written to since")
    scales = recording.series.loss_scale[np.isfinite(recording.series.loss_scale)]
    try:
        return measure_scale(rerun, last.window, settings.precision, float(scales[-1]) if len(scales) else 1.0)
    except (GradcheckError, KeyboardInterrupt) as error:
        return ScaleCheck(reason=reason_of(error))


def check_samples(rerun: Rerun, worst: KeptStep, weights: KeptWeights) -> SampleGradients:
    """The gradients of the worst step's samples, or why they could not be measured."""
    try:
        return measure_samples(rerun, worst, weights)
    except (GradcheckError, KeyboardInterrupt) as error:
        return SampleGradients(worst.number, reason=reason_of(error))


def reason_of(error: BaseException) -> str:
    """What went wrong, in words."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return error.message if isinstance(error, GradcheckError) else headline(error)
