"""python -m benchmarks.calibration: judge the promised clip rates on the runs that were kept, and write the tables.

python -m benchmarks.calibration.runs trains these runs again first.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.calibration.judgement import Method, Window, cut_windows, score
from benchmarks.calibration.methods import METHODS, promise_mixture
from benchmarks.calibration.runs import DEVELOPMENT, REPORTED, Run, load

PAGE = Path(__file__).parents[2] / "docs" / "recommend-clip.md"
BEGIN, END = "<!-- calibration: written by make calibration -->\n", "<!-- end of calibration -->"
HORIZONS = (100, 500, 1000)


def tables() -> str:
    """Both tables as Markdown: the methods over all horizons, and recommend-clip's promise by model."""
    windows = {horizon: windows_of(REPORTED, horizon) for horizon in HORIZONS}
    fitted = windows_of(DEVELOPMENT, 500)
    return "\n".join([*method_table(windows, fitted), "", *model_table(windows[500]), ""])


def windows_of(runs: tuple[Run, ...], horizon: int) -> list[Window]:
    """The windows in which a value can be had."""
    return [window for window in cut_windows(runs, load(), horizon) if window]


def method_table(windows: dict[int, list[Window]], fitted: list[Window]) -> list[str]:
    """A row for each method and horizon."""
    rows = ["| method | next steps | windows | held | median width | interval score |", "|---|---|---|---|---|---|"]
    for horizon, cut in windows.items():
        rows += [row(name, horizon, cut, method) for name, method in METHODS.items()]
    return [*rows, row("recommend-clip, on the runs it was fitted on", 500, fitted, promise_mixture)]


def model_table(windows: list[Window]) -> list[str]:
    """A row for each model, over the next 500 steps."""
    rows = ["| model | windows | held | median width | interval score |", "|---|---|---|---|---|"]
    for model in dict.fromkeys(window.model for window in windows):
        own = score([window for window in windows if window.model == model], promise_mixture)
        rows.append(f"| {model} | {own.windows} | {own.coverage:.1%} | {own.width:.1f} | {own.score:.1f} |")
    return rows


def row(name: str, horizon: int, windows: list[Window], method: Method) -> str:
    """One line of the methods' table."""
    result = score(windows, method)
    return (
        f"| {name} | {horizon} | {result.windows} | {result.coverage:.1%} | {result.width:.1f} | {result.score:.1f} |"
    )


def write(content: str) -> None:
    """Put the tables into the documentation."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{content}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    made = tables()
    print(made)
    write(made)
