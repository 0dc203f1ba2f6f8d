"""The rules on shifts: beyond the tolerance and beyond the noise, in the direction that is worse."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradcheck_cli.baseline import LayerMeasure, Measures, NormMeasure, ShareMeasure, SlopeMeasure, Tolerances
from gradcheck_cli.diagnose.baseline.change import Change
from gradcheck_cli.diagnose.baseline.matching import match
from gradcheck_cli.diagnose.baseline.rules import SHIFT_RULES
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.records import Finding, Severity

SLOPE = SlopeMeasure("layers.*", "Linear", "layers.0", "layers.9", 0.5, 0.02)
SHARE = ShareMeasure("dead", "layers.0", "relu", 0.05, 0.01)
NORM = NormMeasure(1.0, 0.8, 1.2)


def layer(gradient: float | None, name: str = "head", noise: float = 0.05, reached: float = 1.0) -> LayerMeasure:
    return LayerMeasure(name, "Linear", ((4, 4),), gradient, noise, reached, 50)


def shifts(then: Measures, now: Measures, **tolerances: float) -> list[Finding]:
    """What all the rules find, whichever it is."""
    change = Change(then, now, match(then.layers, now.layers), Tolerances(**tolerances))
    return [one for rule in SHIFT_RULES for one in rule.check(change, Limits()) if isinstance(one, Finding)]


def codes(then: Measures, now: Measures, **tolerances: float) -> list[str]:
    return [finding.fingerprint for finding in shifts(then, now, **tolerances)]


def test_nothing_is_found_where_nothing_was_measured_or_nothing_moved() -> None:
    whole = Measures((layer(0.3), layer(None, "b", reached=0.0)), (SLOPE,), (SHARE,), NORM)
    assert codes(Measures(), Measures()) == []
    assert codes(whole, whole) == codes(whole, Measures()) == codes(Measures(), whole) == []


@pytest.mark.parametrize(
    ("then", "now", "found"),
    [
        (0.5, 1.4, False),
        (0.5, 1.6, True),
        (0.5, -0.4, False),
        (-0.5, -1.6, True),
        (0.8, -1.2, True),
        (3.5, 0.5, False),  # flatter is better
        (-3.5, -0.5, False),
        (12.0, 15.5, False),  # a slope of many decades varies in proportion
        (12.0, 19.0, True),
    ],
)
def test_a_depth_slope_that_moved_by_a_decade_away_from_zero(then: float, now: float, found: bool) -> None:
    old, new = (Measures(slopes=(replace(SLOPE, decades=decades),)) for decades in (then, now))
    assert codes(old, new) == (["GC801:layers.*"] if found else [])


@pytest.mark.parametrize(
    ("then", "now", "found"),
    [
        (0.3, 1.2, False),
        (0.3, 1.4, True),
        (0.3, -0.8, True),
        (2.0, 0.2, False),  # nearer to the others is better
        (-2.0, -0.2, False),
        (-0.8, 0.8, True),
        (None, 0.5, False),
        (6.0, 7.9, False),  # where the layers are six decades apart they vary in proportion
    ],
)
def test_a_gradient_that_moved_by_a_decade_beside_the_others(then: float | None, now: float, found: bool) -> None:
    assert codes(Measures((layer(then),)), Measures((layer(now),))) == (["GC802:head"] if found else [])


def test_a_shift_must_be_beyond_its_noise() -> None:
    for noise, found in ((0.1, ["GC802:head"]), (0.3, [])):
        assert codes(Measures((layer(0.0, noise=noise),)), Measures((layer(1.5, noise=noise),))) == found
    for noise, found in ((0.1, ["GC801:layers.*"]), (0.3, [])):
        old, new = (Measures(slopes=(replace(SLOPE, decades=d, noise=noise),)) for d in (0.0, 1.5))
        assert codes(old, new) == found
    for noise, found in ((0.03, ["GC803:layers.0"]), (0.06, [])):
        old, new = (Measures(shares=(replace(SHARE, share=share, noise=noise),)) for share in (0.1, 0.35))
        assert codes(old, new) == found


def test_like_layers_share_a_finding_that_names_them_all() -> None:
    old = Measures(tuple(layer(0.0, f"blocks.{n}.fc") for n in range(4)))
    new = Measures(tuple(layer(1.5 if n < 2 else 0.0, f"blocks.{n}.fc") for n in range(4)))
    (finding,) = shifts(old, new)
    assert finding.fingerprint == "GC802:blocks.*.fc"
    assert finding.evidence["layers"] == ["blocks.0.fc", "blocks.1.fc"]
    assert "31.6 times larger" in finding.message


@pytest.mark.parametrize(("share", "found"), [(0.24, False), (0.26, True), (0.0, False)])
def test_a_share_that_rose_by_twenty_points(share: float, found: bool) -> None:
    new = Measures(shares=(replace(SHARE, share=share),))
    assert codes(Measures(shares=(SHARE,)), new) == (["GC803:layers.0"] if found else [])


def test_a_share_is_compared_with_that_of_the_same_function() -> None:
    for other in ({"what": "saturated"}, {"function": "relu 2"}, {"layer": "layers.1"}):
        new = Measures(shares=(replace(SHARE, share=0.9, **other),))
        assert codes(Measures(shares=(SHARE,)), new) == []


@pytest.mark.parametrize(("reached", "found"), [(1.0, True), (0.5, True), (0.02, False)])
def test_a_gradient_that_is_lost_unless_it_was_rare(reached: float, found: bool) -> None:
    new = Measures((layer(None, reached=0.0),))
    assert codes(Measures((layer(0.0, reached=reached),)), new) == (["GC804:head"] if found else [])


def test_a_lost_gradient_is_told_of_the_outermost_module_that_lost_all() -> None:
    names = ("body.0", "aux.a.fc", "aux.b.fc")
    old = Measures(tuple(layer(0.0, name) for name in names))
    new = Measures(tuple(layer(0.0, name) if name == "body.0" else layer(None, name, reached=0.0) for name in names))
    (finding,) = shifts(old, new)
    assert finding.fingerprint == "GC804:aux"
    assert finding.evidence["layers"] == ["aux.a.fc", "aux.b.fc"]


@pytest.mark.parametrize(
    ("now", "found"),
    [
        (NormMeasure(1.1, 1.0, 1.4), False),
        (NormMeasure(1.5, 1.3, 1.9), False),  # outside the interval, as another seed may be
        (NormMeasure(2.2, 1.9, 2.6), True),
        (NormMeasure(0.4, 0.3, 0.5), True),
        (NormMeasure(9.0, None, None), True),
        (NormMeasure(1.7, None, None), False),
    ],
)
def test_a_max_norm_far_outside_its_interval(now: NormMeasure, found: bool) -> None:
    assert codes(Measures(clipping=NORM), Measures(clipping=now)) == (["GC805:"] if found else [])


def test_tolerances_are_the_users() -> None:
    old = Measures((layer(0.0),), (SLOPE,), (SHARE,), NORM)
    new = Measures(
        (layer(0.6),), (replace(SLOPE, decades=1.1),), (replace(SHARE, share=0.2),), NormMeasure(1.8, 1.4, 2)
    )
    assert codes(old, new) == []
    strict = {"gradient": 0.5, "depth_slope": 0.5, "share": 10.0, "max_norm": 1.1}
    assert codes(old, new, **strict) == ["GC801:layers.*", "GC802:head", "GC803:layers.0", "GC805:"]


def test_groups_and_functions_follow_their_layers_to_new_names() -> None:
    old = Measures(tuple(layer(0.0, f"layers.{n}") for n in range(10)), (SLOPE,), (SHARE,))
    new = Measures(
        tuple(layer(0.0, f"net.layers.{n}") for n in range(10)),
        (replace(SLOPE, group="net.layers.*", first_layer="net.layers.0", last_layer="net.layers.9", decades=3.0),),
        (replace(SHARE, layer="net.layers.0", share=0.9),),
    )
    assert codes(old, new) == ["GC801:net.layers.*", "GC803:net.layers.0"]


def test_every_shift_is_an_error_with_numbers() -> None:
    old = Measures((layer(0.0), layer(0.0, "aux")), (SLOPE,), (SHARE,), NORM)
    new = Measures(
        (layer(3.0), layer(None, "aux", reached=0.0)),
        (replace(SLOPE, decades=5.0),),
        (replace(SHARE, share=0.9),),
        NormMeasure(9.0, 8.0, 10.0),
    )
    found = shifts(old, new)
    assert [finding.code for finding in found] == ["GC801", "GC802", "GC803", "GC804", "GC805"]
    assert {finding.severity for finding in found} == {Severity.ERROR}
    assert all(finding.evidence and finding.hint for finding in found)
