"""What one rule says of a recording."""

from __future__ import annotations

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Rule
from gradcheck_cli.records import Finding, NotEvaluated, Recording


def findings(rule: Rule, recording: Recording, limits: Limits | None = None) -> list[Finding]:
    return [outcome for outcome in rule.check(recording, limits or Limits()) if isinstance(outcome, Finding)]


def reasons(rule: Rule, recording: Recording) -> list[str]:
    """Why the rule could not judge the recording."""
    return [outcome.reason for outcome in rule.check(recording, Limits()) if isinstance(outcome, NotEvaluated)]


def silent(rule: Rule, recording: Recording) -> bool:
    """Whether the rule judged the recording, and found nothing."""
    return not list(rule.check(recording, Limits()))
