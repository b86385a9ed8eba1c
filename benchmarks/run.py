"""
Measure: `python benchmarks/run.py [--quick] [--only NAME] [--json F] [--check]`.

Every measurement is a fresh process that prints one JSON line; rounds are interleaved (stdlib,
joinq, stdlib, joinq, ...), so that a machine that gets slower slows down all of them alike.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import multiprocessing
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import contenders
import report
from scenarios import SCENARIOS, Scenario

LIMIT_S = 180
"""A measurement that takes longer hangs: the slowest one needs a tenth of it."""

QUIET = 0.5
"""A load average above it is worth a warning before any figure is believed."""


def measure_here(name: str, scenario: Scenario, start_method: str) -> dict[str, Any]:
    """Measure one contender once, in this process, which must be a fresh one."""
    multiprocessing.set_start_method(start_method)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a hang leaves stacks, not core files
    contender = contenders.load(name)
    figures = scenario.run(contender, scenario)
    return {
        "scenario": scenario.name,
        "contender": name,
        "label": contender.label,
        "version": contender.version,
        "n": scenario.n,
        "producers": scenario.producers,
        "consumers": scenario.consumers,
        "payload_bytes": scenario.payload_bytes,
        "maxsize": scenario.maxsize,
        "start_method": start_method,
        "metrics": [asdict(metric) for metric in scenario.metrics],
        "figures": {metric.name: figures[metric.name] for metric in scenario.metrics},
    }


def abort(group: int, log: IO[str]) -> None:
    """Let all processes of a group write their stacks to the log, one by one, and end."""
    stats = sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parent.name))
    for stat in stats:
        with contextlib.suppress(OSError):  # it ended meanwhile
            if int(stat.read_text().rpartition(")")[2].split()[2]) == group:
                print(f"\nStacks of process {stat.parent.name}:", file=log, flush=True)
                os.kill(int(stat.parent.name), signal.SIGABRT)  # faulthandler's cue
                time.sleep(0.1)  # it writes in small pieces, which must not mix
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def measure(name: str, scenario: Scenario, quick: bool, start_method: str) -> dict[str, Any]:
    """
    Measure one contender once, in a fresh process and what it starts.

    Raises:
        RuntimeError: It failed or hung; the message holds the stacks of all its processes.
    """
    command = [sys.executable, __file__, "--start-method", start_method]
    command += ["--one", name, scenario.name] + ["--quick"] * quick
    # Files, not pipes: those would stay open until the last worker ends, which may be never.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=log,
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},
            start_new_session=True,  # a process group of its own, so that no worker outlives it
        )
        end = f"hung for {LIMIT_S} s"
        try:
            end = f"exit status {process.wait(LIMIT_S)}"
        except subprocess.TimeoutExpired:
            pass
        finally:
            abort(process.pid, log)
            process.wait()
        output.seek(0)
        log.seek(0)
        if process.returncode:
            raise RuntimeError(f"{name}, {scenario.name}: {end}\n{log.read()}")
        result: dict[str, Any] = json.loads(output.read().splitlines()[-1])
        return result


def interleaved(
    selection: Sequence[Scenario], names: Sequence[str], quick: bool, start_method: str = "fork"
) -> Iterator[dict[str, Any]]:
    """Measure all rounds of all scenarios, one contender after the other within each round."""
    steps = [
        (scenario, number, name)
        for scenario in selection
        for number in range((scenario.quick() if quick else scenario).rounds)
        for name in names
    ]
    for done, (scenario, number, name) in enumerate(steps, 1):
        progress = f"[{done}/{len(steps)}] {scenario.name}, round {number + 1}: {name}"
        if sys.stderr.isatty():
            print(f"\r\033[K{progress}", end="", file=sys.stderr, flush=True)
        yield measure(name, scenario, quick, start_method)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Describe where the figures come from."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    packages = {}
    for name in ("joinq", "cffi"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "processor": models[0] if models else platform.processor(),
        "kernel": f"{platform.system()} {platform.release()}",
        "cpus": os.cpu_count(),
        "usable_cpus": len(affinity(0)) if affinity else os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": packages,
        "commit": commit.stdout.strip() or "unknown",
    }


def main() -> int:
    """Measure the contenders beside each other and print a table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the items, 3 rounds")
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        help="scenarios whose name holds NAME; repeatable",
    )
    parser.add_argument("--json", metavar="F", type=Path, help="write all figures to F")
    parser.add_argument("--check", action="store_true", help="fail if a target is missed")
    parser.add_argument("--start-method", default="fork", choices=multiprocessing.get_all_start_methods())
    parser.add_argument("--one", nargs=2, metavar=("QUEUE", "SCENARIO"), help=argparse.SUPPRESS)
    options = parser.parse_args()

    if options.one:
        name, wanted = options.one
        scenario = next(scenario for scenario in SCENARIOS if scenario.name == wanted)
        scenario = scenario.quick() if options.quick else scenario
        print(json.dumps(measure_here(name, scenario, options.start_method)))
        return 0

    only = options.only or [""]
    selection = [s for s in SCENARIOS if any(part in s.name for part in only)]
    if not selection:
        names = ", ".join(scenario.name for scenario in SCENARIOS)
        parser.error(f"no scenario's name holds {' or '.join(only)}; there are: {names}")
    absent = contenders.absent()
    for name, reason in absent.items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    present = [name for name in contenders.NAMES if name not in absent]
    where = machine()
    if where["load_before"] > QUIET:
        print(f"load {where['load_before']:.1f}: other programs blur the figures", file=sys.stderr)
    rows = report.rows(list(interleaved(selection, present, options.quick, options.start_method)))
    print(report.table(rows))
    if options.json:
        data = {"format": 1, "quick": options.quick, "machine": where, "rows": rows}
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    return report.check(rows) if options.check else 0


if __name__ == "__main__":
    sys.exit(main())
