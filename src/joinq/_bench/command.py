"""`python -m joinq bench`: what its options ask for, in its order."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from joinq._bench import chart, contenders, machine, page, runner, table
from joinq._bench.rows import condense, missed
from joinq._bench.scenario import Scenario
from joinq._bench.scenarios import QUICK_ROUNDS, QUICK_SHARE, SCENARIOS
from joinq._command import CommandError, progress

FORMAT = 2
"""Of the JSON file."""


class Options(NamedTuple):
    """What the command line says: see `python -m joinq bench --help`."""

    quick: bool = False
    peers: bool = False
    only: Sequence[str] = ()
    check: bool = False
    json: str | None = None
    html: str | None = None
    svg: str | None = None
    source: str | None = None
    start_method: str = "fork"
    share: float | None = None


def bench(options: Options) -> int:
    """
    Do what the command line says.

    Raises:
        CommandError: It cannot be done, and nothing was measured.
    """
    for place in filter(None, (options.json, options.html, options.svg)):
        _check_writable(Path(place))
    report = _load(Path(options.source)) if options.source else _measure(options)
    print(table.render(report["rows"]))
    for path, text in (
        (options.json, json.dumps(report, indent=1) + "\n"),
        (options.html, page.render(report)),
        (options.svg, chart.standalone(report["rows"])),
    ):
        if path:
            Path(path).write_text(text, encoding="utf-8")
    return 1 if options.check and missed(report["rows"]) else 0


def select(only: Sequence[str]) -> list[Scenario]:
    """Return the scenarios whose names hold one of some texts; all if there is none."""
    chosen = [scenario for scenario in SCENARIOS if any(part in scenario.name for part in only or [""])]
    if not chosen:
        names = ", ".join(scenario.name for scenario in SCENARIOS)
        raise CommandError(f"no scenario's name holds {' or '.join(map(repr, only))}; there are: {names}")
    return chosen


def _measure(options: Options) -> dict[str, Any]:
    """Make all measurements and return what the JSON file holds."""
    share, rounds = (QUICK_SHARE, QUICK_ROUNDS) if options.quick else (1.0, 1.0)
    if options.share is not None:
        share, rounds = options.share, 0.0
    selection = [scenario.scaled(share, rounds) for scenario in select(options.only)]
    wanted = [contenders.BASELINE, contenders.OURS, *(contenders.PEERS if options.peers else ())]
    absent = {name: why for name, why in contenders.absent().items() if name in wanted}
    for name, why in absent.items():
        print(f"{name} is absent: {why}", file=sys.stderr)
    where = machine.describe()
    if where["load_before"] > machine.QUIET:
        print(f"load {where['load_before']:.1f}: other programs blur the figures", file=sys.stderr)
    steps = runner.plan(selection, [name for name in wanted if name not in absent])
    runs = []
    with progress("bench", len(steps)) as bar:
        for step, run in zip(steps, runner.measure_all(steps, share, options.start_method)):
            if run:
                runs.append(run)
            bar.set_description(f"{step.scenario.name}, {step.contender}")
            bar.update()
    return {
        "format": FORMAT,
        "share": share,
        "start_method": options.start_method,
        "machine": where,
        "absent": absent,
        "rows": condense(runs),
    }


def _load(path: Path) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if report["format"] != FORMAT:
            raise ValueError("it was made by another version")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(f"cannot show {str(path)!r}: {error}") from error
    return report


def _check_writable(path: Path) -> None:
    """Find out before measuring that there is no place for the result."""
    try:
        path.open("a").close()
    except OSError as error:
        raise CommandError(f"cannot write {str(path)!r}: {error.strerror}") from error
