"""
A process is killed before each instruction of each operation: kill/steps.c, with both doors.

As a test it tries every eighth kill point. All of them, which takes minutes, are tried by

    python tests/test_kill_steps.py [stride [offset [word]]]

where a word selects scenarios. It needs an x86-64 and the permission to trace its own children (ptrace).
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cbuild import DOORS, HERE, call, compile_core, compile_program, first_failure

pytestmark = pytest.mark.slow

SOURCE = HERE / "kill" / "steps.c"
WRAPPED = "-Wl,--wrap=malloc"  # so that it can fail
BOUND = "-Wl,-z,now"  # else the first call of each function of libc would be searched for, in thousands of steps
SKIPPED = 77  # exit code: this machine cannot do it
STRIDE = 8


def run_steps(folder, door, *words):
    """Build the program for a door in a folder that does not exist yet, and run it."""
    return first_failure(
        lambda: compile_core(folder, "plain", door),
        lambda: compile_program(folder, "plain", door, "steps", SOURCE, BOUND, WRAPPED, "-ldl"),
        lambda: call([folder / "steps", *words], folder),
    )


@pytest.mark.parametrize(("door", "offset"), [("futex", 3), ("sem", 7)])
def test_kill_at_every_step(door, offset, tmp_path):
    """Whatever instruction a process dies at, nothing is lost or done twice, and the others go on."""
    code, output = run_steps(tmp_path / "core", door, STRIDE, offset)
    if code == SKIPPED:
        pytest.skip(output.strip())
    assert code == 0, output
    print(output)


def main(*words):
    """Try all with both doors at the same time."""
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(len(DOORS)) as pool:
        runs = [pool.submit(run_steps, Path(name) / door, door, *words) for door in DOORS]
        for door, run in zip(DOORS, runs):
            code, output = run.result()
            print(f"{output}{door}: exit code {code}", flush=True)
    return max(run.result()[0] for run in runs)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
