"""Who has the queue, who has tasks in hand, who waits where, and how they died."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from dataclasses import dataclass
from multiprocessing import process
from typing import TYPE_CHECKING, Any, NamedTuple

from joinq._native import OK, TIMEOUT, ffi, lib
from joinq.exceptions import LostProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from joinq._jnq import CData

__all__ = [
    "Death",
    "Holder",
    "Wait",
    "deaths",
    "everywhere",
    "file_at",
    "file_of",
    "has_writer",
    "holders",
    "is_writable",
    "lost",
    "our_children",
]

CALLS = ("get()", "put()", "join()")


class Wait(NamedTuple):
    """Threads of a process that are blocked in a call of a queue."""

    call: str  # "get()", "put()" or "join()"
    threads: int
    seconds: float  # the first of them, until now


@dataclass(frozen=True)
class Holder:
    """A process that uses a queue, or died with tasks of it in hand.

    Attributes:
        pid: of the process.
        name: what `multiprocessing.current_process().name` was when it began to use the queue.
        alive: False once it is dead. Who is stopped, or slow, is alive.
        state: of a living process, in words: "runs", "sleeps", "is stopped" ...; "" where that cannot be told.
        exitcode: of a dead one, as Process.exitcode: -9 is SIGKILL. Its parent knows it; others do if they found the
            death before the parent did, or if it had said so; else None.
        tasks: how many it has taken and not reported done. 0 if that cannot be known: in a queue without task_done(),
            and with on_death="ignore".
        oldest: for how many seconds it has had the oldest of them; at least so long if there are more than 8; None
            without tasks. Exact to a clock tick (4 ms, usually) if tasks are finished in the order of their taking.
        waits: the calls in which threads of it are blocked now.
        puts, gets: items that it has put, and taken (but not those that it gave back).
        idle: for how many seconds it was not seen to do anything with the queue. Waits, and takes of tasks, count to
            a clock tick; of other puts and gets each 16th does, and those that wake somebody up.
        unsure: it died while it reported tasks done; they may be among `tasks`, or not.
    """

    pid: int
    name: str
    alive: bool
    state: str
    exitcode: int | None
    tasks: int
    oldest: float | None
    waits: tuple[Wait, ...]
    puts: int
    gets: int
    idle: float
    unsure: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name})"

    @property
    def fate(self) -> str:
        """What has become of it, in words: "is alive", "is stopped", "was killed by SIGKILL", ..."""
        if self.alive:
            return self.state if self.state in _REMARKABLE else "is alive"
        return death(self.exitcode)


_STATES = {"R": "runs", "S": "sleeps", "D": "waits for a device", "T": "is stopped", "t": "is being debugged"}
_REMARKABLE = {"is stopped", "is being debugged"}

# An exit code that is not known, but is not 0.
_FAILED = 256

# What a process announces before it ends; else that it failed.
_ANNOUNCED = {0: None, 1: 0}


def holders(handle: CData) -> Iterator[Holder]:
    """Every process in the table of a queue, or of a picture of one."""
    out = ffi.new("jnq_holder *")
    number = 1
    while (rc := lib.jnq_read_holder(handle, number, out)) != TIMEOUT:
        number += 1
        if rc == OK:
            waits = zip(CALLS, out.waiting, out.waiting_ns)
            yield Holder(
                pid=out.pid,
                name=ffi.string(out.name).decode("utf-8", "replace"),
                alive=not out.dead,
                state="" if out.dead else _state(out.pid),
                exitcode=_exitcode(out.pid, out.status, _ANNOUNCED.get(out.exit, _FAILED)) if out.dead else None,
                tasks=out.tasks,
                oldest=out.oldest_ns / 1e9 if out.tasks else None,
                waits=tuple(Wait(call, n, ns / 1e9) for call, n, ns in waits if n and not out.dead),
                puts=out.puts,
                gets=out.gets,
                idle=out.idle_ns / 1e9,
                unsure=bool(out.unsure),
            )


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return _STATES.get(file.read().rpartition(b") ")[2][:1].decode(), "")
    except OSError:
        return ""


def _code_of(status: int) -> int | None:
    try:
        return os.waitstatus_to_exitcode(status)
    except ValueError:  # only after foreign writes
        return None


def _exitcode(pid: int, status: int, announced: int | None) -> int | None:
    """How a dead process ended: as its parent knows it, as who found it read it (0: nobody), or as it had announced."""
    code = exit_code(pid)
    if code is None and status:
        code = _code_of(status)
    return announced if code is None else code


class Death(NamedTuple):
    """A process that died, otherwise than in order, while it used a queue."""

    pid: int
    name: str
    exitcode: int | None  # as in Holder
    tasks: int  # that it had in hand
    time: float  # when that was noticed, as time.time()

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name}) {death(self.exitcode)}"


def deaths(handle: CData, after: int = 0) -> list[Death]:
    """The last few deaths, oldest first, but not the first so many of all."""
    counters, out = ffi.new("jnq_counters *"), ffi.new("jnq_death *")
    lib.jnq_glance(handle, counters)
    found = []
    for number in range(max(after, counters.deaths - _REMEMBERED) + 1, counters.deaths + 1):
        if lib.jnq_read_death(handle, number, out) == OK:
            code = _exitcode(out.pid, out.status, _FAILED if out.failed else None)
            name = ffi.string(out.name).decode("utf-8", "replace")
            found.append(Death(out.pid, name, code, out.tasks, out.time_ms / 1000))
    return found


_REMEMBERED = 8


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
        pid not in known and file_at(pid, fd) == file and is_writable(pid, fd) for pid, fd in everywhere()
    )


def is_writable(pid: int, fd: int) -> bool:
    """Whether a process has it open for writing; who only looks at a queue has not, and does not keep it."""
    try:
        return bool(os.lstat(f"/proc/{pid}/fd/{fd}").st_mode & stat.S_IWUSR)
    except OSError:
        return False


def started() -> Iterator[Any]:
    """The Process objects of this process's children that were started, and not closed."""
    for reference in list(process._dangling.data):  # type: ignore[attr-defined]  # one step: other threads start some
        child = reference()
        if child is not None and child._parent_pid == os.getpid() and child._popen is not None:
            yield child


def exit_code(pid: int) -> int | None:
    """The exit code of a dead child of ours, as `multiprocessing.Process.exitcode` has it, or None."""
    for child in started():
        if child._popen.pid == pid:
            code: int | None = child.exitcode
            return code
    return None


def death(code: int | None) -> str:
    """How a process died, in words."""
    if code is None:
        return "died"
    if code == _FAILED:
        return "failed"
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
    dead = [holder for holder in holders(handle) if not holder.alive and (holder.tasks or holder.unsure)]
    missing = unfinished - sum(holder.tasks for holder in dead)
    found = []
    for holder in dead:
        count = holder.tasks
        if holder.unsure and missing > 0:
            count += missing
            missing = 0
        if count:
            code = None if holder.exitcode == _FAILED else holder.exitcode
            found.append(LostProcess(holder.pid, holder.name, code, count))
    return tuple(found)
