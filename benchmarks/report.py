"""Tables and verdicts, from what `run.py` wrote: `python benchmarks/report.py F [--check]`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from contenders import BASELINE, OURS

Row = dict[str, Any]


def rows(runs: list[dict[str, Any]]) -> list[Row]:
    """
    Condense single runs to one row for each figure and contender.

    Args:
        runs: What `run.measure` returned, interleaved as they were measured.

    Returns:
        Rows with the median, minimum and maximum of all rounds, the ratio to the stdlib's
        median (above 1: faster than the stdlib) and the target that ours has to reach.
    """
    figures: dict[tuple[str, str, str], Row] = {}
    for run in runs:
        for metric in run["metrics"]:
            key = (run["scenario"], metric["name"], run["contender"])
            row = {name: value for name, value in run.items() if name not in ("metrics", "figures")}
            row.update(metric=metric["name"], faster=metric["faster"], at_most=metric["at_most"])
            row = figures.setdefault(key, {**row, "values": []})
            row["values"].append(run["figures"][metric["name"]])
    for (scenario, metric, _), row in figures.items():
        row.update(median=statistics.median(row["values"]), min=min(row["values"]), max=max(row["values"]))
        base = figures.get((scenario, metric, BASELINE))
        row["ratio"] = None
        if base and row["median"]:
            row["ratio"] = statistics.median(base["values"]) / row["median"]
    # Contenders of one figure stand together, whatever the order of the rounds was.
    order = {key[:2]: place for place, key in reversed(list(enumerate(figures)))}
    return sorted(figures.values(), key=lambda row: order[row["scenario"], row["metric"]])


def missed(row: Row) -> str | None:
    """Say in one line which target the row of ours misses, or return None."""
    name = f"{row['scenario']}, {row['metric']}"
    if row["contender"] != OURS:
        return None
    if row["at_most"] is not None:
        if row["median"] < row["at_most"]:
            return None
        return f"{name}: {row['median']:.3%} of a core, below {row['at_most']:.3%} is demanded"
    if row["ratio"] is None:
        return f"{name}: the stdlib was not measured"
    if row["ratio"] >= row["faster"]:
        return None
    return f"{name}: {row['ratio']:.2f} times the stdlib, {row['faster']:g} times is demanded"


def table(rows: list[Row]) -> str:
    """Render rows for a terminal."""
    numbers = f"{'median':>13}{'min':>13}{'max':>13}{'ratio':>8}"
    lines = [f"{'scenario':<30}{'N':>10} {'PxC':>4}  {'queue':<8}{numbers}  target"]
    above = ""
    for row in rows:
        name = f"{row['scenario']}, {row['metric']}"
        shape = f"{row['producers']}x{row['consumers']}" if row["consumers"] else "1"
        left = f"{name:<30}{row['n']:>10,} {shape:>4}" if name != above else " " * 45
        above = name
        if row["at_most"] is None:
            shown = [f"{row[key] * 1e6:,.2f} us" for key in ("median", "min", "max")]
            ratio, target = f"{row['ratio']:.2f}x" if row["ratio"] else "", f"{row['faster']:g}x"
        else:
            shown = [f"{row[key]:.4%}" for key in ("median", "min", "max")]
            ratio, target = "", f"< {row['at_most']:.1%}"
        verdict = ""
        if row["contender"] == OURS:
            verdict = f"{target} {'MISSED' if missed(row) else 'ok'}"
        figures = "".join(f"{text:>13}" for text in shown)
        lines.append(f"{left}  {row['label']:<8}{figures}{ratio:>8}  {verdict}".rstrip())
    return "\n".join(lines)


def check(rows: list[Row]) -> int:
    """
    Name the rows that miss their target on stderr.

    Returns:
        The exit status: 0 if all rows reach their target, else 1.
    """
    failures = [failure for failure in map(missed, rows) if failure]
    if all(row["contender"] != OURS for row in rows):
        failures.append("our queue was not measured")
    for failure in failures:
        print(f"MISSED  {failure}", file=sys.stderr)
    return 1 if failures else 0


def main() -> int:
    """Show a JSON file that `run.py` wrote."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", type=Path, metavar="F")
    parser.add_argument("--check", action="store_true", help="fail if a target is missed")
    options = parser.parse_args()
    rows = json.loads(options.file.read_text())["rows"]
    print(table(rows))
    return check(rows) if options.check else 0


if __name__ == "__main__":
    sys.exit(main())
