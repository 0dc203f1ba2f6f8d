"""GC611 loss-scale-mismatch"""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradcheck_cli.diagnose.rules import loss_scale_mismatch
from gradcheck_cli.examination import Examination, ScaleCheck
from gradcheck_cli.records import Recording, Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording

RULE = loss_scale_mismatch.check
SIZES = tuple(10.0 ** -(exponent / 2) for exponent in range(4, 13))
WILD = (3.0, -2.0, 9.0, 0.5, 40.0, -7.0, 0.1, 5.0, -1.0)


def checked(norm: float, slopes: tuple[float, ...] | float = 2.0, loss: float = 1.0, accumulate: int = 1) -> Recording:
    """A recording whose loss changes by `slopes`, for all sizes or for each, along a gradient of this norm."""
    every = slopes if isinstance(slopes, tuple) else (slopes,) * len(SIZES)
    scale = ScaleCheck(norm, SIZES, every, loss, 1e-7)
    return replace(make_recording(accumulate=accumulate), examination=Examination(scale=scale))


@pytest.mark.parametrize("norm", [1.81, 2.0, 2.19])
def test_within_ten_percent_nothing_is_said(norm: float) -> None:
    assert silent(RULE, checked(norm))


@pytest.mark.parametrize(("norm", "severity"), [(2.3, "warning"), (1.7, "warning"), (6.0, "error"), (0.7, "error")])
def test_farther_off_it_is_a_warning_and_outside_a_factor_of_two_an_error(norm: float, severity: str) -> None:
    (found,) = findings(RULE, checked(norm))
    assert found.severity is Severity(severity)
    assert found.evidence["ratio"] == pytest.approx(norm / 2)
    assert "2^" not in found.message


def test_a_forgotten_loss_scale_is_named() -> None:
    (found,) = findings(RULE, checked(2048.5))
    assert found.severity is Severity.ERROR
    assert "2^10" in found.message
    assert "unscale_" in found.hint


def test_the_accumulated_batches_are_named() -> None:
    for norm, factor in ((6.0, "is 3 ("), (2 / 3, "is 1/3 (")):
        (found,) = findings(RULE, checked(norm, accumulate=3))
        assert found.severity is Severity.ERROR
        assert f"{factor}the accumulated batches) times" in found.message
    assert "accumulated" not in findings(RULE, checked(6.0))[0].message


@pytest.mark.parametrize("ratio", [1.99, 2.01])
def test_a_familiar_factor_is_an_error_on_both_sides_of_the_limit(ratio: float) -> None:
    (found,) = findings(RULE, checked(2 * ratio))
    assert found.severity is Severity.ERROR
    assert "2^1" in found.message


def test_a_gradient_that_leads_the_wrong_way_is_an_error() -> None:
    (found,) = findings(RULE, checked(2.0, -2.0))
    assert found.severity is Severity.ERROR


def test_only_sizes_that_agree_count() -> None:
    slopes = (50.0, -3.0, 20.0, 2.0, 2.001, 9.0, -4.0, 1.0, 7.0)
    assert silent(RULE, checked(2.0, slopes))
    (found,) = findings(RULE, checked(16.0, slopes))
    assert found.evidence["step_sizes"] == [SIZES[3], SIZES[4]]


def test_what_does_not_converge_is_not_evaluated() -> None:
    assert reasons(RULE, checked(2.0, WILD)) == ["finite differences of the loss along the gradient do not converge"]
    assert reasons(RULE, checked(2.0, (float("nan"),) * 9))


def test_changes_that_drown_in_rounding_do_not_count() -> None:
    slopes = (*WILD[:7], 2.0, 2.0)  # the last two change the loss by 1e-5 and less
    assert silent(RULE, checked(2.0, slopes, loss=0.1))
    assert reasons(RULE, checked(2.0, slopes, loss=10.0))


def test_why_it_was_not_measured_is_said() -> None:
    examination = Examination(scale=ScaleCheck(reason="the run failed"))
    assert reasons(RULE, replace(make_recording(), examination=examination)) == ["the run failed"]


def test_nobody_who_did_not_ask_is_bothered() -> None:
    assert silent(RULE, make_recording())
    assert silent(RULE, replace(make_recording(), examination=Examination()))
