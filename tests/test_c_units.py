"""
The C core's unit tests, tests/c: every unit, plain and under the sanitizers, with both doors (under the sanitizers with
semaphores only those that wait: the others are the same code).

Each program is built once and run as one test; its output is shown when it fails. By hand, with a word that selects
test functions, if there is one (environment: tests/c/harness.h):

    python tests/test_c_units.py run thread futex heap [word]

CC names the compiler (cbuild.py). Two compilers or programs run at a time.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cbuild import DOORS, VARIANTS, call, can_link, compile_core, compile_program, first_failure

pytestmark = pytest.mark.slow  # the first to be waited for comes after the core was compiled

SOURCES = {path.stem.split("test_")[-1]: path for path in sorted((Path(__file__).resolve().parent / "c").glob("*.c"))}
LINK = {  # see the heads of the tests
    "event": ["-Wl,--wrap=door_wake"],
    "spin": ["-Wl,--wrap=event_now,--wrap=sched_getaffinity,--wrap=sched_yield"],
    "cells": ["-Wl,--wrap=heap_lease,--wrap=heap_mark,--wrap=clock_gettime"],
}

# Units in which somebody sleeps, or is woken.
WAITING = {"counts", "event", "lost", "procs", "queue", "ready", "recover", "spin", "stress"}
assert SOURCES.keys() >= WAITING


def compile_unit(folder, variant, door, unit):
    """Make the program of a unit in the folder of the core's object files."""
    return compile_program(folder, variant, door, unit, SOURCES[unit], *LINK.get(unit, []))


def run_unit(folder, variant, unit, *words):
    """Run the program of a unit."""
    # ThreadSanitizer does not find its way through every random layout of the address space.
    fixed = ["setarch", "-R"] if variant == "thread" and shutil.which("setarch") else []
    if fixed and subprocess.run([*fixed, "true"], capture_output=True, check=False).returncode:
        fixed = []  # not allowed in some containers
    return call([*fixed, folder / unit, *words], folder)


@pytest.fixture(scope="session")
def outcomes(request, tmp_path_factory):
    """For each of the selected (variant, door, unit): the future of its exit code and output, or why it is skipped."""
    folder = tmp_path_factory.mktemp("c")
    selected = [item.callspec.params for item in request.session.items if item.path == Path(__file__)]
    selected = [(params["variant"], params["door"], params["unit"]) for params in selected]
    builds = dict.fromkeys((variant, door) for variant, door, _ in selected)
    skipped = {variant for variant, _ in builds if variant != "plain" and not can_link(folder, variant)}
    pool = ThreadPoolExecutor(2)
    cores = {}
    for variant, door in builds:
        if variant not in skipped:
            cores[variant, door] = pool.submit(compile_core, folder / f"{variant}-{door}", variant, door)

    def outcome(variant, door, unit):
        there = folder / f"{variant}-{door}"
        return first_failure(
            cores[variant, door].result,
            lambda: compile_unit(there, variant, door, unit),
            lambda: run_unit(there, variant, unit),
        )

    futures = {}
    for variant, door, unit in selected:
        if variant in skipped:
            futures[variant, door, unit] = f"the compiler cannot link {' '.join(VARIANTS[variant])}"
        else:
            futures[variant, door, unit] = pool.submit(outcome, variant, door, unit)
    yield futures
    for future in futures.values():
        if not isinstance(future, str):
            future.cancel()
    pool.shutdown()


@pytest.mark.parametrize(
    ("variant", "door", "unit"),
    [
        (variant, door, unit)
        for variant in VARIANTS
        for door in DOORS
        for unit in SOURCES
        if variant == "plain" or door == "futex" or unit in WAITING
    ],
)
def test_c_unit(outcomes, variant, door, unit):
    """The unit keeps its contract."""
    outcome = outcomes[variant, door, unit]
    if isinstance(outcome, str):
        pytest.skip(outcome)
    code, output = outcome.result()
    assert code == 0, f"{variant}, {door}, {unit}:\n{output}"


def main(command, variant, door, unit, *words):
    """Build one program and run it."""
    assert command == "run", __doc__
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "core"
        code, output = first_failure(
            lambda: compile_core(folder, variant, door),
            lambda: compile_unit(folder, variant, door, unit),
            lambda: run_unit(folder, variant, unit, *words),
        )
    print(output, end="")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) > 4 else __doc__)
