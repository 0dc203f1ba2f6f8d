"""What a script's own max_norm does to its steps, by the rules of recommend-clip."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from gradcheck_cli.clip_advice import ClipSettings
from gradcheck_cli.diagnose.clip.advice import advise
from gradcheck_cli.diagnose.clip.rules import CLIP_RULES
from gradcheck_cli.diagnose.diagnosis import selected
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.records import Finding, Recording, Severity

CODES = ("GC401", "GC402")
"""That it never acts, and that it always acts: they can be told of a run that was clipped."""
HINT = "gradcheck recommend-clip on the same script recommends a value, or says that none is needed"


def judge_own_clipping(
    recording: Recording,
    settings: ClipSettings,
    select: Collection[str] = (),
    ignore: Collection[str] = (),
    severities: Mapping[str, Severity] | None = None,
) -> tuple[Finding, ...]:
    """The findings on the value that a script clips at; none where it does not, or where the loop is gradcheck's."""
    own = recording.run.max_norm
    if recording.audit is None or own is None:
        return ()
    advice = advise(recording, replace(settings, max_norm=own), ())
    rules = [rule for rule in CLIP_RULES if rule.code in CODES and selected(rule, select, ignore)]
    found = [one for rule in rules for one in rule.check(advice, Limits()) if isinstance(one, Finding)]
    left_out = len(recording.series) - advice.n
    more = f" ({left_out} more, of the warm-up or without a finite norm, do not count)" if left_out else ""
    return tuple(
        replace(one, message=one.message + more, hint=HINT, severity=(severities or {}).get(one.code, one.severity))
        for one in found
    )
