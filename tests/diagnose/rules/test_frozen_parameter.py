from __future__ import annotations

from gradcheck_cli.diagnose.rules import frozen_parameter
from gradcheck_cli.records import Severity
from tests.diagnose.outcomes import findings, silent
from tests.diagnose.recordings import make_recording

RULE = frozen_parameter.check
LORA = {
    f"blocks.{i}.{name}": (4, 4) for i in range(3) for name in ("fc.weight", "fc.lora_a", "fc.lora_b", "norm.weight")
} | {"head.weight": (2, 4)}


def test_a_model_without_frozen_parameters_gets_nothing() -> None:
    assert silent(RULE, make_recording())


def test_a_frozen_module_is_info_with_its_size() -> None:
    (found,) = findings(RULE, make_recording(frozen=["fc1.weight", "fc1.bias"]))
    assert (found.severity, found.layer) == (Severity.INFO, "fc1")
    assert found.evidence["numel"] == 40
    assert found.evidence["model_numel"] == 58
    assert "69.0%" in found.message


def test_a_frozen_backbone_is_one_finding() -> None:
    frozen = [name for name in LORA if name.startswith("blocks")]
    assert [f.layer for f in findings(RULE, make_recording(parameters=LORA, frozen=frozen))] == ["blocks"]


def test_like_parts_of_repeated_blocks_share_a_finding() -> None:
    frozen = [name for name in LORA if name.endswith(("fc.weight", "norm.weight"))]
    found = findings(RULE, make_recording(parameters=LORA, frozen=frozen))
    assert [f.layer for f in found] == ["blocks.*.fc.weight", "blocks.*.norm"]
    assert found[0].evidence["layers"] == [f"blocks.{i}.fc.weight" for i in range(3)]
    assert "3 of them" in found[0].message


def test_it_needs_no_steps() -> None:
    assert len(findings(RULE, make_recording(steps=0, frozen=["fc1.bias"]))) == 1
