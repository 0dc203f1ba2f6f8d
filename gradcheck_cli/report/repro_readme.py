"""The README of a folder that reproduces a failing step, ready to be pasted into a bug report."""

from __future__ import annotations

from collections.abc import Sequence

from gradcheck_cli.records import Report
from gradcheck_cli.report.trace_wording import describe_event, describe_unexplained
from gradcheck_cli.tape import NanTrace

NAMES = {"torch": "PyTorch", "numpy": "NumPy", "python": "Python", "gradcheck": "gradcheck"}
PAGE = """# {headline}, in step {step} of `{target}`

## What was found

````text
{finding}
````

## Run it

    python repro.py

This runs the one failing step again, on the CPU too, and says which values are not finite. It needs PyTorch, NumPy,
the code of `{target}`, and what that needs to make the model. It takes no batch from its data loader, and does not need
gradcheck.
The code is looked for where it was when the run failed: where it is elsewhere, change `ROOT` at the top of `repro.py`.

| exit code | meaning |
|---|---|
| 1 | a value of the step is not finite |
| 0 | all values of the step are finite |
| 2 | the step could not be run |

## What is here

| file | what it holds |
|---|---|
| `step.pt` | the state before step {step}, counted from 0: {contents} |
| `repro.py` | the step as plain PyTorch |

`torch.load("step.pt", weights_only=True)` reads `step.pt`: no code in it is run. **It holds your weights and data:**
look before you publish it.

State that the training code keeps elsewhere, in globals, closures, iterators or files, is not in it: a step that needs
it may be finite here.
{missing}
## Versions

{versions}
"""


def render_readme(report: Report, finding: str, contents: str, lost: Sequence[str]) -> str:
    """Markdown. `finding` is the report as text, `contents` says what is in step.pt, `lost` what could not be."""
    return PAGE.format(
        headline=capitalised(headline(report)),
        step=report.trace.step if report.trace else 0,
        target=report.run.target,
        finding=finding.strip("\n"),
        contents=contents,
        missing="".join(["\nWhat could not be saved:\n\n", *(f"- `{entry}`\n" for entry in lost)]) if lost else "",
        versions="\n".join(f"- {NAMES.get(name, name)} {version}" for name, version in report.run.versions.items()),
    )


def headline(report: Report) -> str:
    """`the gradient became NaN in backward`."""
    trace = report.trace or NanTrace(0)
    return describe_event(trace.origins[0], trace) if trace.origins else describe_unexplained(trace)


def capitalised(sentence: str) -> str:
    """With a capital, but the rest as it is."""
    return sentence[:1].upper() + sentence[1:]
