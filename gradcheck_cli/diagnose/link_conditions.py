"""What must be so, besides the codes of two findings, for the one to explain the other.

A condition is a function of cause, effect and recording.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gradcheck_cli.diagnose.extent import Extent, layers_of
from gradcheck_cli.records import Finding, Floats, Recording

LOSS_RISE = 2.0  # as in GC203
NORM_RISE = 9.0
SHARE_RISE = 0.3


class Placed(NamedTuple):
    """A finding and the layers that it is of."""

    finding: Finding
    extent: Extent


def always(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """The one always explains the other."""
    return True


def meets(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """They have layers in common."""
    return cause.extent.meets(effect.extent)


def named_in(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """The cause names a layer of the effect, or a parameter in one."""
    layers = layers_of(effect.finding)
    return any(f"{name}.".startswith(f"{layer}.") for name in layers_of(cause.finding) for layer in layers)


def upstream(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """The effect lies where a gradient comes that has passed the cause."""
    return effect.extent.first <= cause.extent.last


def reaches_end(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """The last layer that learns is among those of the effect."""
    owners = {parameter.module for parameter in recording.trainable}
    return effect.extent.last >= max(
        (module.probe or 0 for module in recording.probed if module.name in owners), default=0
    )


def never_ran(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """The unused parameter's layer was not called."""
    return cause.finding.evidence.get("called") is False


def same_step(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """They are of one step."""
    return cause.finding.step == effect.finding.step


def step_before(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """The effect comes one step after the cause: the update in between carries it over."""
    return cause.finding.step is not None and cause.finding.step + 1 == effect.finding.step


def at_or_before(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """On the same step or the one after."""
    return same_step(cause, effect, recording) or step_before(cause, effect, recording)


def earlier(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """The cause was not finite before the effect was, in the order in which a step makes its values."""
    return moment(cause.finding) < moment(effect.finding)


def moment(finding: Finding) -> tuple[int, int]:
    """The step, and the place in it: parameters, inputs, scores, loss, gradient, parameters after the last step."""
    after = bool(finding.evidence.get("after_last_step"))
    order = {"GC303": 5 if after else 0, "GC304": 1, "GC613": 2, "GC301": 3, "GC302": 4}
    return finding.step or 0, order[finding.code]


def same_batch(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """The batch of the first bad step was bad itself."""
    return effect.finding.step in cause.finding.evidence.get("nonfinite_steps", ())


def from_loss(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """The gradient is that of a loss that was not finite."""
    return effect.finding.evidence.get("loss_is_finite") is False and earlier(cause, effect, recording)


def reached_weights(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """No scaler kept the gradient from the parameters."""
    return not cause.finding.evidence.get("skipped_by_scaler") and earlier(cause, effect, recording)


def most_skips(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """The loss was not finite on most of the steps that the scaler skipped."""
    skipped = recording.series.skipped
    return bool(2 * (skipped & ~np.isfinite(recording.series.loss)).sum() > skipped.sum() > 0)


def in_rise(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """The step of the effect is one at which the loss has risen beyond what counts as divergence."""
    losses, step = recording.series.loss, effect.finding.step
    return step is not None and bool(losses[step] > cause.finding.evidence.get("limit", np.inf))


def ran_away(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """Before it was not finite, loss or gradient norm had risen, and the data are not to blame."""
    series, step = recording.series, effect.finding.step or 0
    risen = has_risen(series.loss[:step], LOSS_RISE) or has_risen(series.grad_norm[:step], NORM_RISE)
    return risen and not series.nonfinite_inputs[step] > 0


def has_risen(values: Floats, times: float) -> bool:
    """Whether the last finite value is above the first by more than so many times its size."""
    finite = values[np.isfinite(values)]
    with np.errstate(over="ignore"):  # beyond 1e308 it is infinite, which compares as it should
        return len(finite) > 1 and bool(finite[-1] - finite[0] > times * abs(finite[0]))


def rose_above(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """The gradient norm began below the limit that it exceeds."""
    norms = recording.series.grad_norm[np.isfinite(recording.series.grad_norm)]
    return len(norms) > 0 and bool(norms[0] < effect.finding.evidence.get("limit", 0.0))


def only_spikes(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """The gradient norm is above the limit at no more steps than the spikes, the largest of them among these."""
    spikes = cause.finding.evidence.get("spikes", [cause.finding.step])
    return effect.finding.step in spikes and effect.finding.evidence.get("steps_above", np.inf) <= len(spikes)


def grew(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """The weights grew in training, rather than began large."""
    evidence = effect.finding.evidence
    return bool(evidence.get("growth", 0.0) >= evidence.get("growth_limit", np.inf))


def developed(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """Dead or saturated elements became more in training, rather than that they were from the start."""
    if recording.signals is None or not len(recording.probes.steps):
        return False
    table = recording.signals.activations
    share = table.zero if effect.finding.code == "GC603" else table.saturated
    return bool((share[-1] - share[0] > SHARE_RISE).any())


def scales_updates(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """The optimizer's updates grow with the gradient: those of Adam and its kin do not."""
    return recording.run.optimizer == "SGD" and meets(cause, effect, recording)


def some_layer_is_dead(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """No unit of one layer is alive, so that nothing passes."""
    return 1.0 in cause.finding.evidence.get("never_active", ())
