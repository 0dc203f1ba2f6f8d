"""How signal and gradient flow: the RMS of each layer's output, and of the loss gradient with respect to it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradcheck_cli.records import Floats, LayerSummary
from gradcheck_cli.report import figures
from gradcheck_cli.report.html.drawing import Chart, Line, Mark, Panel, Tick, draw_line, spread
from gradcheck_cli.report.html.scale import Scale, alike, fit_scale
from gradcheck_cli.report.html.words import shorten, show_layer

HEIGHT = 170
MOST_LAYERS = 1000
MOST_NAMES = 18
MOST_DOTS = 80
UPRIGHT = 3
"""Characters of a label that needs no slant."""
LEAST_DECADES = 2.0
MEASURES = (("activation RMS", "activation", "output_rms"), ("activation gradient RMS", "gradient", "output_grad_rms"))


def flow_chart(layers: Sequence[LayerSummary], key: str) -> Chart | None:
    """None where no layer was probed; of very many layers every so many, and the notes say so."""
    probed = [layer for layer in layers if not math.isnan(layer.output_rms)]
    if not probed:
        return None
    every = math.ceil(len(probed) / MOST_LAYERS)
    shown = probed[::every]
    x = spread(len(shown))
    values = [np.array([getattr(layer, name) for layer in shown]) for _, _, name in MEASURES]
    scales = alike([fit_scale(column.tolist(), True, LEAST_DECADES) for column in values])
    panels = [
        make_panel(title, kind, column, scale, shown, x)
        for (title, kind, _), column, scale in zip(MEASURES, values, scales, strict=True)
    ]
    ticks = name_ticks(shown, x)
    longest = max(len(tick.label) for tick in ticks)
    return Chart(
        key,
        "Gradient flow",
        describe(shown, values),
        panels,
        ticks,
        "layers in the order of execution",
        slanted=longest > UPRIGHT,
        label_length=longest,
        legend=[(f"dot-{kind}", f"layer with {kind}") for kind in ("error", "warning") if has(shown, kind)],
        notes=notes(layers, probed, every),
        data={
            "at": x.round(3).tolist(),
            "labels": [show_layer(layer.name) for layer in shown],
            "rows": [
                *(
                    {"name": title, "values": tell(column)}
                    for (title, _, _), column in zip(MEASURES, values, strict=True)
                ),
                {"name": "status", "values": [" ".join([layer.status, *layer.codes]) for layer in shown]},
            ],
        },
    )


def make_panel(title: str, kind: str, values: Floats, scale: Scale, layers: Sequence[LayerSummary], x: Floats) -> Panel:
    """A line, and a dot for each layer while there are few; those with an error or a warning always have one."""
    shares = scale.place(values)
    dots = [
        Mark(round(at, 3), round((1 - share) * HEIGHT, 1), dot_kind(layer), title_of(layer, value))
        for layer, at, share, value in zip(layers, x.tolist(), shares.tolist(), values.tolist(), strict=True)
        if not math.isnan(share) and (len(layers) <= MOST_DOTS or dot_kind(layer) != "dot")
    ]
    zero = [
        Mark(round(at, 3), HEIGHT - 8.0, "zero", title_of(layer, value))
        for layer, at, value in zip(layers, x.tolist(), values.tolist(), strict=True)
        if value == 0
    ]
    dots = [Mark(one.x, one.y, one.kind if one.kind != "dot" else f"dot-{kind}", one.title) for one in dots]
    ticks = [Tick(round((1 - share) * HEIGHT, 1), label) for label, share in scale.ticks(5)]
    return Panel(title, HEIGHT, ticks, [Line(draw_line(x, shares), kind)], [*dots, *zero], scale="log scale")


def dot_kind(layer: LayerSummary) -> str:
    """The sign of its status."""
    return f"dot-{layer.status}" if layer.status in ("error", "warning") else "dot"


def title_of(layer: LayerSummary, value: float) -> str:
    """Name, number and status."""
    return f"{show_layer(layer.name)}: {figures.scientific(value)} ({layer.status})"


def tell(values: Floats) -> list[str]:
    """As in the table of layers."""
    return [figures.scientific(value) for value in values.tolist()]


def has(layers: Sequence[LayerSummary], status: str) -> bool:
    """Whether any has that status."""
    return any(layer.status == status for layer in layers)


def name_ticks(layers: Sequence[LayerSummary], x: Floats) -> list[Tick]:
    """Names of as many layers as there is room for."""
    every = math.ceil(len(layers) / MOST_NAMES)
    return [
        Tick(round(float(x[index]), 3), shorten(show_layer(layers[index].name), 20), show_layer(layers[index].name))
        for index in range(0, len(layers), every)
    ]


def notes(layers: Sequence[LayerSummary], probed: Sequence[LayerSummary], every: int) -> list[str]:
    """What is not shown."""
    sentences = [f"every {figures.ordinal(every)} of {len(probed):,} layers is shown"] if every > 1 else []
    if len(probed) < len(layers):
        missing = figures.plural(len(layers) - len(probed), "layer")
        sentences.append(f"{missing} without a recorded output not shown")
    return sentences


def describe(layers: Sequence[LayerSummary], values: Sequence[Floats]) -> str:
    """For those who do not see it."""
    first, last = show_layer(layers[0].name), show_layer(layers[-1].name)
    told = [
        f"The {title} is {figures.scientific(column[0])} at the first and {figures.scientific(column[-1])} at the last."
        for (title, _, _), column in zip(MEASURES, values, strict=True)
    ]
    ends = f"from {first} to {last}, medians over the recorded steps"
    return f"{figures.plural(len(layers), 'layer')} {ends}. {' '.join(told)} Both scales have as many decades."
