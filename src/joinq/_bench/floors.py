"""What the hardware and the kernel allow at best: floors.c, compiled at first use and run in a fresh process.

Each function measures anew, in a fraction of a second (wake_s in as many twentieths of a second as it is told to), and
raises Unavailable where it cannot: no Linux, no compiler, or a sandbox that forbids it. CC names the compiler; else it
is cc, gcc or clang.
"""

from __future__ import annotations

import atexit
import functools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["Unavailable", "memcpy_fresh_s", "memcpy_parallel_s", "memcpy_s", "round_trip_s", "wake_s"]

_SOURCE = Path(__file__).with_name("floors.c")
_LIMIT_S = 60.0  # far more than any of them takes


class Unavailable(Exception):
    """The floors cannot be measured here; its text says why."""


def round_trip_s(n: int = 20_000) -> float:
    """The median of n round trips of a word between two processes that spin for 30 us, then sleep in a futex.

    On one CPU they sleep at once.
    """
    return _measure("round_trip", n)


def wake_s(n: int = 40) -> float:
    """The median of n times from FUTEX_WAKE to the woken process running, after it was asleep for 50 ms."""
    return _measure("wake", n, n * 0.06)


def memcpy_s(nbytes: int) -> float:
    """The median of one copy of so many bytes into shared memory plus one out of it, all warm, in one process."""
    return _measure("copy", nbytes)


def memcpy_fresh_s(nbytes: int) -> float:
    """The median of one copy out of warm shared memory into memory that the system gives for it, and takes back."""
    return _measure("fresh", nbytes)


def memcpy_parallel_s(nbytes: int) -> float:
    """The same with one process that copies in while another copies out, per item."""
    return _measure("pipeline", nbytes)


def _measure(floor: str, number: int, expected_s: float = 0.0) -> float:
    if number < 1:
        raise ValueError(f"what {floor} is measured with must be at least 1, not {number}")
    output = _run([str(_program()), floor, str(number)], _LIMIT_S + 2 * expected_s)
    return float(output)


def _run(command: list[str], limit_s: float) -> str:
    """What a command says, if it succeeds."""
    name = os.path.basename(command[0])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except OSError as reason:
        raise Unavailable(f"{name} cannot be run: {reason}") from reason
    except subprocess.TimeoutExpired as reason:
        raise Unavailable(f"{name} has not ended after {limit_s:.0f} s") from reason
    if done.returncode:
        raise Unavailable(f"{name} failed: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout


def _compiler() -> list[str]:
    """The words that the compiler's command begins with."""
    command = shlex.split(os.environ.get("CC", ""))
    for name in [command[0]] if command else ["cc", "gcc", "clang"]:
        if shutil.which(name):
            return command or [name]
    raise Unavailable(f"there is no C compiler ({' '.join(command) or 'cc, gcc, clang'})")


@functools.cache
def _program() -> Path:
    """The compiled program, which is there until this process ends."""
    if not sys.platform.startswith("linux"):
        raise Unavailable(f"futexes are Linux's, and this is {sys.platform}")
    compiler = _compiler()
    folder = tempfile.mkdtemp(prefix="joinq-floors-")
    atexit.register(_remove, folder, os.getpid())
    program = Path(folder, "floors")
    _run([*compiler, "-std=gnu11", "-O2", "-o", str(program), str(_SOURCE)], _LIMIT_S)
    return program


def _remove(folder: str, pid: int) -> None:
    if os.getpid() == pid:  # not in the child of a fork
        shutil.rmtree(folder, ignore_errors=True)
