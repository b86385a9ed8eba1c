"""Who has the queue, who has tasks in hand, who waits where, and how they died."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from multiprocessing import process
from typing import TYPE_CHECKING, NamedTuple

from joinq._native import OK, TIMEOUT, ffi, lib
from joinq.exceptions import LostProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from joinq._jnq import CData

__all__ = ["Holder", "describe", "everywhere", "file_at", "file_of", "has_writer", "holders", "lost", "our_children"]

CALLS = ("get()", "put()", "join()")


class Holder(NamedTuple):
    """A process that uses a queue, or died with tasks of it in hand."""

    pid: int
    name: str
    dead: bool
    failed: bool
    unsure: bool
    tasks: int
    oldest: float
    waits: tuple[tuple[str, int, float], ...]

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name})"


def holders(handle: CData) -> Iterator[Holder]:
    """Every process in the table."""
    out = ffi.new("jnq_holder *")
    number = 1
    while (rc := lib.jnq_read_holder(handle, number, out)) != TIMEOUT:
        number += 1
        if rc == OK:
            waits = zip(CALLS, out.waiting, out.waiting_ns)
            yield Holder(
                pid=out.pid,
                name=ffi.string(out.name).decode("utf-8", "replace"),
                dead=bool(out.dead),
                failed=out.exit == 2,
                unsure=bool(out.unsure),
                tasks=out.tasks,
                oldest=out.oldest_ns / 1e9,
                waits=tuple((call, threads, ns / 1e9) for call, threads, ns in waits if threads),
            )


def file_of(fd: int | str) -> tuple[int, int] | None:
    """What a descriptor, or a path, refers to: programs close, and so reuse, descriptors they do not know."""
    try:
        status = os.stat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def file_at(pid: int, fd: int) -> tuple[int, int] | None:
    """What a descriptor of another process refers to."""
    return file_of(f"/proc/{pid}/fd/{fd}")


def everywhere() -> Iterator[tuple[int, int]]:
    """Every process and descriptor that this one may look at."""
    return ((pid, fd) for pid in _numbers("/proc") for fd in _numbers(f"/proc/{pid}/fd"))


def our_children() -> set[int]:
    """The children of this process that run the same program, which is Python, whoever has started them."""
    children: list[int] = []
    for thread in _numbers("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children") as file:
            children += map(int, file.read().split())
    us = file_of("/proc/self/exe")
    return {pid for pid in children if file_of(f"/proc/{pid}/exe") == us}


def _numbers(path: str) -> list[int]:
    try:
        return [int(name) for name in os.listdir(path) if name.isdigit()]
    except OSError:  # gone, or another user's
        return []


def has_writer(handle: CData) -> bool:
    """True if a process lives that may put something: one that has used the queue and not closed `_writer`; or one that
    has it, from before a fork or under way, and has not used it yet.
    """
    if lib.jnq_writers(handle):
        return True
    known = {holder.pid for holder in holders(handle)}
    file = file_of(lib.jnq_fileno(handle))
    return file is None or any(
        pid not in known and file_at(pid, fd) == file and _is_writable(pid, fd) for pid, fd in everywhere()
    )


def _is_writable(pid: int, fd: int) -> bool:
    try:
        return bool(os.lstat(f"/proc/{pid}/fd/{fd}").st_mode & stat.S_IWUSR)
    except OSError:
        return False


def exit_code(pid: int) -> int | None:
    """The exit code of a dead child of ours, as `multiprocessing.Process.exitcode` has it, or None."""
    for child in list(process._dangling):  # type: ignore[attr-defined]
        if child._parent_pid == os.getpid() and child._popen is not None and child._popen.pid == pid:
            code: int | None = child.exitcode
            return code
    return None


def death(code: int | None, failed: bool = False) -> str:
    """How a process died, in words."""
    if code is None:
        return "failed" if failed else "died"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def tasks(n: int) -> str:
    return f"{n} task" if n == 1 else f"{n} tasks"


def lost(handle: CData, unfinished: int) -> tuple[LostProcess, ...]:
    """The dead that had the unfinished tasks in hand.

    A process that died in the middle of task_done() may have finished them or not: then the total tells.
    """
    dead = [holder for holder in holders(handle) if holder.dead and (holder.tasks or holder.unsure)]
    missing = unfinished - sum(holder.tasks for holder in dead)
    found = []
    for holder in dead:
        count = holder.tasks
        if holder.unsure and missing > 0:
            count += missing
            missing = 0
        if count:
            found.append(LostProcess(holder.pid, holder.name, exit_code(holder.pid), count))
    return tuple(found)


def describe(handle: CData) -> str:
    """A line for each process that has tasks in hand or waits."""
    lines = []
    for holder in holders(handle):
        about = []
        if holder.dead:
            about.append(death(exit_code(holder.pid), holder.failed))
        elif holder.tasks:
            about.append("is alive")
        if holder.tasks:
            had = "had" if holder.dead else "has"
            about.append(f"{had} {tasks(holder.tasks)} in hand, the oldest for {holder.oldest:.1f} s")
        for call, threads, seconds in holder.waits if not holder.dead else ():
            who = "waits" if threads == 1 else f"waits in {threads} threads"
            about.append(f"{who} in {call} for {seconds:.1f} s")
        if about:
            lines.append(f"  {holder} {', '.join(about)}")
    counters = ffi.new("jnq_counters *")
    lib.jnq_count(handle, counters)
    if counters.foreign:
        lines.append(
            "  these figures are uncertain: a process has finished a task that another one had taken, or has ended "
            "in order with tasks in hand"
        )
    if lib.jnq_on_death(handle) == lib.JNQ_IGNORE:
        lines.append("  with on_death='ignore' it is not known who has tasks in hand")
    return "\n".join(lines)
