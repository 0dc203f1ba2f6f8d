"""How often each size of the gradient norm came, with its percentiles and the thresholds for clipping."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from gradcheck_cli.records import Floats, Ints, Report
from gradcheck_cli.report import figures
from gradcheck_cli.report.html import thresholds
from gradcheck_cli.report.html.drawing import Box, Chart, Panel, Post, Tick
from gradcheck_cli.report.html.scale import Scale, fit_scale

BARS = (6, 48)
HEIGHT = 150
LABEL_HEIGHT = 15
LABEL_UNIT = 2.4
"""Percent of the width that a character takes on a narrow screen."""
PERCENTILES = (50.0, 90.0, 95.0, 99.0)


def norm_histogram(report: Report, key: str) -> Chart | None:
    """None where fewer than two steps have a positive finite norm."""
    norms = kept_norms(report)
    shown = norms[np.isfinite(norms) & (norms > 0)]
    if len(shown) < 2:
        return None
    named, absent = thresholds.within(thresholds.name_thresholds(report), shown.tolist())
    percentiles = find_percentiles(report, shown)
    scale = fit_scale([*shown.tolist(), *named.values()], log=True, decades=0.2)
    counts, edges = count(shown)
    posts = draw_posts(report, percentiles, named, scale)
    top = LABEL_HEIGHT * round(1 + max((post.y for post in posts), default=0.0) / LABEL_HEIGHT) + 4
    at = 100 * scale.place((edges[:-1] + edges[1:]) / 2)
    return Chart(
        key,
        "How large the gradient norms are",
        describe(shown, percentiles, named),
        [Panel("steps", top + HEIGHT, y_ticks(counts, top), posts=posts, boxes=draw_bars(counts, edges, scale, top))],
        [Tick(round(100 * share, 3), label) for label, share in scale.ticks(6)],
        "gradient norm, log scale",
        legend=[("percentile", "percentile"), *([("candidate", "threshold")] if named else [])],
        notes=[*left_out(norms, shown), *thresholds.describe_absent(absent)],
        data={
            "at": at.round(3).tolist(),
            "labels": [f"{figures.norm(a)} to {figures.norm(b)}" for a, b in pairwise(edges)],
            "rows": [{"name": "steps", "values": [f"{number:,}" for number in counts.tolist()]}],
        },
    )


def kept_norms(report: Report) -> Floats:
    """Those that the advice rests on, or all."""
    return report.clip.norms if report.clip is not None else report.series.grad_norm


def find_percentiles(report: Report, norms: Floats) -> dict[str, float]:
    """By name; those of the advice where it has them."""
    found = {f"p{percent:g}": float(np.percentile(norms, percent)) for percent in PERCENTILES}
    if report.clip is not None:
        known = {f"p{one.percentile:g}": one.value for one in report.clip.quantiles}
        found = {name: value for name, value in (found | known).items() if value is not None}
    return found


def count(norms: Floats) -> tuple[Ints, Floats]:
    """Counts (bars,) between edges (bars + 1,) at equal distances of the logarithm."""
    logs = np.log10(norms)
    bars = int(np.clip(2 * np.sqrt(len(norms)), *BARS)) if np.ptp(logs) else 1
    counts, edges = np.histogram(logs, bars)
    return counts, 10.0**edges


def draw_bars(counts: Ints, edges: Floats, scale: Scale, top: int) -> list[Box]:
    """One each, on the floor of the panel."""
    left, right = 100 * scale.place(edges[:-1]), 100 * scale.place(edges[1:])
    heights = counts / max(1, counts.max()) * HEIGHT
    return [
        Box(round(a, 3), round(b - a, 3), round(top + HEIGHT - height, 1), round(height, 1), "bar")
        for a, b, height in zip(left.tolist(), right.tolist(), heights.tolist(), strict=True)
        if height
    ]


def y_ticks(counts: Ints, top: int) -> list[Tick]:
    """None, and the most."""
    return [Tick(float(top), f"{counts.max():,}"), Tick(float(top + HEIGHT), "0")]


def draw_posts(
    report: Report, percentiles: Mapping[str, float], named: Mapping[str, float], scale: Scale
) -> list[Post]:
    """From the left; a label that would cover one before it goes below that."""
    wanted = sorted((value, label) for label, value in thresholds.merge({**named, **percentiles}).items())
    ends: list[float] = []
    posts = []
    for value, label in wanted:
        x = 100 * scale.place_one(value)
        kind = "percentile" if label in percentiles else thresholds.kind_of(value, report.clip)
        width = LABEL_UNIT * len(label) + 2
        start = x - width if x > 100 - width else x
        level = next((index for index, end in enumerate(ends) if end <= start), len(ends))
        ends[level : level + 1] = [start + width]
        posts.append(Post(round(x, 3), float(LABEL_HEIGHT * level), label, kind))
    return posts


def left_out(norms: Floats, shown: Floats) -> list[str]:
    """Norms that a log scale does not have."""
    zeros, bad = int((norms == 0).sum()), int((~np.isfinite(norms)).sum())
    told = [f"{figures.plural(number, 'step')} {what}" for number, what in ((zeros, "of norm 0"), (bad, "not finite"))]
    kept = [sentence for sentence, number in zip(told, (zeros, bad), strict=True) if number]
    return [f"not shown: {', '.join(kept)}"] if kept else []


def describe(norms: Floats, percentiles: Mapping[str, float], named: Mapping[str, float]) -> str:
    """For those who do not see it."""
    low, high = figures.norm(norms.min()), figures.norm(norms.max())
    parts = [f"{figures.plural(len(norms), 'step')}, norms from {low} to {high}.", listing("Percentiles", percentiles)]
    return " ".join([*parts, listing("Thresholds", named)]).strip()


def listing(title: str, values: Mapping[str, float]) -> str:
    """`Percentiles: p50 0.31, p90 0.55.`"""
    told = ", ".join(thresholds.describe(name, value) for name, value in values.items())
    return f"{title}: {told}." if told else ""
