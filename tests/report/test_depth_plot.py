"""The depth plot: the slope at a glance, for any number of layers, at any width."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from gradcheck_cli.records import LayerSummary
from gradcheck_cli.report.depth_plot import depth_plot
from gradcheck_cli.report.lines import to_string
from gradcheck_cli.report.table import render_table
from gradcheck_cli.report.view import View
from tests.report.reports import REPORTS

WIDE = View(140)
TITLE = "activation RMS"


def make_layer(name: str, output: float, gradient: float, status: str = "ok") -> LayerSummary:
    nan = math.nan
    return LayerSummary(name, "Linear", (f"{name}.weight",), 4, nan, nan, nan, nan, output, gradient, status)


def make_layers(outputs: Sequence[float], gradients: Sequence[float]) -> list[LayerSummary]:
    pairs = enumerate(zip(outputs, gradients, strict=True))
    return [make_layer(f"layers.{index}", output, gradient) for index, (output, gradient) in pairs]


def plot(layers: Sequence[LayerSummary], view: View = WIDE) -> list[str]:
    return to_string(depth_plot(layers, view), view).splitlines()


def bars(lines: Sequence[str], names: Sequence[str]) -> tuple[list[int], list[int]]:
    """How many whole cells the two bars of each layer have."""
    found = [next(line for line in lines if line.startswith(f"{name} ")) for name in names]
    gradient = lines[0].index("act. grad RMS")
    return [line[:gradient].count("█") for line in found], [line[gradient:].count("█") for line in found]


def test_bars_show_both_slopes_in_the_same_decades() -> None:
    decades = range(-12, -2)
    layers = make_layers([1.0] * 10, [10.0**decade for decade in decades])
    outputs, gradients = bars(plot(layers), [layer.name for layer in layers])
    assert len(set(outputs)) == 1
    assert max(np.diff(gradients)) - min(np.diff(gradients)) <= 1
    assert min(np.diff(gradients)) >= 1
    tilted = make_layers([10.0**decade for decade in decades], [10.0**-decade for decade in decades])
    outputs, gradients = bars(plot(tilted), [layer.name for layer in layers])
    assert outputs == gradients[::-1]


def test_the_scales_hold_the_values_and_have_as_many_decades() -> None:
    outputs, gradients = [1.0, 2.0, 5.0, 3.0], [2e-9, 1e-5, 1e-4, 2e-3]
    ends = [float(end) for end in plot(make_layers(outputs, gradients))[1].split()[1:]]
    for low, high, values in ((*ends[:2], outputs), (*ends[2:], gradients)):
        assert low <= min(values)
        assert max(values) <= high
    assert ends[1] / ends[0] == pytest.approx(ends[3] / ends[2]) == pytest.approx(1e7)


def test_a_plot_comes_with_width_and_layers_or_when_asked_for() -> None:
    few, enough = make_layers([1.0] * 3, [1.0] * 3), make_layers([1.0] * 4, [1.0] * 4)
    assert plot(enough, View(110))
    assert not plot(enough, View(109))
    assert not plot(few, View(200))
    assert plot(few, View(80, depth_plot=True))
    assert not plot(enough, View(200, depth_plot=False))


def test_layers_that_were_not_probed_do_not_count() -> None:
    layers = make_layers([1.0] * 3 + [math.nan], [1.0] * 3 + [math.nan])
    assert not plot(layers)
    assert len(plot(layers, View(80, depth_plot=True))) == 2 + 3
    assert not plot(layers[3:], View(80, depth_plot=True))


def test_zero_infinity_and_what_is_missing_have_no_bar() -> None:
    lines = plot(make_layers([1.0, 0.0, math.inf, math.nan], [1e-3, math.nan, 0.0, 1e-3]))
    assert [line.split()[1:] for line in lines[3:5]] == [["0"], ["inf", "0"]]
    assert lines[5].startswith("layers.3" + " " * 20)


def test_many_layers_are_thinned_evenly_unless_all_are_wanted() -> None:
    layers = make_layers([1.0] * 130, [1.0] * 130)
    lines = plot(layers)
    assert lines[0] == "depth plot: every 3rd of 130 layers"
    assert [line.split()[0] for line in lines[3:]] == [f"layers.{index}" for index in range(0, 130, 3)]
    assert len(plot(layers, replace(WIDE, all_layers=True))) == 2 + 130
    assert len(plot(layers[:60])) == 2 + 60


def test_ascii_where_unicode_is_not_known() -> None:
    lines = plot(make_layers([1.0] * 4, [1e-9, 1e-6, 1e-3, 1.0]), View(140, unicode=False))
    assert "\n".join(lines).isascii()
    assert [line.count("#") for line in lines[2:]] == sorted(line.count("#") for line in lines[2:])


values = st.sampled_from([0.0, math.inf, math.nan, 1e-45, 1e300]) | st.floats(1e-30, 1e30)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(st.text(st.characters(), min_size=1, max_size=80), min_size=4, max_size=9),
    pairs=st.lists(st.tuples(values, values), min_size=9, max_size=9),
    view=st.builds(View, width=st.sampled_from([60, 80, 110, 140]), unicode=st.booleans(), depth_plot=st.just(True)),
)
def test_no_line_is_wider_than_the_view_and_no_name_breaks_out(
    names: list[str], pairs: list[tuple[float, float]], view: View
) -> None:
    layers = [make_layer(name, *pair) for name, pair in zip(names, pairs, strict=False)]
    lines = to_string(depth_plot(layers, view), view).split("\n")
    assert all(line.isprintable() for line in lines)
    assert all(cell_len(line) <= view.width for line in lines)
    assert view.unicode or "\n".join(lines).isascii()


def test_the_report_has_it_before_the_findings() -> None:
    output = render_table(REPORTS["sick"], View(140))
    assert output.index("smallest gradients") < output.index(TITLE) < output.index("GC101 vanishing-gradient  ")
    assert TITLE not in render_table(REPORTS["sick"], View(100))
    rows = re.findall(r"^(\S+) +█", output[output.index(TITLE) :], flags=re.MULTILINE)
    assert rows == [layer.name for layer in REPORTS["sick"].layers]
