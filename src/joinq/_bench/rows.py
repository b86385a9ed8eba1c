"""Condense measurements to rows: one for each figure and contender, with medians, ratios, and verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from joinq._bench import contenders, limits
from joinq._bench.contenders import BASELINE, FLOORS, ONE_BY_ONE, OURS
from joinq._bench.runner import Run
from joinq._bench.scenario import KILLS, SHARE, Metric
from joinq._bench.text import figure, times

Row = dict[str, Any]

# The roles that contenders have in a row.
BASE, OWN, PEER, BUNDLER, FLOOR = "baseline", "joinq", "peer", "peer that bundles items", "floor"


def condense(runs: Iterable[Run]) -> list[Row]:
    """
    Return the rows of all runs, those of one figure together, in the order of the scenarios.

    A row can be written as JSON; all that is known of it is in it. `median` is None if there is no figure; `why` says
    why then.
    """
    figures: dict[tuple[str, str], dict[str, Row]] = {}
    metrics: dict[tuple[str, str], Metric] = {}
    for run in runs:
        for metric in run.scenario.metrics:
            found, why = run.figures.get(metric.name), run.unavailable or run.failure
            if found is None and (not why or (_role(run.contender) == FLOOR and metric != run.scenario.metrics[0])):
                continue  # a floor stands for the first metric only
            key = run.scenario.name, metric.name
            metrics[key] = metric
            row = figures.setdefault(key, {}).setdefault(run.contender, _begin(run, metric))
            if found is not None:
                row["values"].append(found)
            row["why"], row["failed"] = why, bool(run.failure)
            row["note"] = run.notes.get(metric.name, "")
    for group in figures.values():
        for row in group.values():
            if row["why"]:
                row["values"] = []  # some rounds may have gone well
            values = row["values"] or [None]
            row["median"] = statistics.median(values) if row["values"] else None
            row["min"], row["max"] = (min(values), max(values)) if row["values"] else (None, None)
        for row in group.values():
            row["ratio"] = _ratio(row, group.get(BASELINE))
    for key, group in figures.items():
        if OURS in group:
            group[OURS]["targets"] = _targets(metrics[key], group)
    return [row for group in figures.values() for row in group.values()]


def _begin(run: Run, metric: Metric) -> Row:
    scenario = run.scenario
    return {
        "scenario": scenario.name,
        "metric": metric.name,
        "what": (scenario.run.__doc__ or "").strip().splitlines()[0],
        "unit": metric.unit,
        "n": scenario.n,
        "producers": scenario.producers,
        "consumers": scenario.consumers,
        "kind": scenario.kind,
        "item_bytes": scenario.item_bytes,
        "maxsize": scenario.maxsize,
        "contender": run.contender,
        "label": limits.LABELS.get(run.contender) or contenders.load(run.contender).label,
        "version": "" if run.contender in limits.LABELS else contenders.version(contenders.load(run.contender)),
        "role": _role(run.contender),
        "values": [],
        "targets": [],
    }


def _role(name: str) -> str:
    if name in limits.LABELS or name in FLOORS:
        return FLOOR
    if name in (BASELINE, OURS):
        return BASE if name == BASELINE else OWN
    return PEER if ONE_BY_ONE in contenders.load(name).can else BUNDLER


def _ratio(row: Row, base: Row | None) -> float | None:
    """Return how many times better than the stdlib a row is; above 1 is better."""
    if base is None or not row["median"] or not base["median"] or row["role"] == FLOOR or row["unit"] in (KILLS, SHARE):
        return None
    return float(base["median"] / row["median"])


def better(row: Row, other: Row) -> bool:
    """Return whether a row has a better figure than another of the same metric; False if one has none."""
    if row["median"] is None or other["median"] is None:
        return False
    more_is_better = row["unit"] == KILLS
    return bool(row["median"] > other["median"] if more_is_better else row["median"] < other["median"])


def _targets(metric: Metric, group: dict[str, Row]) -> list[dict[str, Any]]:
    """Return what is demanded of our row, what was found, and whether that is enough; None if it cannot be told."""
    own, unit = group[OURS], metric.unit
    verdicts: list[dict[str, Any]] = []

    def judge(demand: str, found: str, met: bool | None) -> None:
        known = own["median"] is not None
        verdicts.append({"demand": demand, "found": found if known else "nothing", "met": met if known else False})

    if metric.faster is not None:
        ratio = own["ratio"]
        demand = "not behind the stdlib" if metric.faster == 1 else f"{times(metric.faster)} the stdlib"
        judge(demand, "not known" if ratio is None else times(ratio), None if ratio is None else ratio >= metric.faster)
    if metric.bound is not None:
        least = unit == KILLS
        bound = min(metric.bound, own["n"]) if least else metric.bound
        met = own["median"] is not None and (own["median"] >= bound if least else own["median"] <= bound)
        judge(f"{'at least' if least else 'at most'} {figure(bound, unit)}", figure(own["median"], unit), met)
    if metric.floors:
        names = " + ".join(
            f"{times(factor)} {limits.LABELS.get(name) or contenders.load(name).label}"
            for factor, name in metric.floors
        )
        parts = [(factor, group.get(name, {}).get("median")) for factor, name in metric.floors]
        known = [factor * median for factor, median in parts if median is not None]
        if len(known) == len(parts) and own["median"] is not None:
            found = f"{times(own['median'] / sum(known))} that, which is {figure(sum(known), unit)}"
            judge(f"at most {names}", found, own["median"] <= sum(known))
        else:
            judge(f"at most {names}", "not known", None)
    peers = [row for row in group.values() if row["role"] == PEER]
    if metric.ahead and peers:
        ahead = [row["label"] for row in peers if better(row, own)]
        judge("no peer ahead", ", ".join(ahead) + " ahead" if ahead else "none", not ahead)
    return verdicts


def missed(rows: Sequence[Row]) -> list[str]:
    """Say which targets are missed, one line each, and where there is no figure of ours at all."""
    own = [row for row in rows if row["role"] == OWN]
    lines = [] if own else ["joinq was not measured"]
    for row in own:
        if row["why"]:
            lines.append(f"{name(row)}: {row['why']}")
        else:
            lines += [
                f"{name(row)}: {target['demand']} demanded, found {target['found']}"
                for target in row["targets"]
                if target["met"] is False
            ]
    return lines


def losses(rows: Sequence[Row]) -> list[str]:
    """Say where another queue has a better figure than ours, one line each, the fastest of them named first."""
    lines = []
    for own in rows:
        if own["role"] != OWN:
            continue
        rivals = [row for row in group_of(own, rows) if row["role"] in (BASE, PEER, BUNDLER) and better(row, own)]
        rivals.sort(key=lambda row: row["median"], reverse=own["unit"] == KILLS)
        if rivals:
            said = ", ".join(f"{row['label']} {figure(row['median'], row['unit'])}{_doubt(row, own)}" for row in rivals)
            lines.append(f"{name(own)}: joinq {figure(own['median'], own['unit'])}, {said}")
    return lines


def _doubt(row: Row, own: Row) -> str:
    """Return a remark if the spans of two rows overlap, so that the order may be chance."""
    overlap = row["min"] <= own["max"] and own["min"] <= row["max"] and row["unit"] != KILLS
    return " (spans overlap)" if overlap else ""


def group_of(row: Row, rows: Sequence[Row]) -> list[Row]:
    """Return all rows with the same scenario and metric."""
    return [other for other in rows if (other["scenario"], other["metric"]) == (row["scenario"], row["metric"])]


def groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows in lists of the same scenario and metric, in their order."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["scenario"], row["metric"]), []).append(row)
    return list(found.values())


def name(row: Row) -> str:
    """Return the name of what a row measures."""
    return row["scenario"] if row["metric"] == "per item" else f"{row['scenario']}, {row['metric']}"
