"""From a recording to a report, without torch: what `gradcheck report` does with a saved run."""

from __future__ import annotations

from gradcheck_cli.config import Settings
from gradcheck_cli.diagnose.diagnosis import check_codes, diagnose, selected
from gradcheck_cli.diagnose.layers import summarise
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rules import RULES
from gradcheck_cli.errors import ConfigError, GradcheckError
from gradcheck_cli.records import Recording, Report, Severity


def check_selection(settings: Settings) -> None:
    """Raise ConfigError for a code that no rule has; worth asking before a long run."""
    check_codes((*settings.select, *settings.ignore))
    for code in settings.severity:
        if not any(code == rule.code for rule in RULES):
            raise ConfigError(f"severity: there is no rule {code}", "gradcheck rules lists the codes")


def make_report(command: str, recording: Recording, settings: Settings, error: GradcheckError | None = None) -> Report:
    """Judge a recording and gather what a renderer needs; the exit code is 2 for a run that failed.

    Raises ConfigError where `check_selection` does.
    """
    check_selection(settings)
    limits = Limits(large=settings.large, tiny=settings.tiny)
    diagnosis = diagnose(recording, limits, settings.select, settings.ignore, settings.severity)
    worst = max((finding.severity.rank for finding in diagnosis.findings), default=-1)
    failing = settings.fail_on != "never" and worst >= Severity(settings.fail_on).rank
    return Report(
        command=command,
        run=recording.run,
        series=recording.series,
        layers=summarise(recording, diagnosis.findings),
        diagnosis=diagnosis,
        rules=tuple(rule.info for rule in RULES if selected(rule, settings.select, settings.ignore)),
        parameter_count=sum(parameter.numel for parameter in recording.parameters),
        trainable_count=sum(parameter.numel for parameter in recording.parameters if parameter.requires_grad),
        exit_code=2 if error else int(failing),
        error=error.message if error else "",
        recording=recording,
    )
