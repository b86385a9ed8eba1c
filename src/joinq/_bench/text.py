"""Figures as people read them."""

from __future__ import annotations

from joinq._bench.scenario import BYTES_EACH, KILLS, SHARE


def figure(value: float | None, unit: str) -> str:
    """Return a figure with its unit, three digits of it."""
    if value is None:
        return "-"
    if unit == SHARE:
        return f"{value:.3%}"
    if unit == BYTES_EACH:
        return f"{value:,.0f} B"
    if unit == KILLS:
        return f"{value:.0f} kill{'' if value == 1 else 's'}"
    for name, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size:
            return f"{_digits(value / size)} {name}"
    return f"{value * 1e9:.0f} ns"


def times(ratio: float) -> str:
    """Return a ratio."""
    return f"{_digits(ratio)}x"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
