"""The numbers of a case in words."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.tape import Operand, TensorState

WHAT = {"zeros": "exactly 0", "negatives": "negative", "ones": "exactly ±1", "nan": "NaN", "inf": "infinite"}


def share(evidence: Evidence, which: str, argument: str | int = 0, noun: str = "") -> str:
    """Such as: 12 of 4096 inputs of sqrt are exactly 0; or the range of the inputs where none is."""
    state = evidence.state(argument)
    noun = noun or f"inputs of {evidence.op}"
    if state is None:
        return f"some {noun} are {WHAT[which]}"
    number = int(getattr(state, which))
    if not number:
        return f"the {noun} are {span(state)}"
    if state.numel == 1:
        return f"the {singular(noun)} is {WHAT[which]}"
    return f"{number} of {state.numel} {noun} {'is' if number == 1 else 'are'} {WHAT[which]}"


def singular(noun: str) -> str:
    """Such as: root of squared gradients."""
    head, *rest = noun.split(" of ")
    return " of ".join([head.removesuffix("s"), *rest])


def span(state: TensorState | None) -> str:
    """Such as: between -3 and 7.1e+04; of the finite elements."""
    if state is None or state.low != state.low:
        return "without a finite element" if state and state.numel else "empty"
    return f"{state.low:.4g}" if state.low == state.high else f"between {state.low:.4g} and {state.high:.4g}"


def slope(evidence: Evidence, of: str = "slope") -> str:
    """What an infinite slope makes of the gradient."""
    return f"its {of} is infinite" + (" (0 · inf = NaN)" if evidence.kind == "nan" else "")


def result(evidence: Evidence, of: str = "") -> str:
    """Such as: 3 of 8 results are NaN; or 3 of 8 results of exp are NaN."""
    state = evidence.output
    which = "nan" if evidence.kind == "nan" and state.nan else "inf"
    number = int(getattr(state, which))
    results = count(state.numel, "result") + (f" of {of}" if of else "")
    return f"{number} of {results} {'is' if number == 1 else 'are'} {WHAT[which]}"


def largest(*states: TensorState | None) -> str:
    """The largest magnitude among the finite elements: "6.1e+04"."""
    values = [abs(v) for state in states if state for v in (state.low, state.high) if v == v]
    return f"{max(values):.4g}" if values else "unknown"


def infinite_inputs(evidence: Evidence) -> str:
    """Such as: 12 of 24 elements of mat1 are infinite (-inf written by full at model.py:7); "" where none is."""
    bad = [operand for operand in evidence.inputs if not operand.state.finite]
    parts = [infinite_part(operand) for operand in bad]
    written = "; ".join(evidence.origin.contributors)
    return " and ".join(parts) + (f" ({written})" if written and parts else "")


def infinite_part(operand: Operand) -> str:
    """Of one operand, with its source."""
    state = operand.state
    number, what = (state.inf, "infinite") if state.inf else (state.nan, "NaN")
    name = operand.argument + (f" ({operand.source})" if operand.source.partition(":")[2] else "")
    return f"{number} of {count(state.numel, 'element')} of {name} {'is' if number == 1 else 'are'} {what}"
