"""pytest plugin: the fixture `gradcheck` and the marker of that name; see docs/pytest.md.

Loaded in every session of pytest: what it needs of gradcheck, and torch, is imported when a test asks for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gradcheck_cli.testing import Checks

NAME = "gradcheck"
MARKER = f"{NAME}(target, steps=50, ...): run gradcheck profile on a target before the test, and fail as it would"
SKIPPED = "gradcheck_not_evaluated"
"""The property of a test, also in JUnit's XML, with the codes of the rules that could not judge."""
CHECKS: pytest.StashKey[Checks] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARKER)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Refuse a file with a marker that cannot be understood, before any test runs."""
    report = yield
    items = [item for item in report.result or () if isinstance(item, pytest.Item)]
    faults = [f"{item.nodeid}: {fault}" for item in items if (fault := find_fault(item.get_closest_marker(NAME)))]
    if faults:
        report.outcome, report.longrepr, report.result = "failed", "\n".join(faults), []
    return report


def find_fault(marker: pytest.Mark | None) -> str:
    """What is wrong with a marker: it has no target, or settings that there are not."""
    if marker is None:
        return ""
    from gradcheck_cli.config_keywords import check_keywords
    from gradcheck_cli.errors import ConfigError

    settings = dict(marker.kwargs)
    if marker.args or not isinstance(settings.pop("target", None), str):
        return f'write @pytest.mark.{NAME}(target="train.py:build")'
    try:
        check_keywords(settings)
    except ConfigError as error:
        return "; ".join(filter(None, (error.message, error.hint)))
    return ""


def checks_of(item: Any) -> Checks:
    """What the fixture gives to a test: the same object throughout the test."""
    from gradcheck_cli.testing import Checks

    if CHECKS not in item.stash:
        item.stash[CHECKS] = Checks(item.config.rootpath, lambda codes: item.user_properties.append((SKIPPED, codes)))
    return item.stash[CHECKS]  # type: ignore[no-any-return]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Run what the marker asks for, before the test's body."""
    marker = item.get_closest_marker(NAME)
    if marker is None:
        return
    settings = dict(marker.kwargs)
    try:
        checks_of(item).check_target(settings.pop("target"), settings)
    except AssertionError as error:
        failure = str(error)
    else:
        return
    pytest.fail(failure, pytrace=False)


@pytest.fixture
def gradcheck(request: pytest.FixtureRequest) -> Checks:
    """`assert_healthy` and `assert_no_nan`, on a model and its data; `report` is the newest report."""
    return checks_of(request.node)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which rules could not judge: what was not evaluated has not passed."""
    reports = [one for outcome in ("passed", "failed") for one in terminalreporter.getreports(outcome)]
    properties = [one for report in reports if report.when == "call" for one in report.user_properties]
    runs = [str(codes).split() for name, codes in properties if name == SKIPPED]
    if runs:
        counted = sorted(Counter(code for codes in runs for code in codes).items())
        listed = ", ".join(f"{code} ({number})" for code, number in counted)
        terminalreporter.write_line(f"gradcheck: rules that could not judge, and in how many runs: {listed}")
