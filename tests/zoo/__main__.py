"""python -m tests.zoo [WORD ...]: profile the whole zoo, or the models with a word in their name; `make zoo`.

Without words the table of results is written into docs/profile.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import torch

from tests.zoo.runner import SEEDS, Result, run
from tests.zoo.specimen import Specimen, load_zoo

PAGE = Path(__file__).parents[2] / "docs" / "profile.md"
BEGIN, END = "<!-- zoo: written by make zoo -->\n", "<!-- end of zoo -->"


def main(words: Sequence[str]) -> None:
    """Print a line a run, then the totals."""
    torch.set_num_threads(1)
    chosen = [one for one in load_zoo() if not words or any(word in one.name for word in words)]
    present = [one for one in chosen if not one.missing]
    results = list(run_all(present))
    print("\n".join(["", *totals(results)]))
    if len(present) < len(chosen):
        missing = ", ".join(sorted({one.missing for one in chosen if one.missing}))
        print(f"left out {len(chosen) - len(present)} models, which need {missing}: pip install {missing}")
    elif not words:
        write("\n".join([*totals(results), "", *table(results), ""]))


def run_all(specimens: Iterable[Specimen]) -> Iterator[Result]:
    """Every specimen with every seed; each is printed as it is done."""
    for specimen in specimens:
        for seed in SEEDS:
            result = run(specimen, seed)
            verdict = "right" if result.right else "WRONG"
            wanted = f"  (wanted {' and '.join(specimen.codes)})" if specimen.codes and not result.right else ""
            line = f"{verdict}  {specimen.name:32} seed {seed}  {result.seconds:4.1f} s  {result.said or 'nothing'}"
            print(line + wanted, flush=True)
            yield result


def totals(results: Sequence[Result]) -> list[str]:
    """Two lines: false alarms on the healthy models, and how many of the broken ones were found."""
    healthy = [result for result in results if not result.specimen.codes]
    broken = [result for result in results if result.specimen.codes]
    errors, alarms = sum(len(result.errors) for result in healthy), sum(len(result.alarms) for result in healthy)
    found = sum(result.right for result in broken)
    share = f" ({found / len(broken):.1%})" if broken else ""
    return [
        f"Healthy: {len(healthy)} runs of {count(healthy)} models, {errors} errors and {alarms - errors} warnings.",
        "",
        f"Broken: {len(broken)} runs of {count(broken)} models, {found} found with the right code{share}.",
    ]


def count(results: Iterable[Result]) -> int:
    """How many models."""
    return len({result.specimen.name for result in results})


def table(results: Sequence[Result]) -> list[str]:
    """A Markdown row for each model, broken ones first; what was said with each seed, once where both are the same."""
    rows = ["| model | what it should say | what it says | right |", "|---|---|---|---|"]
    ordered = sorted(results, key=lambda result: (not result.specimen.codes, result.specimen.file.stem))
    for specimen, group in groupby(ordered, key=lambda result: result.specimen):
        runs = list(group)
        said = " / ".join(dict.fromkeys(result.said or "nothing" for result in runs))
        wanted = " and ".join(specimen.codes) or "nothing"
        rows.append(f"| `{specimen.name}` | {wanted} | {said} | {sum(r.right for r in runs)} of {len(runs)} |")
    return rows


def write(content: str) -> None:
    """Put the table into the documentation."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{content}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
