"""All rules, in the order of their codes. A new rule is a file here and a line in RULES."""

from __future__ import annotations

from gradcheck_cli.diagnose.rule import Rule
from gradcheck_cli.diagnose.rules import parameter_not_optimized

RULES: tuple[Rule, ...] = (parameter_not_optimized.check,)
