"""The commands without their shell: drive a workload, observe it, diagnose what was seen, make a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gradcheck_cli import loggers
from gradcheck_cli.config import Settings
from gradcheck_cli.drive.ranks.group import ALONE, Group
from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.judgement import make_audit_report, make_report
from gradcheck_cli.pipeline import clipping, nan_tracing, profiling, script_tracing, scripting
from gradcheck_cli.pipeline.preparation import Built, Progress, Watcher, ignore
from gradcheck_cli.records import Report
from gradcheck_cli.targets import Script

__all__ = ["Built", "Progress", "Watcher", "audit", "nan_trace", "profile", "recommend_clip"]

Result = tuple[Report, GradcheckError | None]
"""A report, and the error of the user's that ended the run early, if any did."""


def profile(target: str | Script | Built, settings: Settings, watch: Watcher = ignore, group: Group = ALONE) -> Result:
    """Train the target and report on its gradients. Raises GradcheckError when nothing could be recorded at all.

    Every rank of a `group` calls it, and gets a report on the run of all.
    """
    settings = check_log(settings, group)
    if isinstance(target, Script):
        return scripting.report_on(target, settings, watch, lambda *seen: make_report("profile", *seen))
    return profiling.profile(target, settings, watch, group)


def audit(script: Script, settings: Settings, watch: Watcher = ignore) -> Result:
    """Run a script and report on its loop. Raises GradcheckError when nothing could be recorded at all."""
    settings = check_log(settings, ALONE)
    report, error = scripting.report_on(script, replace(settings, probe_every=0), watch, make_audit_report)
    return replace(report, others=()), error  # there is one loop, whatever it trains


def recommend_clip(target: str | Script, settings: Settings, watch: Watcher = ignore, group: Group = ALONE) -> Result:
    """Train the target and recommend a max_norm. Raises GradcheckError when nothing could be recorded at all.

    Every rank of a `group` calls it, and gets the same report.
    """
    settings = check_log(settings, group)
    if isinstance(target, Script):
        return clipping.recommend_clip_of_script(target, settings, watch)
    return clipping.recommend_clip(target, settings, watch, group)


def nan_trace(
    target: str | Script | Built,
    settings: Settings,
    watch: Watcher = ignore,
    save_repro: Path | None = None,
    group: Group = ALONE,
) -> Result:
    """Train the target until something is not finite, and report where it came from. Every rank of a `group` does."""
    if isinstance(target, Script):
        return script_tracing.nan_trace(target, settings, watch, save_repro)
    return nan_tracing.nan_trace(target, settings, watch, save_repro, group)


def check_log(settings: Settings, group: Group) -> Settings:
    """The settings with the loggers that the first rank writes to, checked."""
    return replace(settings, log=() if group.rank else loggers.check(settings.log))
