"""A report beside its baseline, and a report as a new baseline; without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from gradcheck_cli import baseline_file
from gradcheck_cli.baseline import AcceptedFinding, Baseline, Section, Tolerances
from gradcheck_cli.baseline_file import BaselineError
from gradcheck_cli.comparison import Comparison
from gradcheck_cli.config import Settings
from gradcheck_cli.diagnose.baseline import novelty
from gradcheck_cli.diagnose.baseline.change import Change
from gradcheck_cli.diagnose.baseline.comparing import find_gone, make_section, say_better, say_not_compared
from gradcheck_cli.diagnose.baseline.matching import match
from gradcheck_cli.diagnose.baseline.rules import SHIFT_RULES
from gradcheck_cli.diagnose.diagnosis import locate, selected
from gradcheck_cli.diagnose.layers import summarise
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.linking import link
from gradcheck_cli.errors import ConfigError
from gradcheck_cli.judgement import choose_exit_code
from gradcheck_cli.records import Finding, Report


@dataclass(frozen=True)
class Gate:
    """A run's baselines: `then` to hold it against, if any; `kept` is what the file to write, `path`, holds already."""

    settings: Settings
    then: Baseline | None = None
    kept: Baseline = field(default_factory=Baseline)
    path: Path | None = None

    def judge(self, report: Report) -> Report:
        """The report with what it has become since the baseline; the same where there is none.

        New findings, known ones that have worsened, and shifts decide on the exit code; accepted ones do not. Raises
        BaselineError where the baseline has nothing of this command.
        """
        if self.then is None:
            return report
        sections = find_sections(self.then, report.command, str(self.settings.baseline))
        models = (replace(report, others=()), *report.others)
        first, *others = [compare(one, sections.get(one.run.model), self.settings) for one in models]
        first = note_missing(first, set(sections) - {one.run.model for one in models})
        code = max(one.exit_code for one in (first, *others))
        return replace(first, others=tuple(others), exit_code=code)

    def renew(self, report: Report) -> str:
        """What to write to `path`: this command's sections anew, or only with what was accepted; all else is kept.

        Raises ConfigError for an `accept` that fits no finding.
        """
        reports, sections = (report, *report.others), self.kept.of(report.command)
        check_accepted(self.settings, reports)
        if self.settings.write_baseline:
            renewed = [renew_section(one, sections.get(one.run.model), self.settings) for one in reports]
            return baseline_file.dumps(self.kept.replacing(report.command, renewed))
        for one in reports:
            if accepted := find_accepted(one, self.settings):
                section = sections.get(one.run.model) or replace(make_section(one), findings=())
                sections[one.run.model] = section.accepting(accepted)
        return baseline_file.dumps(self.kept.replacing(report.command, sections.values()))


def open_gate(command: str, settings: Settings) -> Gate:
    """Read the baselines that the settings name; worth doing before the run.

    Raises BaselineError for a file that cannot be read, or has nothing of the command; ConfigError for `accept` without
    a baseline to write it to.
    """
    if settings.accept and not (settings.baseline or settings.write_baseline):
        raise ConfigError("--accept needs a baseline to write to", "add --baseline FILE or --write-baseline FILE")
    then = baseline_file.load(Path(settings.baseline)) if settings.baseline else None
    if then is not None:
        find_sections(then, command, str(settings.baseline))
    if not settings.write_baseline:
        path = Path(settings.baseline).absolute() if settings.baseline and settings.accept else None
        return Gate(settings, then, then or Baseline(), path)
    path = Path(settings.write_baseline).absolute()
    return Gate(settings, then, baseline_file.load(path) if path.exists() else Baseline(), path)


def find_sections(baseline: Baseline, command: str, path: str) -> dict[str, Section]:
    """A command's sections by model. Raises BaselineError where there are none."""
    if sections := baseline.of(command):
        return sections
    hint = f"gradcheck {command} TARGET --write-baseline {path} adds it"
    raise BaselineError(f"the baseline {path} has nothing of {command}", hint)


def compare(report: Report, then: Section | None, settings: Settings) -> Report:
    """A report on one model beside its section: with shifts among the findings, a comparison and another exit code.

    Where the baseline does not have the model, all is new.
    """
    return set_beside(report, make_section(report), then, settings)


def set_beside(report: Report, now: Section, then: Section | None, settings: Settings) -> Report:
    """The same, where the report's own section is already made."""
    section = then or Section(now.command, now.model, now.run)
    matching = match(section.measures.layers, now.measures.layers)
    change = Change(section.measures, now.measures, matching, Tolerances(**settings.tolerances))
    report = add_shifts(report, change, settings)
    section = section.accepting(find_accepted(report, settings))
    states = novelty.sort_out(report.diagnosis.findings, section, change)
    unknown = () if then else (f"the baseline does not have the model {now.model}".rstrip(),)
    comparison = describe(report, section, change, states)
    counted = [one for one in report.diagnosis.findings if states[one.fingerprint] == novelty.NEW]
    return replace(
        report,
        comparison=replace(
            comparison, baseline=str(settings.baseline), not_compared=(*unknown, *comparison.not_compared)
        ),
        exit_code=2 if report.exit_code == 2 else choose_exit_code(counted, settings, None),
    )


def add_shifts(report: Report, change: Change, settings: Settings) -> Report:
    """The report with the findings of the selected rules on shifts, and these rules."""
    rules = [rule for rule in SHIFT_RULES if selected(rule, settings.select, settings.ignore)]
    found = [one for rule in rules for one in rule.check(change, Limits()) if isinstance(one, Finding)]
    report = replace(report, rules=(*report.rules, *(rule.info for rule in rules)))
    if not found or report.recording is None:
        return report
    shifts = [
        replace(
            one,
            severity=settings.severity.get(one.code, one.severity),
            location=locate(report.recording, one.layer),
        )
        for one in found
    ]
    findings = link((*report.diagnosis.findings, *shifts), report.recording)
    return replace(
        report,
        diagnosis=replace(report.diagnosis, findings=findings),
        layers=summarise(report.recording, findings) if report.layers else (),
    )


def describe(report: Report, section: Section, change: Change, states: dict[str, str]) -> Comparison:
    """What has become of the run; `states` are those of its findings."""
    findings = report.diagnosis.findings
    codes = {rule.code for rule in report.rules} - {one.code for one in report.diagnosis.not_evaluated}

    reasons = novelty.give_reasons(findings, section, change)

    def those(state: str) -> tuple[str, ...]:
        return tuple(name for name, own in states.items() if own == state)

    return Comparison(
        baseline="",
        new=those(novelty.NEW),
        known=those(novelty.KNOWN),
        uncertain=those(novelty.UNCERTAIN),
        accepted={name: why for name, why in reasons.items() if states[name] == novelty.ACCEPTED},
        gone=tuple(find_gone(section, findings, codes, change)),
        better=tuple(say_better(section, findings, change)),
        renamed=change.matching.renamed,
        added=change.matching.added,
        removed=change.matching.removed,
        not_compared=tuple(say_not_compared(section, report)),
    )


def note_missing(report: Report, models: Iterable[str]) -> Report:
    """The report, saying which models of the baseline the run did not train."""
    assert report.comparison is not None
    notes = tuple(f"the model {model} of the baseline was not trained in this run" for model in sorted(models))
    return replace(report, comparison=replace(report.comparison, not_compared=report.comparison.not_compared + notes))


def find_accepted(report: Report, settings: Settings) -> list[AcceptedFinding]:
    """The findings that the settings accept, with their reasons."""
    return [
        AcceptedFinding(one.fingerprint, reason, tuple(novelty.remember(one).layers))
        for wanted, reason in settings.accept
        for one in report.diagnosis.findings
        if is_meant(wanted, one)
    ]


def is_meant(wanted: str, finding: Finding) -> bool:
    """Whether CODE or CODE:LAYER means this finding; a `*` in LAYER stands for anything."""
    code, colon, layer = wanted.partition(":")
    return finding.code == code and (not colon or fnmatchcase(finding.layer or "", layer))


def check_accepted(settings: Settings, reports: Iterable[Report]) -> None:
    """Raise ConfigError for an `accept` that means no finding of any report."""
    findings = [one for report in reports for one in report.diagnosis.findings]
    for wanted, _ in settings.accept:
        if not any(is_meant(wanted, one) for one in findings):
            there = ", ".join(dict.fromkeys(one.fingerprint.rstrip(":") for one in findings))
            hint = f"there are: {there}" if there else "there are no findings at all"
            raise ConfigError(f"--accept {wanted}: this run has no such finding", hint)


def renew_section(report: Report, old: Section | None, settings: Settings) -> Section:
    """A report as a section; what was accepted stays accepted, under the names that layers have now."""
    section = make_section(report)
    kept = carry_over(old, section) if old else ()
    return section.accepting((*kept, *find_accepted(report, settings)))


def carry_over(old: Section, new: Section) -> Iterator[AcceptedFinding]:
    """What a section has accepted, by the names of another one's layers."""
    translate = match(old.measures.layers, new.measures.layers).translate
    for one in old.accepted:
        code, _, layer = one.fingerprint.partition(":")
        yield AcceptedFinding(f"{code}:{translate(layer)}", one.reason, tuple(map(translate, one.layers)))
