"""What a cause is: a pattern that is known to make NaN or Inf, with its explanation and its repair."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from gradcheck_cli.diagnose.nan.evidence import Evidence

Predicate = Callable[[Evidence], bool]
Wording = Callable[[Evidence], str]

FORWARD = ("forward", "loss")
BACKWARD = ("backward",)
ANY = ("forward", "loss", "backward", "clip", "optimizer")


def always(evidence: Evidence) -> bool:
    """The operator and the phase say it all."""
    return True


@dataclass(frozen=True)
class Cause:
    """One entry of the catalogue.

    `phases` and `ops` (short names, () for all) are where it can be, `applies_if` what must be so besides; `because`
    says it with the numbers of the case, `repair` gives code. `refusal` is what the line or the operator looks like (a
    regular expression) where torch raises an error in place of making a NaN. `what_happens` and `how_to_fix` are
    Markdown.
    """

    id: str
    title: str
    phases: tuple[str, ...]
    ops: tuple[str, ...]
    what_happens: str
    how_to_fix: str
    because: Wording
    repair: Wording
    applies_if: Predicate = always
    refusal: str | None = None

    def applies(self, evidence: Evidence) -> bool:
        """Whether this is what happened."""
        if evidence.refused:
            return self.refusal is not None and re.search(self.refusal, f"{evidence.text} {evidence.op}") is not None
        placed = evidence.phase in self.phases and (not self.ops or evidence.op in self.ops)
        return placed and self.applies_if(evidence)

    def explain(self, evidence: Evidence) -> str:
        """Why, in one sentence with the numbers of the inputs."""
        return self.because(evidence)

    def fix(self, evidence: Evidence) -> str:
        """Code that avoids it, made from the user's own expression where that can be read."""
        return self.repair(evidence)

    @property
    def documentation(self) -> str:
        """As Markdown."""
        return f"# {self.title}\n\n## What happens\n\n{self.what_happens}\n\n## How to fix\n\n{self.how_to_fix}"
