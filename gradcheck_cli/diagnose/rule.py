"""What a rule is: a check over a recording or an advice, its metadata taken from its own file's docstring."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.records import Finding, NotEvaluated, RuleInfo, Severity

Outcome = Finding | NotEvaluated
Subject = TypeVar("Subject")
Check = Callable[[Subject, Limits], Iterator[Outcome]]


@dataclass(frozen=True)
class Rule(Generic[Subject]):
    """A named check. `severity` is the one it usually reports; a single finding may deviate."""

    code: str
    name: str
    severity: Severity
    documentation: str
    check: Check[Subject]

    @property
    def info(self) -> RuleInfo:
        return RuleInfo(self.code, self.name, self.severity, self.documentation)

    def finding(self, message: str, hint: str, **fields: Any) -> Finding:
        """A finding of this rule; `fields` are those of `Finding`, `severity` by default the rule's own."""
        fields.setdefault("severity", self.severity)
        return Finding(code=self.code, name=self.name, message=message, hint=hint, **fields)

    def skip(self, reason: str) -> NotEvaluated:
        """Say that this rule could not judge, and why."""
        return NotEvaluated(self.code, self.name, reason)


def rule(code: str, name: str, severity: Severity) -> Callable[[Check[Subject]], Rule[Subject]]:
    """Make a rule of a check; the docstring of the check's file becomes its documentation."""

    def decorate(check: Check[Subject]) -> Rule[Subject]:
        documentation = sys.modules[check.__module__].__doc__ or ""
        return Rule(code, name, severity, documentation.strip(), check)

    return decorate
