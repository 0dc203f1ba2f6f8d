"""The cells of the heat map as codes and as an image."""

from __future__ import annotations

import numpy as np

from gradcheck_cli.records import Floats, Ints
from gradcheck_cli.report.html.png import Bytes, colour_map, data_address, encode_png

TILE = 4
ABSENT, ZERO, BAD, FIRST_LEVEL = 0, 1, 2, 3
LEVELS = 65535 - FIRST_LEVEL
COLOURS = 240
CLEAR, GREY, WHITE, RED, FIRST_COLOUR = 0, 1, 2, 3, 4
PALETTE = [(0, 0, 0), (128, 128, 128), (255, 255, 255), (200, 0, 30), *colour_map(COLOURS)]


def decades(cells: Floats) -> tuple[float, float]:
    """The decimal logarithms of the least and the largest positive finite value; a decade apart at least."""
    known = np.log10(cells[np.isfinite(cells) & (cells > 0)])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    missing = max(0.0, 1.0 - (high - low)) / 2
    return round(low - missing, 6), round(high + missing, 6)


def quantise(cells: Floats, low: float, high: float, levels: int = LEVELS) -> Ints:
    """Codes of the cells: ABSENT, ZERO, BAD, or FIRST_LEVEL and up for `low` to `high`."""
    positive = np.isfinite(cells) & (cells > 0)
    shares = (np.log10(np.where(positive, cells, 1.0)) - low) / (high - low)
    codes = FIRST_LEVEL + np.rint(np.clip(shares, 0, 1) * (levels - 1)).astype(np.int64)
    return np.select([np.isnan(cells), np.isinf(cells), cells == 0], [ABSENT, BAD, ZERO], codes)


def paint(cells: Floats, low: float, high: float, tiles: tuple[int, int]) -> bytes:
    """The image, a pixel a cell. Cells without a colour have a pattern instead; then all are larger, by so many
    tiles of it down and across.
    """
    codes = quantise(cells, low, high, COLOURS)
    if (codes >= FIRST_LEVEL).all():
        return encode_png((codes - FIRST_LEVEL + FIRST_COLOUR).astype(np.uint8), PALETTE)
    down, across = tiles
    large = np.repeat(np.repeat(codes, TILE * down, axis=0), TILE * across, axis=1)
    pixels = large - FIRST_LEVEL + FIRST_COLOUR
    for code, pattern in ((ABSENT, HATCH), (ZERO, LINES), (BAD, CROSS)):
        repeated = np.tile(pattern, (codes.shape[0] * down, codes.shape[1] * across))
        pixels = np.where(large == code, repeated, pixels)
    return encode_png(pixels.astype(np.uint8), PALETTE, transparent=CLEAR)


def draw_pattern(rows: str, ink: int, paper: int) -> Bytes:
    """Of rows of # and dots."""
    return np.array([[ink if sign == "#" else paper for sign in row] for row in rows.split()], dtype=np.uint8)


HATCH = draw_pattern("#... .#.. ..#. ...#", GREY, CLEAR)
LINES = draw_pattern("#### .... .... ....", GREY, WHITE)
CROSS = draw_pattern("#..# .##. .##. #..#", RED, WHITE)


def colour_bar() -> str:
    """The colours from the least to the largest, as an image of one row."""
    return data_address(encode_png(np.arange(FIRST_COLOUR, FIRST_COLOUR + COLOURS, dtype=np.uint8)[None, :], PALETTE))
