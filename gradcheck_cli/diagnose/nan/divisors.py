"""What an operation divides by."""

from __future__ import annotations

from collections.abc import Callable

from gradcheck_cli.diagnose.nan.evidence import HALF, Evidence
from gradcheck_cli.diagnose.nan.naming import short_name
from gradcheck_cli.diagnose.nan.rewriting import rewrite
from gradcheck_cli.diagnose.nan.wording import result, share, span
from gradcheck_cli.tape import Operation, TensorState

DIVISIONS = ("div", "true_divide", "divide", "floor_divide", "remainder", "fmod", "addcdiv", "reciprocal")
CLEANING = ("clamp", "clamp_min", "clamp_min_", "add", "add_")


def divisor_argument(evidence: Evidence) -> int:
    """Which argument divides."""
    return 0 if evidence.op == "reciprocal" else len(evidence.inputs) - 1


def divisor_state(evidence: Evidence) -> TensorState | None:
    """The values that divide; None where it is a plain number."""
    return None if evidence.constant("other") is not None else evidence.state(divisor_argument(evidence))


def divisor_zero(evidence: Evidence) -> bool:
    """Whether something is divided by 0."""
    state = divisor_state(evidence)
    return bool(state and state.zeros) or evidence.constant("other") == 0


def name_divisors(evidence: Evidence) -> str:
    """Such as: the divisors are between 0.1 and 3; the divisor is the number 1e-40."""
    number = evidence.constant("other")
    return f"the divisors are {span(divisor_state(evidence))}" if number is None else f"the divisor is {number:g}"


def maker_of_divisor(evidence: Evidence, *names: str) -> Operation | None:
    """The operation of one of these names that made the divisor, also before a clamp or an added eps."""
    argument = divisor_argument(evidence)
    found = evidence.made_by(*names, argument=argument)
    if found is None and (guard := evidence.made_by(*CLEANING, argument=argument)):
        found = next((maker for maker in evidence.makers_of(guard) if short_name(maker.name) in names), None)
    return found


def explain(evidence: Evidence) -> str:
    """How many divisors are 0."""
    if evidence.constant("other") == 0:
        return f"the divisor is the number 0: {result(evidence)}"
    return share(evidence, "zeros", divisor_argument(evidence), "divisors")


def keep_from_zero(instead: str) -> Callable[[Evidence], str]:
    """A repair that keeps the divisor away from 0 and leaves all others as they are."""

    def repair(evidence: Evidence) -> str:
        state = divisor_state(evidence)
        smallest = "1e-3" if state is not None and state.dtype in HALF else "1e-6"
        if "gumbel_softmax" in evidence.text:
            return "tau = max(tau, 0.1)  # before gumbel_softmax"
        if evidence.constant("other") is not None:
            return rewrite("div", to="{X} / max({y}, 1e-6)", instead="x / max(y, 1e-6)")(evidence)
        if state is not None and state.negatives:
            to = f"{{X}} / torch.where({{Y}} == 0, {smallest}, {{y}})"
            return rewrite("div", to=to, instead=to.format(X="x", Y="y", y="y"))(evidence)
        return rewrite("div", to=f"{{X}} / {{Y}}.clamp(min={smallest})", instead=instead)(evidence)

    return repair
