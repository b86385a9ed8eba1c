"""Rows as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from joinq._bench.rows import OWN, Row, groups, losses, missed, name
from joinq._bench.text import figure, times

_VERDICTS = {True: "ok", False: "MISSED", None: "?"}


def render(rows: Sequence[Row]) -> str:
    """Return the table, and below it where joinq loses and misses its targets."""
    widths = [max(len(text) for text in column) for column in zip(*(_left(group[0]) for group in groups(rows)))]
    label = max(len(row["label"]) for row in rows)
    numbers = "".join(f"{title:>11}" for title in ("median", "min", "max"))
    head = f"{'scenario':<{widths[0]}} {'N':>{widths[1]}} {'PxC':>{widths[2]}}"
    lines = [f"{head}  {'queue':<{label}}{numbers}{'ratio':>8}  target"]
    for group in groups(rows):
        scenario, number, shape = _left(group[0])
        left = f"{scenario:<{widths[0]}} {number:>{widths[1]}} {shape:>{widths[2]}}"
        for row in group:
            lines.append(f"{left}  {row['label']:<{label}}{_figures(row)}".rstrip())
            left = " " * len(left)
    return "\n".join([*lines, "", *summary(rows)])


def summary(rows: Sequence[Row]) -> list[str]:
    """Return the lines that say where joinq loses."""
    lines = []
    for title, found in (("Others are better in", losses(rows)), ("Targets missed", missed(rows))):
        lines += [f"{title}: {'none' if not found else ''}".rstrip(), *(f"  {line}" for line in found)]
    return lines


def _left(row: Row) -> tuple[str, str, str]:
    shape = f"{row['producers']}x{row['consumers']}" if row["consumers"] else "1"
    return name(row), f"{row['n']:,}", shape


def _figures(row: Row) -> str:
    if row["median"] is None:
        return f"  {row['why']}"
    shown = "".join(f"{figure(row[key], row['unit']):>11}" for key in ("median", "min", "max"))
    ratio = times(row["ratio"]) if row["ratio"] else ""
    remarks = [row["note"]] if row["note"] else []
    if row["role"] == OWN:
        remarks += [f"{target['demand']} {_VERDICTS[target['met']]}" for target in row["targets"]]
    return f"{shown}{ratio:>8}  {'; '.join(remarks)}"
