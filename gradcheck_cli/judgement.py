"""From what was measured to a report, without torch: what `gradcheck report` does with a saved run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradcheck_cli.clip_advice import ClipSettings, VerifiedRun
from gradcheck_cli.config import Settings
from gradcheck_cli.diagnose.clip.advice import advise
from gradcheck_cli.diagnose.clip.own_clipping import judge_own_clipping
from gradcheck_cli.diagnose.clip.rules import CLIP_RULES
from gradcheck_cli.diagnose.diagnosis import ALL_RULES, check_codes, diagnose, rules_for, selected
from gradcheck_cli.diagnose.layers import summarise
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.linking import link
from gradcheck_cli.diagnose.rules import RULES
from gradcheck_cli.errors import ConfigError, GradcheckError
from gradcheck_cli.ranks import Ranks
from gradcheck_cli.records import (
    Diagnosis,
    Finding,
    ParameterInfo,
    Recording,
    Report,
    RunInfo,
    Series,
    Severity,
)
from gradcheck_cli.report.trace_wording import describe_event, describe_unexplained
from gradcheck_cli.tape import NanOrigin, NanTrace, name_plainly

BY_SINK = {"loss": "GC301", "gradient": "GC302", "parameter": "GC303", "buffer": "GC303", "error": "GC301"}
BY_SOURCE = {"data": "GC304", "parameter": "GC303", "buffer": "GC303"}
EVIDENCE = ("cause", "verified", "kind", "phase", "op", "autograd_node", "source", "micro_batch", "samples", "sink")
AUDITED = ("GC401", "GC402", "GC5")
HIDDEN_BY_CLIPPING = ("GC102", "GC203", "GC301", "GC302", "GC303", "GC304")
NAN_RULES = {rule.code: rule for rule in RULES if rule.code in {*BY_SINK.values(), *BY_SOURCE.values()}}


def check_selection(settings: Settings) -> None:
    """Raise ConfigError for a code that no rule has; worth asking before a long run."""
    check_codes((*settings.select, *settings.ignore))
    for code in settings.severity:
        if not any(code == rule.code for rule in ALL_RULES):
            raise ConfigError(f"severity: there is no rule {code}", "gradcheck rules lists the codes")


def make_report(command: str, recording: Recording, settings: Settings, error: GradcheckError | None = None) -> Report:
    """Judge a recording and gather what a renderer needs; the exit code is 2 for a run that failed.

    Raises ConfigError where `check_selection` does.
    """
    check_selection(settings)
    limits = Limits(large=settings.large, tiny=settings.tiny)
    diagnosis = diagnose(recording, limits, settings.select, settings.ignore, settings.severity)
    if own := judge_own_clipping(recording, clip_settings(settings), *choice(settings)):
        diagnosis = replace(diagnosis, findings=link((*diagnosis.findings, *own), recording))
    return Report(
        command=command,
        run=recording.run,
        series=recording.series,
        layers=summarise(recording, diagnosis.findings),
        diagnosis=diagnosis,
        rules=tuple(rule.info for rule in rules_for(recording) if selected(rule, settings.select, settings.ignore)),
        parameter_count=count_elements(recording.parameters),
        trainable_count=count_elements(recording.trainable),
        exit_code=choose_exit_code(diagnosis.findings, settings, error),
        fail_on=settings.fail_on,
        error=error.message if error else "",
        recording=recording,
        ranks=recording.ranks,
    )


def make_audit_report(recording: Recording, settings: Settings, error: GradcheckError | None = None) -> Report:
    """As `make_report`, of a script's loop alone. Raises ConfigError where `check_selection` does."""
    report = make_report("audit", recording, replace(settings, select=settings.select or AUDITED), error)
    return replace(report, layers=())


def join_reports(reports: Sequence[Report]) -> Report:
    """Reports on the models of one run as one: the first, which holds the others; the exit code is the worst."""
    first, *others = reports
    return replace(first, others=tuple(others), exit_code=max(report.exit_code for report in reports))


def clip_settings(settings: Settings) -> ClipSettings:
    """What is asked of a recommendation."""
    return ClipSettings(settings.percentile, settings.horizon, settings.max_norm)


def choice(settings: Settings) -> tuple[tuple[str, ...], tuple[str, ...], Mapping[str, Severity]]:
    """Which rules are wanted, which not, and how severe they are."""
    return settings.select, settings.ignore, settings.severity


def make_trace_report(
    run: RunInfo,
    series: Series,
    trace: NanTrace,
    settings: Settings,
    error: GradcheckError | None = None,
    parameters: Sequence[ParameterInfo] = (),
    ranks: Ranks | None = None,
) -> Report:
    """Make findings of a trace and gather what a renderer needs; the exit code is 2 for a run that failed.

    Raises ConfigError where `check_selection` does.
    """
    check_selection(settings)
    trace = name_plainly(trace)
    rules = {rule.code: rule for rule in NAN_RULES.values() if selected(rule, settings.select, settings.ignore)}
    made = (rules[code].finding(**members) for code, members in outcomes(trace) if code in rules)
    findings = tuple(replace(one, severity=settings.severity.get(one.code, one.severity)) for one in made)
    return Report(
        command="nan-trace",
        run=run,
        series=series,
        layers=(),
        diagnosis=Diagnosis(findings, ()),
        rules=tuple(rule.info for rule in rules.values()),
        parameter_count=count_elements(parameters),
        trainable_count=count_elements(one for one in parameters if one.requires_grad),
        exit_code=choose_exit_code(findings, settings, error),
        fail_on=settings.fail_on,
        error=error.message if error else "",
        trace=trace,
        ranks=ranks,
    )


def make_clip_report(
    recording: Recording,
    settings: Settings,
    error: GradcheckError | None = None,
    verified: tuple[VerifiedRun, ...] = (),
) -> Report:
    """Judge a recording for clipping: what clipping would hide comes first, as errors of the rules that see it.

    A recording of a clipped run has its own max_norm judged, unless the settings name another.
    Raises ConfigError where `check_selection` does.
    """
    check_selection(settings)
    limits = Limits(large=settings.large, tiny=settings.tiny)
    lost = () if recording.parameters or np.isfinite(recording.series.loss).any() else ("GC301",)  # no loss was listed
    ill = diagnose(recording, limits, HIDDEN_BY_CLIPPING, (*settings.ignore, *lost), settings.severity)
    errors = tuple(finding for finding in ill.findings if finding.severity is Severity.ERROR)
    asked = clip_settings(replace(settings, max_norm=settings.max_norm or recording.run.max_norm))
    advice = replace(advise(recording, asked, errors), verified=verified)
    rules = tuple(rule for rule in CLIP_RULES if selected(rule, settings.select, settings.ignore))
    outcomes = [outcome for rule in rules for outcome in rule.check(advice, limits) if isinstance(outcome, Finding)]
    own = (replace(one, severity=settings.severity.get(one.code, one.severity)) for one in outcomes)
    shown = [one for one in errors if not settings.select or one.code.startswith(settings.select)]
    findings = link((*shown, *own), recording)
    return Report(
        command="recommend-clip",
        run=recording.run,
        series=recording.series,
        layers=(),
        diagnosis=Diagnosis(findings, ill.not_evaluated if recording.parameters else ()),
        rules=tuple(rule.info for rule in rules),
        parameter_count=count_elements(recording.parameters),
        trainable_count=count_elements(recording.trainable),
        exit_code=choose_exit_code(findings, settings, error),
        fail_on=settings.fail_on,
        error=error.message if error else "",
        recording=recording,
        ranks=recording.ranks,
        clip=advice,
    )


def choose_exit_code(findings: Iterable[Finding], settings: Settings, error: GradcheckError | None) -> int:
    """2 for a run that failed, 1 for a finding at or above `fail_on`, else 0."""
    worst = max((finding.severity.rank for finding in findings), default=-1)
    failing = settings.fail_on != "never" and worst >= Severity(settings.fail_on).rank
    return 2 if error else int(failing)


def count_elements(parameters: Iterable[ParameterInfo]) -> int:
    """How many elements the parameters have."""
    return sum(parameter.numel for parameter in parameters)


def outcomes(trace: NanTrace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Code and members of a finding for each origin; for what was seen, where there is no origin."""
    for origin in trace.origins:
        yield (
            BY_SOURCE.get(origin.phase) or BY_SINK.get(origin.sink.partition(" ")[0], "GC301"),
            members_of(origin, trace),
        )
    if not trace.clean and not trace.origins:
        sink = trace.sinks[0] if trace.sinks else None
        yield (
            BY_SINK.get(sink.what, "GC301") if sink else "GC301",
            {
                "message": "; ".join(filter(None, [describe_unexplained(trace), trace.error])),
                "hint": "; ".join(trace.notes),
                "step": trace.step,
                "evidence": {"cause": "", "verified": False, "reproduced": trace.reproduced},
            },
        )


def members_of(origin: NanOrigin, trace: NanTrace) -> dict[str, Any]:
    """A finding's members; its layer is None for what no module called."""
    event = describe_event(origin, trace)
    return {
        "message": f"{event}: {origin.explanation}" if origin.explanation else event,
        "hint": origin.fix,
        "layer": origin.module or None,
        "step": origin.step,
        "evidence": {name: getattr(origin, name) for name in EVIDENCE},
        "location": origin.frame.location if origin.frame else None,
    }
