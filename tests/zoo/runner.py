"""Profile a specimen and judge what gradcheck said of it."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

from gradcheck_cli import pipeline
from gradcheck_cli.config import Settings
from gradcheck_cli.records import Finding, Severity
from tests.zoo.specimen import Specimen

SEEDS = (0, 1)
STEPS = 25


@dataclass(frozen=True)
class Result:
    """What was found in one run of `seconds`."""

    specimen: Specimen
    seed: int
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """Errors and warnings."""
        return tuple(finding for finding in self.findings if finding.severity is not Severity.INFO)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Errors."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def right(self) -> bool:
        """No alarm on a healthy model; on a broken one all of its codes, severe enough."""
        if not self.specimen.codes:
            return not self.alarms
        least = self.specimen.severity.rank
        return {one.code for one in self.findings if one.severity.rank >= least}.issuperset(self.specimen.codes)

    @property
    def said(self) -> str:
        """The codes, errors first: GC101 error, GC108 info; of several the most severe."""
        worst: dict[str, Severity] = {}
        for one in sorted(self.findings, key=lambda finding: (-finding.severity.rank, finding.code)):
            worst.setdefault(one.code, one.severity)
        return ", ".join(f"{code} {severity.value}" for code, severity in worst.items())


def run(specimen: Specimen, seed: int) -> Result:
    """Profile it. Raises AssertionError where the run failed."""
    settings = Settings(**{"steps": STEPS, "seed": seed, "quiet": True, "check_scale": True, **specimen.settings})
    began = perf_counter()
    with quiet():
        report, error = pipeline.profile(specimen.target, settings)
    assert error is None, error
    return Result(specimen, seed, report.diagnosis.findings, perf_counter() - began)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and prints of what runs inside."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
