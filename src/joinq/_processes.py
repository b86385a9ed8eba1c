"""
Who runs, and on how many CPUs: process introspection as the newest stdlib documents it.

Processes are those of `multiprocessing`, whichever context started them. CPUs are
counted anew on each call; the user's override is read once, as Python itself does.
"""

from __future__ import annotations

import multiprocessing.process
import os
import re
import sys
from collections.abc import Iterator
from multiprocessing.process import BaseProcess

_INT_MAX = 2**31 - 1  # Python keeps the override in a C int.
# Read once, as by Python itself: later changes are for children. Empty is not set.
_VARIABLE = not sys.flags.ignore_environment and os.environ.get("PYTHON_CPU_COUNT")
_ROOT = ""  # Stands before every path read below; tests have their own /proc and /sys.


def active_children() -> list[BaseProcess]:
    """
    Return the living children of this process, and join those that have finished.

    The same as `multiprocessing.active_children`: all children that `multiprocessing`
    started count. A killed child is a finished one. A forked process has none yet.
    """
    return multiprocessing.process.active_children()


def current_process() -> BaseProcess:
    """
    Return the object that stands for this process.

    The same as `multiprocessing.current_process`. A child, forked or not, has its own.
    """
    return multiprocessing.process.current_process()


def parent_process() -> BaseProcess | None:
    """
    Return the object that stands for the process that started this one.

    The same as `multiprocessing.parent_process`. It outlives the parent: its
    `is_alive()` is False then, and its `join()` returns.

    Returns:
        The parent, or None if this process was not started by `multiprocessing`.
    """
    return multiprocessing.process.parent_process()


def cpu_count() -> int:
    """
    Return the number of CPUs of the machine, or the number the user put in its place.

    The same as `multiprocessing.cpu_count` of Python 3.13, on every version: the
    option `-X cpu_count=N`, or else the variable `PYTHON_CPU_COUNT=N`, replaces the
    number; the word `default` for N replaces nothing. All children inherit the
    variable, but only forked ones the option (as in the stdlib).

    Raises:
        NotImplementedError: If the number cannot be determined.
        ValueError: If N is not a number of CPUs. (Python 3.13 refuses to start then.)
    """
    return _override() or multiprocessing.get_context().cpu_count()  # multiprocessing.cpu_count may be this function


def process_cpu_count() -> int:
    """
    Return the number of CPUs the calling thread may run on: its affinity.

    The same as `os.process_cpu_count` of Python 3.13, on every version: an override
    of `cpu_count()` holds here too; where the system has no affinity, it is
    `cpu_count()`.

    Raises:
        NotImplementedError, ValueError: As `cpu_count()` does.
    """
    override = _override()
    if override is None and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return override or cpu_count()


def available_cpu_count() -> int:
    """
    Return how many workers that compute can make progress at once in this process.

    It is the smaller of `process_cpu_count()` and the CPU limits of the control groups
    (versions 1 and 2) around this process, parts of a CPU rounded up. An override of
    `cpu_count()` wins here too. The stdlib has no such function.

    Returns:
        The number, at least 1. A limit that cannot be read is no limit.

    Raises:
        NotImplementedError, ValueError: As `cpu_count()` does.
    """
    return _override() or min([process_cpu_count(), *_cgroup_limits()])


def _override() -> int | None:
    """Return the number of CPUs that the user set, None if there is none."""
    native = getattr(sys, "_get_cpu_count_config", None)
    if native is not None:  # Python 3.13 has read and checked it.
        return max(native(), 0) or None
    count = None
    # The order in which Python 3.13 applies them: the later one wins.
    for source, value in (
        ("PYTHON_CPU_COUNT", _VARIABLE or None),
        ("-X cpu_count", sys._xoptions.get("cpu_count")),
    ):
        if value is None:
            continue
        text = "" if value is True else value  # True: `-X cpu_count` with no value.
        # What C's strtol() reads, as Python 3.13 uses that; int() takes more.
        number = re.fullmatch(r"\s*\+?0*([1-9][0-9]{0,9})", text)
        count = int(number[1]) if number else None
        if text != "default" and (count is None or count > _INT_MAX):
            raise ValueError(f"{source}: {text!r} is not a number of CPUs; set one from 1 to {_INT_MAX}, or 'default'")
    return count


def _cgroup_limits() -> list[int]:
    """Return the limit of each limited group around this process, in whole CPUs."""
    limits = []
    for path in _cgroups("cpu"):
        text = _read(f"{path}/cpu.max") or " ".join(_read(f"{path}/cpu.cfs_{name}_us") for name in ("quota", "period"))
        try:
            quota, period = map(int, text.split())
        except ValueError:  # "max", malformed or missing: no limit.
            continue
        if quota > 0 and period > 0:
            limits.append(-(-quota // period))
    return limits


def _cgroups(controller: str) -> Iterator[str]:
    """Yield the directories of the groups around this process that may have files of a controller."""
    for line in _read("/proc/self/cgroup").split("\n"):
        controllers, colon, group = line.partition(":")[2].partition(":")
        # Version 2 names no controllers. Only one version has a controller at a time; the
        # files of the other one are missing.
        if colon and (not controllers or controller in controllers.split(",")):
            yield from _cgroup_paths(group, {"cgroup", controller} if controllers else {"cgroup2"})


def _cgroup_paths(group: str, marks: set[str]) -> Iterator[str]:
    """
    Yield the directory of a group, then those of its ancestors, as far as visible.

    Its hierarchy is the mounted one whose type and options hold all the marks.
    """
    mounts = []
    for line in _read("/proc/self/mountinfo").split("\n"):
        mount, _, kind = (part.split(" ") for part in line.partition(" - "))
        if len(mount) < 5 or len(kind) < 3:
            continue
        if marks <= {kind[0], *kind[2].split(",")}:
            root, point = (_unescape(field).rstrip("/") for field in mount[3:5])
            below = group[len(root) :].rstrip("/")
            # A namespace, or a mount of other groups only, can hide our group. The root
            # of the mount is then the nearest that there is to see.
            hidden = not f"{group}/".startswith(f"{root}/") or "/../" in f"{below}/"
            mounts.append((hidden, len(root), point, "" if hidden else below))
    if mounts:
        _, _, point, below = min(mounts)  # The shortest root shows the most ancestors.
        while below:
            yield point + below
            below = below.rpartition("/")[0]
        yield point


def _unescape(field: str) -> str:
    """Return a field of mountinfo with its octal escapes (blanks, backslash) undone."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def _read(path: str) -> str:
    """Return the text of a file, none if it cannot be read."""
    try:
        with open(_ROOT + path, "rb") as file:
            return os.fsdecode(file.read())
    except (OSError, ValueError):  # ValueError: a malformed file led to this path.
        return ""
