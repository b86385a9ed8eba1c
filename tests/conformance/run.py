"""Runs the tests that CPython wrote for its own queues, from the interpreters' own `test` packages, on joinq's queues.

    python tests/conformance/run.py                                  this interpreter, everything
    python tests/conformance/run.py --python python3.9 --python python3.13 --method spawn --suite queue
    python tests/conformance/run.py --table tests/conformance/RESULTS.md
    python tests/conformance/run.py --queues swaps_two_items         queues of broken.py, or those of the stdlib

Each interpreter needs joinq and its `test` package. A test that fails is run with the stdlib's queues, too. A test that
takes longer than the limit fails with the stacks of its processes, and the run goes on. Exits with 1 if a test
failed, or none was found.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

HERE = Path(__file__).parent
METHODS = ("fork", "spawn", "forkserver")
SUITES = ("multiprocessing", "concurrent_futures", "logging", "queue")
stop = threading.Event()  # set when the program ends before it is done

VERSION = "import platform; print(platform.python_version())"
COLUMNS = ("passed", "skipped", "not applicable", "fails with the stdlib, too", "failed")


@dataclass
class Result:
    outcome: str
    detail: str = ""
    seconds: float = 0.0


@dataclass
class Unit:
    """One suite with one start method in one interpreter: a row of the table."""

    python: str
    version: str
    method: str
    suite: str
    borrow: list[str]  # where to find tests that this interpreter came without, and of which version they are; or none
    results: dict[str, Result] = field(default_factory=dict)
    missing: str = ""  # why its tests are not here
    borrowed: bool = False

    def __str__(self) -> str:
        return f"{self.version} {self.where} {self.suite}"

    @property
    def where(self) -> str:
        return "threads" if self.suite == "queue" else self.method

    def failed(self) -> list[str]:
        return [test for test, result in self.results.items() if result.outcome == "failed"]


def session(leader: int) -> list[int]:
    """The processes of a session, which are those that its leader has started, and theirs."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(status[3]) == leader and status[0] != "Z":
                    members.append(int(entry.name))
    return members


def emptied(leader: int, seconds: float) -> bool:
    """Waits until nobody of the session is left. Returns whether that came."""
    deadline = time.monotonic() + seconds
    while session(leader):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def end_session(leader: int) -> None:
    """Ends all processes of the session, which show their stacks if they can."""
    for number in (signal.SIGABRT, signal.SIGKILL):
        for pid in session(leader):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        emptied(leader, 3)


# To import and select the tests, on a busy machine.
BETWEEN_S = 60


class Progress:
    """What a worker has written so far."""

    def __init__(self, unit: Unit, done: dict[str, Result], results: TextIO) -> None:
        self.running = ""  # the test
        self.heard = time.monotonic()
        self.finished = False
        self._unit, self._done, self._results, self._rest = unit, done, results, ""

    def is_late(self, limit: float) -> bool:
        """Whether a test, or what comes before, between and after the tests, takes longer than it may."""
        return time.monotonic() - self.heard > (limit if self.running or self.finished else max(limit, BETWEEN_S))

    def read(self) -> bool:
        """Reads what is new. Returns whether a test has begun."""
        *lines, self._rest = (self._rest + self._results.read()).split("\n")
        begun = False
        for line in lines:
            record = json.loads(line)
            self.heard = time.monotonic()
            if "begin" in record:
                self.running, begun = record["begin"], True
            elif "end" in record:
                self._done[record["end"]] = Result(record["outcome"], record["detail"], record["seconds"])
                self.running = ""
            elif "missing" in record:
                self._unit.missing, self.finished = record["missing"], True
            elif "borrowed" in record:
                self._unit.borrowed = True
            else:
                self.finished = True
        return begun


def run(unit: Unit, queues: str, limit: float, only: list[str]) -> dict[str, Result]:
    """Runs the suite, in as many processes as it takes, each until a test hangs or ends it."""
    done: dict[str, Result] = {}
    while not stop.is_set() and not run_once(unit, queues, limit, only, done):
        pass
    return done


def run_once(unit: Unit, queues: str, limit: float, only: list[str], done: dict[str, Result]) -> bool:
    """Runs what is not done in a process. Returns whether there is nothing left to run."""
    with tempfile.TemporaryDirectory() as directory:
        selection, results, output = (Path(directory) / name for name in ("selection", "results", "output"))
        selection.write_text(json.dumps({"only": only, "done": list(done)}))
        results.touch()
        process = start(unit, queues, selection, results, output)
        began = 0  # so much had been said before the running test
        with results.open() as file:
            progress = Progress(unit, done, file)
            while process.poll() is None and not progress.is_late(limit) and not stop.is_set():
                time.sleep(0.02)
                if progress.read():
                    began = output.stat().st_size
            progress.read()
        if process.poll() is None:
            why = f"not finished after {limit:g} s"
        elif process.returncode != 0 or not progress.finished:
            why = f"its process ended with {process.returncode}"
        elif not emptied(process.pid, 10):  # the helpers of multiprocessing end when they notice
            why = "left processes behind"
        else:
            return True
        end_session(process.pid)
        process.wait()
        said = output.read_bytes()[began:][-30000:].decode(errors="replace")
        done[progress.running or f"{unit.suite}: after test {len(done)}"] = Result("failed", f"{why}\n{said}", limit)
        return not progress.running


def start(unit: Unit, queues: str, selection: Path, results: Path, output: Path) -> subprocess.Popen[bytes]:
    """Starts a worker, as the leader of a session, by which its processes are found."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
        "PYTHONFAULTHANDLER": "1",  # so SIGABRT shows the stacks
        "PYTHONDONTWRITEBYTECODE": "1",
        "CONFORMANCE_METHOD": unit.method,
    }
    if unit.borrow:
        environment["CONFORMANCE_BORROW"] = unit.borrow[0]
    with output.open("wb") as file:
        return subprocess.Popen(
            [unit.python, str(HERE / "worker.py"), unit.suite, queues, str(selection), str(results)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=selection.parent,
            start_new_session=True,
            env=environment,
        )


def compare(unit: Unit, limit: float) -> None:
    """Finds out which of the failed tests fail with the stdlib's queues, too.

    Not of test_queue: it was written for another queue, so that says nothing.
    """
    failed = unit.failed()
    if failed and unit.suite != "queue":
        theirs = run(unit, "stdlib", limit, failed)
        for test in failed:
            if test in theirs and theirs[test].outcome == "failed":
                unit.results[test].outcome = "fails with the stdlib, too"


def markdown(units: list[Unit], queues: str) -> str:
    """The table, and below it which tests are not plainly passed."""
    lines = [
        f"# CPython's own tests on the queues of {queues}",
        "",
        f"Made by `python tests/conformance/run.py --table FILE`, {datetime.date.today()}, on "
        f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} CPUs.",
        "",
        "Skipped: by the tests' own conditions. Not applicable: see `not_applicable.py`. Fails with the stdlib, too:",
        "the same test fails in the same interpreter with the stdlib's queues.",
        "",
        "| Python | start method | suite | run | " + " | ".join(COLUMNS) + " |",
        "|---|---|---|" + "--:|" * (len(COLUMNS) + 1),
    ]
    total: Counter[str] = Counter()
    for unit in units:
        if unit.missing:
            lines.append(f"| {unit.version} | {unit.where} | {unit.suite} | not installed |" + " |" * len(COLUMNS))
            continue
        of = f" (tests of {unit.borrow[1]})" if unit.borrowed else ""
        counts = Counter(result.outcome for result in unit.results.values())
        total += counts
        lines.append(f"| {unit.version} | {unit.where} | {unit.suite}{of} | {row(counts)}")
    lines.append(f"| **all** | | | {row(total)}")
    for outcome in COLUMNS[1:]:
        lines += ["", f"## {outcome[0].upper()}{outcome[1:]}", ""]
        where: dict[str, list[Unit]] = {}
        for unit in units:
            for test, result in unit.results.items():
                if result.outcome == outcome:
                    why = f": {result.detail.splitlines()[-1]}" if outcome in ("skipped", "not applicable") else ""
                    where.setdefault(f"`{test.rpartition('.')[2]}`{why}", []).append(unit)
        for test, there in sorted(where.items()):
            versions = dict.fromkeys(unit.version.rpartition(".")[0] for unit in there)
            methods = dict.fromkeys(unit.where for unit in there)
            lines.append(f"* {test} ({', '.join(versions)}; {', '.join(methods)})")
        if not where:
            lines.append("None.")
    return "\n".join(lines) + "\n"


def row(counts: Counter[str]) -> str:
    run = sum(counts.values()) - counts["not applicable"]
    return " | ".join(str(number) for number in (run, *(counts[outcome] for outcome in COLUMNS))) + " |"


def ask(python: str, program: str) -> str:
    """What an interpreter prints."""
    return subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", metavar="PATH", help="an interpreter (default: this one)")
    parser.add_argument("--method", action="append", choices=METHODS, help="a start method (default: all)")
    parser.add_argument("--suite", action="append", choices=SUITES, help="a suite (default: all)")
    parser.add_argument("--test", action="append", metavar="PATTERN", help="only tests like *TestQueue.test_put")
    parser.add_argument("--queues", default="joinq", help="joinq, stdlib, or a defect of broken.py (default: joinq)")
    parser.add_argument("--limit", type=float, default=60, help="seconds for a test (default: 60)")
    parser.add_argument("--jobs", type=int, default=1, help="suites at the same time (default: 1)")
    parser.add_argument("--table", type=Path, metavar="FILE", help="where the table is written")
    parser.add_argument("-v", "--verbose", action="store_true", help="show every test")
    parser.add_argument("--borrow", metavar="PATH", help="an interpreter whose tests others use that came without")
    options = parser.parse_args()

    borrow = ask(options.borrow, f"import test; print(test.__path__[0]); {VERSION}").split() if options.borrow else []
    units = [
        Unit(python, ask(python, VERSION), method, suite, borrow)
        for python in [os.path.abspath(shutil.which(path) or path) for path in options.python or [sys.executable]]
        for method in options.method or METHODS
        for suite in options.suite or SUITES
        if suite != "queue" or method == (options.method or METHODS)[0]  # threads only
    ]

    def work(unit: Unit) -> Unit:
        unit.results = run(unit, options.queues, options.limit, options.test or ["*"])
        if options.queues != "stdlib":
            compare(unit, options.limit)
        return unit

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool, contextlib.ExitStack() as ended:
        ended.callback(stop.set)
        for unit in pool.map(work, units):
            seconds = sum(result.seconds for result in unit.results.values())
            counts = Counter(result.outcome for result in unit.results.values())
            said = unit.missing or ", ".join(f"{counts[outcome]} {outcome}" for outcome in COLUMNS if counts[outcome])
            print(f"{unit}: {said} ({seconds:.0f} s)", flush=True)
            for test, result in unit.results.items():
                if options.verbose:
                    print(f"    {result.seconds:6.2f} s {result.outcome}: {test}")
                if result.outcome == "failed":
                    print(f"FAILED {unit}: {test}\n{result.detail}", flush=True)
    if options.table:
        options.table.write_text(markdown(units, options.queues))
    return any(unit.failed() for unit in units) or not any(unit.results for unit in units)


if __name__ == "__main__":
    sys.exit(main())
