"""The rules that a report speaks of."""

from __future__ import annotations

from gradcheck_cli.records import Report, RuleInfo, Severity


def rules_mentioned(report: Report) -> tuple[RuleInfo, ...]:
    """Those that ran, and those that a finding or a reason names besides, in the order of their codes."""
    diagnosis = report.diagnosis
    named = {one.code: RuleInfo(one.code, one.name, Severity.WARNING, "") for one in diagnosis.not_evaluated}
    named |= {one.code: RuleInfo(one.code, one.name, one.severity, "") for one in diagnosis.findings}
    named |= {rule.code: rule for rule in report.rules}
    return tuple(named[code] for code in sorted(named))
