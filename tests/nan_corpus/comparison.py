"""nan-trace beside torch.autograd.detect_anomaly on the corpus: `make compare`."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from gradcheck_cli import pipeline
from gradcheck_cli.config import Settings
from gradcheck_cli.tape import NanTrace
from tests.nan_corpus.anomaly import NOTHING, RIGHT, WRONG, judge, said_by_anomaly
from tests.nan_corpus.corpus import Case
from tests.nan_corpus.plain_loop import load_corpus


def said_by_trace(case: Case) -> NanTrace:
    """What nan-trace finds."""
    report, _ = pipeline.nan_trace(case.target, replace(Settings(steps=8, quiet=True), **case.settings))
    assert report.trace is not None
    return report.trace


def judge_trace(case: Case, trace: NanTrace) -> str:
    """Right when phase, line, operator or source, and the number of origins are."""
    if not trace.origins:
        return NOTHING
    first = trace.origins[0]
    lines = sorted(origin.frame.location.line if origin.frame else -1 for origin in trace.origins)
    operators = (case.op,) if isinstance(case.op, str) else case.op
    is_right = (first.phase, first.source, lines) == (case.phase, case.source, case.lines)
    return RIGHT if is_right and (first.op in operators or not case.op) else WRONG


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and prints of what runs inside."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def main() -> None:
    """Print a row a case and how often each was right, wrong, or said nothing."""
    cases, controls = map(tuple, load_corpus())  # tracing imports their files again, which registers them again
    table = Table("case", "phase", "at fault", "detect_anomaly names", "", "nan-trace names", "")
    verdicts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for case in cases:
        with quiet():
            node, line = said_by_anomaly(case)
            trace = said_by_trace(case)
        both = judge(case, node, line), judge_trace(case, trace)
        for counter, verdict in zip(verdicts, both, strict=True):
            counter[verdict] += 1
        wanted = case.op if isinstance(case.op, str) else case.op[0]
        named = trace.origins[0].op or trace.origins[0].source if trace.origins else "-"
        table.add_row(case.name, case.phase, wanted or case.source, node or "-", both[0], named, both[1])
    with quiet():
        alarms = (
            sum(bool(said_by_anomaly(one)[0]) for one in controls),
            sum(bool(said_by_trace(one).sinks) for one in controls),
        )
    Console(width=160).print(table)
    for name, counter, number in zip(("detect_anomaly", "nan-trace"), verdicts, alarms, strict=True):
        counts = ", ".join(f"{counter[kind]} {kind}" for kind in (RIGHT, WRONG, NOTHING))
        print(f"{name:15} {len(cases)} failing cases: {counts}; {len(controls)} controls: {number} false alarms")


if __name__ == "__main__":
    main()
