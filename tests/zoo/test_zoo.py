"""The quick part of the zoo: healthy models raise no alarm, broken ones are found; `make zoo` runs all of it."""

from __future__ import annotations

import pytest

from gradcheck_cli.diagnose.rules import RULES
from tests.zoo.runner import run
from tests.zoo.specimen import Specimen, load_zoo

ZOO = load_zoo()
HEALTHY = [specimen for specimen in ZOO if not specimen.codes]
BROKEN = [specimen for specimen in ZOO if specimen.codes]
SEED = 0


def quick(specimens: list[Specimen]) -> list[Specimen]:
    return [specimen for specimen in specimens if specimen.quick]


def skip_without_package(specimen: Specimen) -> None:
    if specimen.missing:
        pytest.skip(f"{specimen.missing} is not installed: pip install '.[zoo]'")


@pytest.mark.parametrize("specimen", quick(HEALTHY), ids=lambda specimen: specimen.name)
def test_healthy_model_raises_no_alarm(specimen: Specimen) -> None:
    skip_without_package(specimen)
    result = run(specimen, SEED)
    assert not result.alarms, result.said


@pytest.mark.parametrize("specimen", quick(BROKEN), ids=lambda specimen: specimen.name)
def test_broken_model_is_found(specimen: Specimen) -> None:
    skip_without_package(specimen)
    result = run(specimen, SEED)
    assert result.right, result.said


def test_the_zoo_is_large() -> None:
    assert len(HEALTHY) >= 30
    assert len(BROKEN) >= 25
    assert len({specimen.name for specimen in ZOO}) == len(ZOO)


def test_every_cause_is_in_the_zoo() -> None:
    causes = {rule.code for rule in RULES if rule.code.startswith("GC6")}
    assert causes <= {code for specimen in BROKEN for code in specimen.codes}
    assert {rule.code for rule in RULES} >= {code for specimen in BROKEN for code in specimen.codes}
