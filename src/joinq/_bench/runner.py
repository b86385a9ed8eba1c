"""
Measure.

Every measurement is a fresh process; rounds are interleaved (stdlib, joinq, stdlib, joinq, ...), so that a machine
that gets slower slows down all of them alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from joinq._bench import contenders
from joinq._bench.contenders._bytes import PREFIX
from joinq._bench.scenario import Scenario

# The threads of NumPy's libraries spin for a while after an import, and would take the CPUs of who is measured.
_NO_COMPANY = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")

LIMIT_S = 180
"""A measurement that takes longer hangs: the slowest one needs a fifth of it."""


class Run(NamedTuple):
    """One measurement: who, what, and either figures or why there are none."""

    contender: str
    scenario: Scenario
    figures: dict[str, float]
    notes: dict[str, str]
    unavailable: str = ""
    failure: str = ""


class Step(NamedTuple):
    """One measurement to be made."""

    scenario: Scenario
    round: int
    contender: str


def plan(selection: Sequence[Scenario], names: Sequence[str]) -> list[Step]:
    """Return all measurements in their order: one contender after the other within each round of a scenario."""
    return [
        Step(scenario, number, name)
        for scenario in selection
        for number in range(scenario.rounds)
        for name in (*names, *scenario.floors)
        if name in scenario.floors or scenario.takes(contenders.load(name))
    ]


def measure_all(steps: Sequence[Step], share: float, start_method: str) -> Iterator[Run | None]:
    """Make all measurements, one for each step. None: the contender has failed in this scenario before."""
    out_of_it = set()
    for step in steps:
        key = (step.scenario.name, step.contender)
        if key in out_of_it:
            yield None
            continue
        run = measure(step.contender, step.scenario, share, start_method)
        if run.unavailable or run.failure:
            out_of_it.add(key)
        yield run


def measure(name: str, scenario: Scenario, share: float, start_method: str) -> Run:
    """
    Measure one contender once, in a fresh process and what it starts.

    If it fails or hangs, the stacks of all its processes are shown on stderr.
    """
    command = [sys.executable, "-m", "joinq._bench.one", name, scenario.name]
    command += [repr(share), start_method]
    # Files, not pipes: those would stay open until the last worker ends, which may be never.
    # The directory is for what contenders do not clear away.
    with contextlib.ExitStack() as stack:
        output, log = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX))
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=log,
            env={**os.environ, **_NO_COMPANY, "PYTHONFAULTHANDLER": "1", "TMPDIR": directory},
            start_new_session=True,  # a process group of its own, so that no worker outlives it
        )
        end = f"hung for {LIMIT_S} s"
        try:
            end = f"exit status {process.wait(LIMIT_S)}"
        except subprocess.TimeoutExpired:
            pass
        finally:
            _abort(process.pid, log)
            process.wait()
            _remove_leftovers(process.pid)
        output.seek(0)
        log.seek(0)
        if process.returncode:
            said = log.read().strip()
            print(f"\n{name}, {scenario.name}: {end}\n{said}", file=sys.stderr)
            return Run(name, scenario, {}, {}, failure=f"{end}: {_reason(said)}")
        answer: dict[str, Any] = json.loads(output.read().splitlines()[-1])
        return Run(
            name,
            scenario,
            answer.get("figures", {}),
            answer.get("notes", {}),
            unavailable=answer.get("unavailable", ""),
        )


def _reason(log: str) -> str:
    """Return the line of a log that is most likely to say why."""
    lines = log.partition("\nStacks of process")[0].strip().splitlines()
    return next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "")[:200]


def _abort(group: int, log: IO[str]) -> None:
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


def _remove_leftovers(group: int) -> None:
    """Remove what contenders whose processes were killed have left in shared memory."""
    for path in Path("/dev/shm").glob(f"*{PREFIX}{group}-*"):
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
