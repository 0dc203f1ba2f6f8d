"""The tables: what other choices would have done, what the layers contribute, what --verify saw."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

from gradcheck_cli.clip_advice import Candidate, ClipAdvice, ClipLayer, VerifiedRun
from gradcheck_cli.report import figures
from gradcheck_cli.report.clip_wording import rate
from gradcheck_cli.report.lines import join, pad, styled, wrap
from gradcheck_cli.report.view import View

GAP = 2
SHOWN_LAYERS = 8
CANDIDATES = "what other choices would have done on these steps"
CANDIDATE_TITLES = ("candidate", "max_norm", "clips", "shortens to")
LAYERS = "which layers make the norm (shares of its square, medians)"
DOMINATES = "makes most of the norm: clipping it alone would spare the others"
LAYER_TITLES = ("layer", "all steps", "clipped steps")
VERIFIED = "trained again from the same start (loss: mean over the last tenth of the steps)"
VERIFIED_TITLES = ("run", "loss", "clipped", "as promised", "steps", "ended")


def table(titles: Sequence[str], rows: Sequence[Sequence[Text]], view: View) -> list[Text]:
    """The first column flush left, the others right; a name that finds no room has a line to itself.

    Where the view has no room for a table, each row is a sentence.
    """
    widths = [max(len(title), *(row[i].cell_len for row in rows)) for i, title in enumerate(titles)][1:]
    room = view.width - sum(widths) - GAP * len(widths)
    if room < len(titles[0]):
        return [line for row in rows for line in wrap(sentence(titles, row), view.width, "    ", "")]
    name_width = max(len(titles[0]), *(row[0].cell_len for row in rows if row[0].cell_len <= room), 0)
    lines = []
    for name, *cells in [[styled(title, "quiet") for title in titles], *rows]:
        if name.cell_len > name_width:
            lines += wrap(name, view.width)
            name = styled("")
        padded = [Text(" " * GAP) + pad(cell, width, right=True) for cell, width in zip(cells, widths, strict=True)]
        lines.append(Text("").join([pad(name, name_width), *padded]))
    return lines


def sentence(titles: Sequence[str], row: Sequence[Text]) -> Text:
    """A row of a table in one line: the name, then each cell behind its title."""
    cells = [styled(f"{title} ", "quiet") + cell for title, cell in zip(titles[1:], row[1:], strict=True)]
    return join([row[0], *cells])


def candidate_table(advice: ClipAdvice, view: View) -> list[Text]:
    """One row a candidate; what limits a replay stands below, once for all that share it."""
    if not advice.candidates:
        return []
    title = styled(CANDIDATES, "title")
    rows = [candidate_row(candidate, advice, view) for candidate in advice.candidates]
    lines = [*wrap(title, view.width), *table(CANDIDATE_TITLES, rows, view)]
    for note in dict.fromkeys(candidate.note for candidate in advice.candidates if candidate.note):
        names = ", ".join(candidate.name for candidate in advice.candidates if candidate.note == note)
        lines += wrap(styled(view.prose(f"{names}: {note}"), "quiet"), view.width, "    ", "  ")
    return lines


def candidate_row(candidate: Candidate, advice: ClipAdvice, view: View) -> list[Text]:
    """Name, threshold, how often it acts, and by how much."""
    cells = (describe_threshold(candidate), rate(candidate.clip_rate), describe_shrink(candidate))
    best = advice.verdict == "clip" and candidate.max_norm == advice.max_norm
    name = f"{candidate.name} (recommended)" if best else candidate.name
    return [styled(view.prose(cell), "title" if best else "") for cell in (name, *cells)]


def describe_threshold(candidate: Candidate) -> str:
    """The threshold; the newest where it changes; "–" where there is no single one."""
    if candidate.max_norm is not None:
        return figures.norm(candidate.max_norm)
    return "–" if candidate.last_max_norm is None else f"last {figures.norm(candidate.last_max_norm)}"


def describe_shrink(candidate: Candidate) -> str:
    """What is left of the gradients that it acts on."""
    if candidate.clip_rate == 0:
        return "–"
    return "skips" if candidate.mean_shrink == 0 else rate(candidate.mean_shrink)


def layer_shares(advice: ClipAdvice, view: View) -> list[Text]:
    """The layers with the largest shares of the squared norm, and how many more there are."""
    if not advice.layers:
        return []
    shown, rest = split_layers(advice)
    rows = [layer_row(layer, view) for layer in shown]
    lines = [*wrap(styled(LAYERS, "title"), view.width), *table(LAYER_TITLES, rows, view)]
    if rest:
        lines += wrap(styled(view.prose(describe_rest(rest)), "quiet"), view.width)
    if advice.dominant is not None:
        name = view.name(advice.dominant or "the root module")
        lines += wrap(styled(f"{name} {DOMINATES}", "warning"), view.width)
    return lines


def split_layers(advice: ClipAdvice) -> tuple[list[ClipLayer], list[ClipLayer]]:
    """Those with the largest shares, and the others."""
    ordered = sorted(advice.layers, key=lambda layer: -layer.share if not math.isnan(layer.share) else math.inf)
    return ordered[:SHOWN_LAYERS], ordered[SHOWN_LAYERS:]


def describe_rest(rest: Sequence[ClipLayer]) -> str:
    """How many more layers there are."""
    largest = rate(max(layer.share for layer in rest))
    return f"and {figures.plural(len(rest), 'more layer')}, the largest of them {largest}"


def layer_row(layer: ClipLayer, view: View) -> list[Text]:
    """A layer and its shares."""
    shares = (styled(view.prose(rate(share))) for share in (layer.share, layer.share_clipped))
    return [styled(view.name(layer.name) or "(model)"), *shares]


def verified_table(advice: ClipAdvice, view: View) -> list[Text]:
    """The runs of --verify beside each other."""
    if not advice.verified:
        return []
    rows = [verified_row(run, view) for run in advice.verified]
    return [*wrap(styled(VERIFIED, "title"), view.width), *table(VERIFIED_TITLES, rows, view)]


def verified_row(run: VerifiedRun, view: View) -> list[Text]:
    """One run; a promise that was broken stands out."""
    kept = {None: "–", True: "yes", False: "no"}[run.inside]
    cells = (
        styled(view.prose("–" if math.isnan(run.loss) else figures.plain(run.loss))),
        styled(view.prose(rate(run.clip_rate))),
        styled(view.prose(kept), "warning" if run.inside is False else ""),
        styled(f"{run.steps:,}"),
        styled(view.name(run.ended), "" if run.ended == "completed" else "warning"),
    )
    return [styled(view.prose(run.name)), *cells]
