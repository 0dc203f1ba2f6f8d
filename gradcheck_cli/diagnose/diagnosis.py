"""Run the rules over a recording."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from gradcheck_cli.diagnose.baseline.rules import SHIFT_RULES
from gradcheck_cli.diagnose.clip.rules import CLIP_RULES
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.linking import link
from gradcheck_cli.diagnose.rule import Rule
from gradcheck_cli.diagnose.rules import RULES
from gradcheck_cli.diagnose.rules.loop import LOOP_RULES
from gradcheck_cli.diagnose.rules.ranks import RANK_RULES
from gradcheck_cli.errors import ConfigError
from gradcheck_cli.records import Diagnosis, Finding, Location, NotEvaluated, Recording, Severity

ALL_RULES: tuple[Rule[Any], ...] = tuple(
    sorted((*RULES, *CLIP_RULES, *LOOP_RULES, *RANK_RULES, *SHIFT_RULES), key=lambda rule: rule.code)
)


def diagnose(
    recording: Recording,
    limits: Limits | None = None,
    select: Collection[str] = (),
    ignore: Collection[str] = (),
    severities: Mapping[str, Severity] | None = None,
) -> Diagnosis:
    """Let every selected rule judge the recording; findings come most severe first, causes before what they explain.

    `select` and `ignore` hold codes or their beginnings ("GC1"); no `select` means all. `severities` overrides
    a code's severity.
    """
    outcomes = [
        outcome
        for rule in rules_for(recording)
        if selected(rule, select, ignore)
        for outcome in rule.check(recording, limits or Limits())
    ]
    overrides = severities or {}
    findings = [
        replace(
            outcome,
            severity=overrides.get(outcome.code, outcome.severity),
            location=outcome.location or locate(recording, outcome.layer),
        )
        for outcome in outcomes
        if isinstance(outcome, Finding)
    ]
    return Diagnosis(link(findings, recording), tuple(o for o in outcomes if isinstance(o, NotEvaluated)))


def rules_for(recording: Recording) -> tuple[Rule[Recording], ...]:
    """Those that can judge it: the loop is judged where it is a script's own; ranks where there are any."""
    loop = () if recording.audit is None else LOOP_RULES
    return (*RULES, *loop, *(() if recording.ranks is None else RANK_RULES))


def check_codes(codes: Iterable[str]) -> None:
    """Raise ConfigError for a code, or the beginning of one, that no rule has."""
    for code in codes:
        if not any(rule.code.startswith(code) for rule in ALL_RULES):
            raise ConfigError(f"there is no rule {code}", "gradcheck rules lists them")


def selected(rule: Rule[Any], select: Collection[str], ignore: Collection[str]) -> bool:
    """Whether a rule runs: named by `select` (or `select` is empty), and not by `ignore`."""
    wanted = not select or rule.code.startswith(tuple(select))
    return wanted and not rule.code.startswith(tuple(ignore))


def locate(recording: Recording, layer: str | None) -> Location | None:
    """The source of the innermost user-defined module around `layer`, or else the entrypoint's."""
    sources = {module.name: module.source for module in recording.modules if module.source}
    path = (layer or "").split(".")
    for length in range(len(path), 0, -1):
        if location := sources.get(".".join(path[:length])):
            return location
    return recording.run.location
