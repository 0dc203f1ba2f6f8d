"""What torch.autograd.detect_anomaly says of a case."""

from __future__ import annotations

import re
import warnings
from itertools import chain

import torch

from tests.nan_corpus.corpus import Case
from tests.nan_corpus.plain_loop import train

STEPS = 5
RIGHT, WRONG, NOTHING = "right op", "wrong op", "nothing"


def said_by_anomaly(case: Case) -> tuple[str, str]:
    """What detect_anomaly raises in at most five plain training steps.

    The autograd node that it names ("SqrtBackward0") and the innermost line of the case's file in its traceback of
    the forward call ("backward_cases.py:17"); "" for either that it does not say. For a node that a derivative made,
    the traceback of the forward call that led to that derivative.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        message = run_under_anomaly_detection(case)
    node = re.match(r"Function '(\w+)' returned nan values", message)
    tracebacks = [str(warning.message) for warning in caught if "Traceback of forward call" in str(warning.message)]
    place = re.compile(rf'File "{re.escape(str(case.file))}", line (\d+)')
    numbers = list(chain.from_iterable(place.findall(text) for text in tracebacks[-1:]))
    return node[1] if node else "", f"{case.file.name}:{numbers[-1]}" if node and numbers else ""


def run_under_anomaly_detection(case: Case) -> str:
    """The message of the exception that ended a run, or "". Other exceptions than anomaly detection's count too."""
    try:
        with torch.autograd.detect_anomaly():
            for _ in train(case, STEPS):
                pass
    except (RuntimeError, ValueError) as error:
        return str(error)
    return ""


def judge(case: Case, node: str, line: str) -> str:
    """Whether the node named is the operator at fault, on a marked line where a line is given.

    A custom Function's node, whose name ends in no number, is right for any fault in a custom backward.
    """
    if not node:
        return NOTHING
    if case.cause == "custom-backward" and not node[-1].isdigit():
        return RIGHT
    place_fits = not line or int(line.rpartition(":")[2]) in case.lines
    return RIGHT if place_fits and names_operator(case, node) else WRONG


def names_operator(case: Case, node: str) -> bool:
    """Whether a node is the derivative of one of the case's operators: SqrtBackward0 of aten::sqrt."""
    operators = (case.op,) if isinstance(case.op, str) else case.op
    return re.sub(r"Backward\d*$", "", node).lower() in {plain_name(operator) for operator in operators}


def plain_name(operator: str) -> str:
    """aten::nll_loss_forward as its autograd node is called, in lower case: nllloss."""
    return operator.removeprefix("aten::").removesuffix("_forward").replace("_", "").lower()
