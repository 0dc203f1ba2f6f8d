"""Numbers as a person reads them."""

from __future__ import annotations

import math


def scientific(value: float) -> str:
    """Two digits, one shape for a whole column: 1.2e-03; "–" for NaN, which means that there is nothing."""
    if math.isnan(value):
        return "–"
    return "0" if value == 0 else f"{value:.1e}"


def plain(value: float) -> str:
    """Three significant digits: 2.31, 0.0041, 1.2e-05, nan."""
    return f"{value:.3g}"


def norm(value: float) -> str:
    """Three significant digits as Python reads them, without an exponent from 0.0001 on: 0.83, 5.0, 12300, 1.5e-05."""
    rounded = float(f"{value:.2e}")
    return repr(rounded).removesuffix(".0") if abs(rounded) >= 100 else repr(rounded)


def percent(fraction: float) -> str:
    """Two digits without the sign; 0 and 100 only where they are exact."""
    if math.isnan(fraction):
        return "–"
    if fraction in (0, 1):
        return f"{100 * fraction:.0f}"
    if fraction < 0.001:
        return "<0.1"
    return ">99" if fraction > 0.99 else f"{100 * fraction:.2g}"


def ordinal(number: float) -> str:
    """95th, 92nd, 99.9th."""
    whole = float(number).is_integer()
    special = {1: "st", 2: "nd", 3: "rd"} if whole and int(number) % 100 not in (11, 12, 13) else {}
    return f"{number:g}{special.get(int(number) % 10, 'th')}"


def count(number: int) -> str:
    """1,290 or 10.7M."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """1 layer, 2 layers."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
