"""joinq.processes(): what becomes of the processes that work together with this one."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from joinq._holders import death, started
from joinq._observe import views_of
from joinq._processes import parent_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from joinq._holders import Holder
    from joinq._observe import View

__all__ = ["ProcessInfo", "processes"]


@dataclass(frozen=True)
class ProcessInfo:
    """A process that is related to this one.

    Attributes:
        pid: of the process.
        name: its multiprocessing name.
        relation: "child", "parent" or "sibling".
        alive: False once it is dead. Who is stopped, or slow, is alive.
        exitcode: of a dead one, as Process.exitcode: -9 is SIGKILL. None where it is not known, as of a parent.
        cpu_seconds: that it has used, in user and system mode; None if it is dead, or psutil is not installed.
        resident_bytes: of its memory that is in RAM, what it shares with others included; None likewise.
        start_method: "fork", "spawn" or "forkserver"; None of others than children, and of those that multiprocessing
            has not started.
        queues: names of the queues that it uses, as far as they can be seen from here.
        tasks: how many it has taken from them and not reported done: see Holder.
    """

    pid: int
    name: str
    relation: str
    alive: bool
    exitcode: int | None
    cpu_seconds: float | None
    resident_bytes: int | None
    start_method: str | None
    queues: tuple[str, ...]
    tasks: int

    @property
    def signal(self) -> str | None:
        """The signal that killed it, "SIGKILL" for example, or None."""
        if self.exitcode is None or self.exitcode >= 0:
            return None
        try:
            return signal.Signals(-self.exitcode).name
        except ValueError:
            return f"signal {-self.exitcode}"

    @property
    def fate(self) -> str:
        """What has become of it, in words: "is alive", "was killed by SIGKILL", ..."""
        return "is alive" if self.alive else death(self.exitcode)


def processes() -> list[ProcessInfo]:
    """Tells of the children of this process, and of its parent and of siblings that share a queue with it.

    Children are those that multiprocessing has started, the dead ones as long as the program keeps their Process
    object; and other living ones (os.fork(), subprocess) that share a queue. The parent is that of
    parent_process(), or whoever has forked this one and shares a queue; siblings are living. Each of them costs some
    looks into /proc. Unlike active_children() it joins nobody. In the child of a fork it tells of the child's own
    relatives. The stdlib has no such function.
    """
    views = list(views_of([]).values())
    found: dict[int, ProcessInfo] = {}
    if (parent := parent_process()) and parent.pid:
        found[parent.pid] = _told(parent.pid, parent.name, "parent", parent.is_alive(), None, None, views)
    for child in started():
        pid: int = child._popen.pid
        code: int | None = child.exitcode
        found[pid] = _told(pid, child.name, "child", code is None, code, getattr(child._popen, "method", None), views)
    for holder in _others(views):
        if holder.pid not in found and (relation := _relation(holder.pid)):
            found[holder.pid] = _told(holder.pid, holder.name, relation, True, None, None, views)
    return sorted(found.values(), key=lambda info: (_RELATIONS.index(info.relation), info.pid))


_RELATIONS = ("parent", "child", "sibling")


def _others(views: list[View]) -> Iterator[Holder]:
    return (holder for view in views for holder in view.holders if holder.alive and holder.pid != os.getpid())


def _relation(pid: int) -> str | None:
    """What a living process is to this one; children of a fork server are siblings by being its children."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            parent = int(file.read().rpartition(b") ")[2].split()[1])
    except OSError:
        return None
    if pid == os.getppid():
        return "parent"
    if parent == os.getpid():
        return "child"
    ours = parent_process()
    return "sibling" if parent in (os.getppid(), ours and ours.pid) else None


def _told(
    pid: int, name: str, relation: str, alive: bool, code: int | None, method: str | None, views: list[View]
) -> ProcessInfo:
    seen = {view.id: view for view in views}
    if alive:
        seen.update(views_of([pid], known=seen))
    held = [(view.name, h) for view in seen.values() for h in view.holders if (h.pid, h.alive) == (pid, alive)]
    cpu_seconds, resident_bytes = _usage(pid) if alive else (None, None)
    return ProcessInfo(
        pid=pid,
        name=name,
        relation=relation,
        alive=alive,
        exitcode=code,
        cpu_seconds=cpu_seconds,
        resident_bytes=resident_bytes,
        start_method=method,
        queues=tuple(sorted(name for name, _ in held)),
        tasks=sum(holder.tasks for _, holder in held),
    )


def _usage(pid: int) -> tuple[float | None, int | None]:
    try:
        psutil = importlib.import_module("psutil")
    except ImportError:
        return None, None
    with contextlib.suppress(psutil.Error, OSError):
        theirs = psutil.Process(pid)
        times = theirs.cpu_times()
        return times.user + times.system, theirs.memory_info().rss
    return None, None
