"""A report as one HTML page (which is XML, too) that needs nothing else: no script, no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from joinq._bench import chart
from joinq._bench.rows import FLOOR, OWN, Row, groups, losses, missed, name
from joinq._bench.text import figure, times

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --soft: #59636e; --line: #d5dae0; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e8ecf0; --soft: #9ba7b3; --line: #343c45;
  --bad: #ff8a80; } }
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 900px; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; } h3 { margin: 1.6rem 0 0; } p.soft { color: var(--soft); margin: 0; }
svg { max-width: 100%; height: auto; } dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; }
dt { color: var(--soft); } dd { margin: 0; } ul.bad li::marker { color: var(--bad); }
table { border-collapse: collapse; font-size: 14px; } th, td { border-bottom: 1px solid var(--line);
  padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }
td.number { text-align: right; white-space: nowrap; }
.wide { overflow-x: auto; }
"""

_HOW = """Every figure is the median of several fresh processes, in which the rounds of all queues take turns; the thin
line is the span from minimum to maximum. All queues run the same loops on the same items, and what arrives is counted
and summed up. joinq and the stdlib's JoinableQueue count and join tasks; the others, which cannot, are finished when
their readers have reported once that they have everything. A dashed bar is a floor: not a queue, but a limit."""


def render(report: dict[str, Any]) -> str:
    """Return the page."""
    rows: list[Row] = report["rows"]
    body = [
        "<h1>joinq, measured</h1>",
        '<p class="soft">beside multiprocessing.JoinableQueue, and beside what else was installed</p>',
        _machine(report),
        "<h2>Where joinq loses</h2>",
        *_list("Another queue is better in", losses(rows)),
        *_list("Targets missed", missed(rows)),
        "<h2>All ratios</h2>",
        chart.ratios(rows),
        "<h2>Killed workers</h2>",
        _kills(rows),
        "<h2>Figures</h2>",
        f"<p>{escape(_HOW)}</p>",
        *(_section(group) for group in groups(rows) if chart.is_chart(group)),
        "<h2>All of it as a table</h2>",
        _table(rows),
    ]
    head = f'<meta charset="utf-8"/><title>joinq, measured</title><style>{chart.STYLE}{_STYLE}</style>'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
    html = '<html lang="en" xmlns="http://www.w3.org/1999/xhtml">'
    return "\n".join(["<!DOCTYPE html>", html, f"<head>{head}</head>", "<body>", *body, "</body></html>", ""])


def _machine(report: dict[str, Any]) -> str:
    where: dict[str, Any] = report["machine"]
    packages = dict(where["packages"])
    packages.update({row["label"]: row["version"] for row in report["rows"] if row["version"] and row["role"] != FLOOR})
    entries = {
        "machine": f"{where['processor']} ({where['machine']}), {where['usable_cpus']} of {where['cpus']} CPUs, "
        f"{where['memory_bytes'] / 2**30:.0f} GiB",
        "system": f"{where['kernel']}, load {where['load_before']:.1f} before",
        "Python": f"{where['python']}, start method {report['start_method']}",
        "versions": ", ".join(f"{package} {version}" for package, version in packages.items()),
        "commit": where["commit"] or "not known: installed",
        "measured": where["date"] + ("" if report["share"] == 1 else f", with {report['share']:.0%} of the items"),
    }
    if report["absent"]:
        entries["absent"] = "; ".join(f"{contender}: {why}" for contender, why in report["absent"].items())
    return "<dl>" + "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in entries.items()) + "</dl>"


def _list(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return [f"<p>{title}: nothing.</p>"]
    entries = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return [f"<p>{title}:</p>", f'<ul class="bad">{entries}</ul>']


def _section(group: Sequence[Row]) -> str:
    row = group[0]
    shape = f"{row['producers']}x{row['consumers']} processes" if row["consumers"] else "one process"
    limit = f", at most {row['maxsize']} in the queue" if row["maxsize"] else ""
    told = [
        f"Target: {target['demand']}, found {target['found']}{' — missed' if target['met'] is False else ''}"
        for own in group
        if own["role"] == OWN
        for target in own["targets"]
    ]
    about = ". ".join([row["what"].rstrip(".").replace("`n`", f"{row['n']:,}"), f"{shape}{limit}".capitalize(), *told])
    return f'<h3>{escape(name(row))}</h3><p class="soft">{escape(about)}.</p>\n{chart.bars(group)}'


def _kills(rows: Sequence[Row]) -> str:
    groups_of_kills = [group for group in groups(rows) if not chart.is_chart(group)]
    if not groups_of_kills:
        return "<p>Not measured.</p>"
    head = "".join(f"<th>{escape(name(group[0]))}</th>" for group in groups_of_kills)
    lines = []
    for row in groups_of_kills[0]:
        cells = [next(r for r in group if r["label"] == row["label"]) for group in groups_of_kills]
        lines.append(f"<tr><td>{escape(row['label'])}</td>{''.join(map(_kill_cell, cells))}</tr>")
    explained = (
        "SIGKILL hits a worker while it does nothing but put, or get, and a new one takes its place: "
        f"how many of {groups_of_kills[0][0]['n']} kills the queue survives."
    )
    return (
        f"<p>{explained}</p><table><thead><tr><th>queue</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def _kill_cell(row: Row) -> str:
    if row["median"] is None:
        return f"<td>{escape(row['why'])}</td>"
    fate = f"then: {row['note']}" if row["note"] else "all" if row["median"] >= row["n"] else "out of time"
    return f"<td>{row['median']:.0f} ({escape(fate)})</td>"


def _table(rows: Sequence[Row]) -> str:
    titles = ["figure", "queue", "median", "min", "max", "times the stdlib"]
    lines = []
    for row in rows:
        cells = [f"<td>{escape(name(row))}</td><td>{escape(row['label'])}</td>"]
        if row["median"] is None:
            cells.append(f'<td colspan="4">{escape(row["why"])}</td>')
        else:
            numbers = [figure(row[key], row["unit"]) for key in ("median", "min", "max")]
            numbers.append(times(row["ratio"]) if row["ratio"] else "")
            cells += [f'<td class="number">{number}</td>' for number in numbers]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{title}</th>" for title in titles)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
