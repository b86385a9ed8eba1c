"""
Rows as charts: SVG that needs nothing else, for light and dark.

Colours come from the style sheet alone, and every colour is accompanied by text, so that nothing depends on seeing it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from joinq._bench.rows import BASE, FLOOR, OWN, Row, better, groups, name
from joinq._bench.scenario import KILLS
from joinq._bench.text import figure, times

STYLE = """
svg { color-scheme: light dark; font: 13px system-ui, sans-serif; --paper: #fff; --ink: #1b1f24; --soft: #59636e;
  --line: #d5dae0; --own: #0b6bcb; --rest: #9aa6b2; --base: #5c6670; --floor: #c77700; }
@media (prefers-color-scheme: dark) { svg { --paper: #14181d; --ink: #e8ecf0; --soft: #9ba7b3; --line: #343c45;
  --own: #58a6ff; --rest: #596673; --base: #9aa6b2; --floor: #e0a341; } }
svg text { fill: var(--ink); } svg .soft { fill: var(--soft); } svg .strong { font-weight: 650; }
svg .grid { stroke: var(--line); } svg .one { stroke: var(--soft); }
svg .span { stroke: var(--ink); } svg .halo { stroke: var(--paper); stroke-width: 4; }
svg .joinq { fill: var(--own); } svg .baseline { fill: var(--base); } svg .peer, svg .bundler { fill: var(--rest); }
svg .floor { fill: none; stroke: var(--floor); stroke-dasharray: 4 3; } svg .dot { fill: var(--paper);
  stroke: var(--ink); stroke-width: 2; } svg .paper { fill: var(--paper); }
"""

_ROW, _BAR = 22, 12  # the height of a line, and of what is drawn in it
_WIDTH, _LEFT, _RIGHT = 860, 230, 240  # the whole, and the columns of text beside the plot
_PLOT = _WIDTH - _LEFT - _RIGHT
_FIGURE, _TIMES = 56, 36  # the width of labels
_LOG_FROM = 15  # a greater ratio of the longest to the shortest bar needs a log scale


class _Scale(NamedTuple):
    """Where values are on the x axis; a log scale if `log`."""

    low: float
    high: float
    log: bool

    def x(self, value: float) -> float:
        """Return the position of a value, within the plot."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return _LEFT + _PLOT * share

    def ticks(self, label: float) -> list[float]:
        """Return the values to draw lines at, whose labels are so wide: powers of ten, and a few others with room."""
        if self.log:
            decades = math.log10(self.high / self.low)
            factors = (1, 2, 5) if _PLOT / decades * math.log10(2) > label else (1,)
            first, last = math.floor(math.log10(self.low)), math.floor(math.log10(self.high))
            values = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
            return [value for value in values if self.low <= value * 1.0001 and value <= self.high]
        step = 10.0 ** math.floor(math.log10(self.high))
        step *= 0.5 if self.high / step < 2.5 else 2 if self.high / step > 6 else 1
        return [step * i for i in range(int(self.high / step) + 1)]


def _scale(values: Sequence[float]) -> _Scale:
    """Return a scale for bars of these lengths. A log scale begins below the shortest, so that this one can be seen."""
    low, high = min(values), max(values)
    if low > 0 and high / low > _LOG_FROM:
        return _Scale(10.0 ** math.floor(math.log10(low / 1.5)), high * 1.05, True)
    return _Scale(0.0, high * 1.05 or 1.0, False)


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _bar(x1: float, x2: float, y: float, kind: str) -> str:
    width = max(1.0, x2 - x1)
    return f'<rect x="{x1:.1f}" y="{y - _BAR / 2:.1f}" width="{width:.1f}" height="{_BAR}" rx="2" class="{kind}"/>'


def _axis(scale: _Scale, top: float, bottom: float, ticks: dict[float, str]) -> list[str]:
    parts = [_text(_LEFT - 40, bottom + 16, "log scale", "soft", "end")] if scale.log else []
    for value, label in ticks.items():
        x = scale.x(value)
        parts += [_line(x, top, x, bottom, "grid"), _text(x, bottom + 16, label, "soft", "middle")]
    return parts


def _svg(title: str, description: str, height: float, parts: Sequence[str], style: str = "") -> str:
    """Return an element that says in words, too, what it shows."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(description)}</desc>",
            style,
            *parts,
            "</svg>",
        ]
    )


def bars(group: Sequence[Row]) -> str:
    """Draw the rows of one figure, the best first: bars of the medians, and lines from minimum to maximum."""
    unit, title = group[0]["unit"], name(group[0])
    known = sorted((row for row in group if row["median"] is not None), key=lambda row: row["median"])
    unknown = [row for row in group if row["median"] is None]
    parts, bottom = [], _ROW * len(group) + 4
    if known:
        scale = _scale([row[key] for row in known for key in ("median", "max")])
        ticks = {value: figure(value, unit) if value else "0" for value in scale.ticks(_FIGURE)}
        parts += _axis(scale, 0, bottom, ticks)
    for place, row in enumerate([*known, *unknown]):
        y = _ROW * (place + 0.5) + 2
        emphasis = "strong" if row["role"] == OWN else ""
        parts.append(_text(_LEFT - 10, y + 4, row["label"], emphasis, "end"))
        if row["median"] is None:
            parts.append(_text(_LEFT + 4, y + 4, _shortened(row["why"], 90), "soft"))
            continue
        parts.append(_bar(_LEFT, scale.x(row["median"]), y, row["role"].split()[0] if row["role"] != OWN else "joinq"))
        for kind in ("halo", "span"):
            parts.append(_line(scale.x(row["min"]), y, scale.x(row["max"]), y, kind))
        x = _WIDTH - _RIGHT + 12
        parts.append(_text(x, y + 4, figure(row["median"], unit), emphasis))
        if row["ratio"] and row["role"] != BASE:
            parts.append(_text(x + 90, y + 4, f"{times(row['ratio'])} the stdlib", f"soft {emphasis}"))
    said = "; ".join(f"{row['label']} {figure(row['median'], unit)}" for row in known)
    return _svg(title, f"Medians: {said}", bottom + 24 if known else bottom, parts)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def ratios(rows: Sequence[Row], style: str = "") -> str:
    """Draw for every figure how many times better than the stdlib joinq is (bar), and the best other queue (dot)."""
    entries = [(group, own) for group in groups(rows) for own in group if own["role"] == OWN and own["ratio"]]
    title = "How many times better than multiprocessing.JoinableQueue"
    if not entries:
        return _svg(title, "Nothing was measured", 1, [], style)
    pairs = [(own, _best(group)) for group, own in entries]
    shown = [row["ratio"] for pair in pairs for row in pair if row]
    scale = _Scale(min(0.5, *shown) / 1.1, max(10.0, *shown) * 1.1, True)
    top, right = 2 * _ROW, _WIDTH - _RIGHT + 12
    bottom = top + _ROW * len(pairs) + 4
    parts = ['<rect class="paper" width="100%" height="100%"/>'] if style else []
    parts.append(_text(_LEFT, 16, title, "strong"))
    parts.append(_text(right, 38, "joinq", "strong"))
    if any(rival for _, rival in pairs):
        parts.append(_text(right + 62, 38, "best of the others (○)", "soft"))
    parts += _axis(scale, top, bottom, {value: times(value) for value in scale.ticks(_TIMES)})
    for place, (own, rival) in enumerate(pairs):
        y = top + _ROW * (place + 0.5) + 2
        parts.append(_text(_LEFT - 10, y + 4, name(own), "", "end"))
        begin, end = sorted([scale.x(1), scale.x(own["ratio"])])
        parts += [_bar(begin, end, y, "joinq"), _text(right, y + 4, times(own["ratio"]), "strong")]
        if rival:
            parts.append(f'<circle cx="{scale.x(rival["ratio"]):.1f}" cy="{y:.1f}" r="4" class="dot"/>')
            parts.append(_text(right + 62, y + 4, f"{times(rival['ratio'])} {rival['label']}", "soft"))
    parts.append(_line(scale.x(1), top, scale.x(1), bottom, "one"))
    said = "; ".join(f"{name(own)} {times(own['ratio'])}" for own, _ in pairs)
    return _svg(title, f"joinq: {said}", bottom + 28, parts, style)


def _best(group: Sequence[Row]) -> Row | None:
    """Return the best of the other queues, the stdlib's JoinableQueue not among them, if there is one."""
    best: Row | None = None
    for row in group:
        if row["role"] not in (OWN, BASE, FLOOR) and row["ratio"] and (best is None or better(row, best)):
            best = row
    return best


def standalone(rows: Sequence[Row]) -> str:
    """Return the chart of ratios as a file of its own."""
    return ratios(rows, f"<style>{STYLE}</style>") + "\n"


def is_chart(group: Sequence[Row]) -> bool:
    """Return whether rows are drawn: numbers of kills are better told in a table."""
    return bool(group[0]["unit"] != KILLS)
