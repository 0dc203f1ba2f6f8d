from __future__ import annotations

import pytest

from gradcheck_cli import archive
from gradcheck_cli.archive_audit import from_plain, to_plain
from gradcheck_cli.audit import EvalSeen, LoopAudit, LoopEvent, OptimizerSeen
from gradcheck_cli.records import Location
from tests.diagnose.recordings import make_recording
from tests.diagnose.rules.loop.audits import event, recorded

AUDIT = LoopAudit(
    (
        event("backward", divisors=(2.0, 3.0), inactive=(0,), loss=float("nan")),
        event("clip-norm", limit=float("inf"), norm=2.5),
        LoopEvent("gap", count=7),
    ),
    (OptimizerSeen("SGD", Location("train.py", 3), 4, ("head.weight",)), OptimizerSeen("Adam")),
    (EvalSeen("Net", ("Dropout",), None, optimizers=(0,), partly=(1,)),),
    ended=False,
)


def test_an_audit_survives_save_and_load() -> None:
    loaded = archive.loads(archive.dumps(recorded("backward", "step", repeat=3)))
    assert repr(loaded.audit) == repr(recorded("backward", "step", repeat=3).audit)
    assert repr(from_plain(to_plain(AUDIT))) == repr(AUDIT)  # NaN does not equal itself, but reads the same


def test_a_recording_without_an_audit_has_none_after_it() -> None:
    assert archive.loads(archive.dumps(make_recording())).audit is None


def test_what_is_no_audit_is_refused() -> None:
    with pytest.raises((TypeError, KeyError)):
        from_plain({"events": []})
    with pytest.raises(TypeError):
        from_plain({"events": [{"unknown": 1}], "optimizers": [], "evals": [], "ended": True})
