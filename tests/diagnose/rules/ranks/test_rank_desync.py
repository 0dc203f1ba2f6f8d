from __future__ import annotations

import pytest

from gradcheck_cli.diagnose.rules.ranks import rank_desync
from gradcheck_cli.ranks import Desync
from gradcheck_cli.records import Severity
from tests.diagnose.outcomes import findings, reasons
from tests.diagnose.recordings import MLP
from tests.diagnose.rules.ranks.runs import made, make_ranks, run_of

RULE = rank_desync.check
BLOCKS = {f"blocks.{i}.{name}": (4,) for i in range(3) for name in ("fc.weight", "norm.scale")} | {"head.weight": (4,)}


def every(step: int, *ranks: int) -> tuple[Desync, ...]:
    return tuple(Desync(name, False, step, ranks) for name in MLP)


@pytest.mark.parametrize(("strategy", "hint"), [("none", "--strategy"), ("own", "seed")])
def test_a_model_that_differs_from_the_first_check_on_is_one_error(strategy: str, hint: str) -> None:
    ranks = make_ranks(desyncs=every(0, 1, 2, 3))
    (found,) = findings(RULE, run_of(type(ranks)(**{**vars(ranks), "strategy": strategy})))
    assert (found.severity, found.layer, found.step) == (Severity.ERROR, None, 0)
    assert found.evidence["names"] == list(MLP)
    assert found.evidence["differing_ranks"] == [1, 2, 3]
    assert "is not the same on all ranks" in found.message
    assert hint in found.hint


def test_a_model_that_comes_apart_later_is_told_from_it() -> None:
    (found,) = findings(RULE, made(desyncs=every(20, 3)))
    assert found.step == 20
    assert "came apart" in found.message
    assert "since step 20 at the latest, after step 10 not yet" in found.message
    assert "skipped step" in found.hint


def test_buffers_of_a_model_that_differs_are_no_finding_of_their_own() -> None:
    found = findings(RULE, made(desyncs=(*every(0, 1), Desync("norm.mean", True, 0, (1,)))))
    assert [one.severity for one in found] == [Severity.ERROR]


def test_frozen_parameters_need_not_differ() -> None:
    desyncs = tuple(one for one in every(0, 1) if one.name.startswith("fc2"))
    (found,) = findings(RULE, run_of(make_ranks(desyncs=desyncs), frozen=["fc1.weight", "fc1.bias"]))
    assert found.evidence["what"] == "all parameters"


def test_some_parameters_are_named_by_their_module() -> None:
    desyncs = (Desync("fc2.weight", False, 10, (2,)), Desync("fc2.bias", False, 20, (1,)))
    (found,) = findings(RULE, made(desyncs=desyncs))
    assert (found.severity, found.layer, found.step) == (Severity.ERROR, "fc2", 10)
    assert found.evidence["names"] == ["fc2.weight", "fc2.bias"]
    assert found.evidence["differing_ranks"] == [1, 2]


def test_a_parameter_beside_others_is_named_itself() -> None:
    (found,) = findings(RULE, made(desyncs=(Desync("fc1.bias", False, 0, (1,)),)))
    assert found.layer == "fc1.bias"


def test_like_parts_share_a_finding() -> None:
    desyncs = tuple(Desync(f"blocks.{i}.norm.scale", False, 0, (1,)) for i in range(3))
    (found,) = findings(RULE, run_of(make_ranks(desyncs=desyncs), parameters=BLOCKS))
    assert found.layer == "blocks.*.norm"
    assert len(found.evidence["names"]) == 3


def test_buffers_are_a_warning() -> None:
    desyncs = tuple(Desync(f"codes.{name}", True, 10, (1, 3)) for name in ("usage", "mean"))
    (found,) = findings(RULE, made(desyncs=desyncs))
    assert (found.severity, found.step) == (Severity.WARNING, 10)
    assert found.evidence["names"] == ["codes.usage", "codes.mean"]


def test_running_statistics_of_each_rank_are_information() -> None:
    desyncs = tuple(Desync(f"bn.running_{name}", True, 0, (1,)) for name in ("mean", "var"))
    (found,) = findings(RULE, made(desyncs=desyncs))
    assert found.severity is Severity.INFO
    assert "running statistics" in found.message


def test_parameters_that_were_not_compared_are_not_evaluated() -> None:
    (reason,) = reasons(RULE, made(checked=()))
    assert "not compared" in reason
