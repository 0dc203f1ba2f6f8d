"""Which finding can explain which other, and what must be so besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gradcheck_cli.diagnose import link_conditions as when
from gradcheck_cli.diagnose.link_conditions import Placed
from gradcheck_cli.records import Finding, Recording, Severity

Condition = Callable[[Placed, Placed, Recording], bool]


def kind(finding: Finding) -> str:
    """The code; of rules that find several things, with the one that was found."""
    read = FACES.get(finding.code)
    return f"{finding.code} {read(finding.evidence)}" if read else finding.code


def zero_gradient(evidence: Mapping[str, Any]) -> str:
    """Spare: its like get a gradient. Starved: its input is zero, since its bias gets a gradient. Else cut off."""
    if evidence.get("siblings_with_gradient"):
        return "spare"
    return "starved" if evidence.get("parameters_with_gradient") else "cut off"


def recurrent_matrix(evidence: Mapping[str, Any]) -> str:
    """Whether it makes the gradient grow from time step to time step, or shrink."""
    gain = evidence.get("spectral_radius", 0.0) * evidence.get("largest_slope", 1.0)
    return "growing" if gain > evidence.get("information_above_radius_times_slope", 1.0) else "shrinking"


FACES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "GC104": zero_gradient,
    "GC601": lambda evidence: "small" if evidence.get("explained_decades", 0.0) > 0 else "large",
    "GC604": lambda evidence: "grown" if "first_logit_std" in evidence else "initial",
    "GC606": lambda evidence: "vanishing" if "faded_after_steps" in evidence else "exploding",
    "GC607": recurrent_matrix,
    "GC609": lambda evidence: "small" if evidence.get("which") == "too small" else "large",
    "GC611": lambda evidence: "large" if evidence.get("ratio", 1.0) > 1 else "small",
    "GC613": lambda evidence: "constant" if evidence.get("probes") else "NaN",
}

CAUSES: Mapping[str, Mapping[str, Condition]] = {
    "GC101": {"GC601 small": when.meets, "GC602": when.meets, "GC603": when.meets, "GC605": when.meets},
    "GC102": {
        "GC601 large": when.meets,
        "GC604 initial": when.meets,
        "GC606 exploding": when.meets,
        "GC608": when.meets,
    },
    "GC103": {"GC513": when.always},
    "GC106": {"GC513": when.always},
    "GC104 cut off": {
        "GC101": when.meets,
        "GC602": when.upstream,
        "GC603": when.upstream,
        "GC604 initial": when.meets,
        "GC613 constant": when.reaches_end,
    },
    "GC104 starved": {"GC603": when.always},
    "GC107": {
        "GC102": when.always,
        "GC201": when.only_spikes,
        "GC203": when.rose_above,
        "GC204": when.rose_above,
        "GC306": when.rose_above,
        "GC502": when.always,
        "GC504": when.always,
        "GC506": when.always,
        "GC606 exploding": when.always,
        "GC609 large": when.rose_above,
        "GC611 large": when.always,
        "GC612": when.only_spikes,
    },
    "GC108": {
        "GC101": when.meets,
        "GC602": when.upstream,
        "GC603": when.upstream,
        "GC604 initial": when.meets,
        "GC606 vanishing": when.meets,
        "GC611 small": when.always,
    },
    "GC201": {
        "GC102": when.always,
        "GC202": when.same_step,
        "GC203": when.in_rise,
        "GC604 grown": when.always,
        "GC604 initial": when.always,
        "GC606 exploding": when.always,
        "GC609 large": when.always,
        "GC612": when.same_step,
    },
    "GC202": {"GC201": when.step_before, "GC203": when.in_rise, "GC609 large": when.always, "GC612": when.at_or_before},
    "GC203": {
        "GC102": when.always,
        "GC504": when.always,
        "GC604 grown": when.always,
        "GC604 initial": when.always,
        "GC606 exploding": when.always,
        "GC609 large": when.always,
    },
    "GC204": {
        "GC102": when.always,
        "GC203": when.always,
        "GC306": when.always,
        "GC504": when.always,
        "GC604 grown": when.always,
        "GC604 initial": when.always,
        "GC606 exploding": when.always,
        "GC609 large": when.always,
    },
    "GC301": {
        "GC102": when.ran_away,
        "GC203": when.ran_away,
        "GC303": when.earlier,
        "GC304": when.same_batch,
        "GC306": when.ran_away,
        "GC606 exploding": when.ran_away,
        "GC609 large": when.ran_away,
        "GC613 NaN": when.earlier,
    },
    "GC302": {
        "GC102": when.ran_away,
        "GC203": when.ran_away,
        "GC301": when.from_loss,
        "GC303": when.earlier,
        "GC304": when.same_batch,
        "GC306": when.ran_away,
        "GC606 exploding": when.ran_away,
        "GC609 large": when.ran_away,
    },
    "GC303": {
        "GC203": when.ran_away,
        "GC302": when.reached_weights,
        "GC306": when.ran_away,
        "GC609 large": when.ran_away,
    },
    "GC305": {"GC301": when.most_skips},
    "GC306": {"GC102": when.grew, "GC203": when.grew, "GC609 large": when.grew},
    "GC402": {"GC502": when.always},
    "GC515": {"GC201": when.always},
    "GC602": {"GC306": when.developed, "GC601 large": when.meets, "GC609 large": when.developed},
    "GC603": {"GC306": when.developed, "GC609 large": when.developed},
    "GC604 grown": {"GC609 large": when.always},
    "GC604 initial": {"GC601 large": when.meets},
    "GC606 exploding": {"GC607 growing": when.meets},
    "GC606 vanishing": {"GC607 shrinking": when.meets},
    "GC608": {"GC601 large": when.meets},
    "GC609 large": {
        "GC102": when.scales_updates,
        "GC606 exploding": when.scales_updates,
        "GC611 large": when.scales_updates,
    },
    "GC609 small": {"GC611 small": when.scales_updates},
    "GC613 constant": {
        "GC101": when.always,
        "GC103": when.never_ran,
        "GC104 starved": when.always,
        "GC203": when.always,
        "GC601 small": when.always,
        "GC602": when.always,
        "GC603": when.some_layer_is_dead,
        "GC605": when.always,
        "GC606 exploding": when.always,
        "GC609 large": when.always,
    },
    "GC613 NaN": {
        "GC102": when.ran_away,
        "GC203": when.ran_away,
        "GC303": when.earlier,
        "GC304": when.same_batch,
        "GC306": when.ran_away,
        "GC606 exploding": when.ran_away,
        "GC609 large": when.ran_away,
    },
    "GC801": {
        "GC101": when.meets,
        "GC102": when.meets,
        "GC601 large": when.meets,
        "GC601 small": when.meets,
        "GC602": when.meets,
        "GC603": when.meets,
        "GC605": when.meets,
        "GC608": when.meets,
    },
    "GC802": {
        "GC101": when.always,  # all are held against the median layer, which moves with a stack
        "GC102": when.always,
        "GC106": when.meets,
        "GC801": when.always,
        "GC804": when.meets,
    },
    "GC803": {"GC602": when.meets, "GC603": when.meets, "GC801": when.meets},
    "GC804": {
        "GC103": when.named_in,
        "GC104 cut off": when.named_in,
        "GC104 starved": when.named_in,
        "GC603": when.upstream,
    },
}
"""What can be found, and by what it can be explained if a condition holds.

There are circles only of spikes and of values that are not finite, whose conditions ask for the order in time.
"""

FACTS = ("GC607", "GC612")
"""What is mere information and still explains something worse; all else that is information does no harm."""


def explains(cause: Placed, effect: Placed, recording: Recording) -> bool:
    """Whether the one finding explains the other."""
    condition = CAUSES.get(kind(effect.finding), {}).get(kind(cause.finding))
    if condition is None:
        return False
    harmless = cause.finding.severity is Severity.INFO and cause.finding.code not in FACTS
    return not (harmless and effect.finding.severity is not Severity.INFO) and condition(cause, effect, recording)
