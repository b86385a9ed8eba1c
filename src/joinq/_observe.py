"""Queues of running programs, seen from outside: without their help, and without their noticing.

A queue is a file without a name, which is found among the descriptors of its processes, and is only read. So an
observer takes no lock, writes no word, is in no process table, and holds no memory that anybody waits for: it may be
killed or stopped at any moment. To others its descriptor is one that cannot put, so no reader waits for it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from joinq._holders import Death, Holder, deaths, everywhere, file_at, holders
from joinq._native import ON_DEATH, all_attached, ffi, lib, look
from joinq._stats import Stats, stats_of, traits_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from joinq._jnq import CData

__all__ = ["Seen", "View", "find", "view_of", "views_of"]

KINDS = {lib.JNQ_JOINABLE: "JoinableQueue", lib.JNQ_QUEUE: "Queue", lib.JNQ_SIMPLE: "SimpleQueue"}
_ON_DEATH = {number: word for word, number in ON_DEATH.items()}

# A mapping of an anonymous file: its addresses, device, inode.
_MAPPING = re.compile(r"([0-9a-f]+-[0-9a-f]+) \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (\d+) +/memfd:joinq \(deleted\)\n")


@dataclass(frozen=True)
class View:
    """What there is to see of a queue, at about one moment.

    Attributes:
        id: tells the queue from all others, in every process.
        name: what the user calls it, or where it was made.
        kind: "JoinableQueue", "Queue" or "SimpleQueue".
        maxsize: 0 is without limit.
        on_death, max_deliveries: as the constructor was told.
        is_shutdown: shutdown() was called.
        owners_known: False if whose the unfinished tasks are cannot be told: see JoinableQueue.
        stats: the same that q.stats() gives.
        holders: the same that q.holders() gives.
        deaths: the last few of its processes that died otherwise than in order, oldest first.
    """

    id: int
    name: str
    kind: str
    maxsize: int
    on_death: str
    max_deliveries: int
    is_shutdown: bool
    owners_known: bool
    stats: Stats
    holders: tuple[Holder, ...]
    deaths: tuple[Death, ...]


def view_of(handle: CData) -> View:
    """What there is to see of a queue of this process, or in a picture of one."""
    traits, counters = traits_of(handle), ffi.new("jnq_counters *")
    lib.jnq_glance(handle, counters)
    return View(
        id=traits.id,
        name=ffi.string(traits.name).decode("utf-8", "replace"),
        kind=KINDS.get(traits.kind, "queue"),
        maxsize=traits.maxsize,
        on_death=_ON_DEATH.get(traits.on_death, "?"),
        max_deliveries=traits.max_deliveries,
        is_shutdown=bool(traits.shutdown),
        owners_known=traits.on_death == lib.JNQ_REDELIVER
        or (traits.on_death == lib.JNQ_RAISE and not counters.foreign),
        stats=stats_of(handle),
        holders=tuple(holders(handle)),
        deaths=tuple(deaths(handle)),
    )


def views_of(pids: Iterable[int], known: Container[int] = ()) -> dict[int, View]:
    """The queues of this process and of others, by id, as far as they can be seen, but not those of the known ids."""
    ours = (handle for handle in all_attached() if lib.jnq_id(handle) not in known)
    found = {view.id: view for view in map(view_of, ours)}
    for pid in pids:
        if pid == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it is gone, or another user's; or there is no /proc
            for seen in find(pid):
                with contextlib.suppress(OSError, RuntimeError, EOFError):
                    view = seen.look()
                    if view.id not in known:
                        found.setdefault(view.id, view)
    return found


@dataclass
class Seen:
    """A queue that find() has found. It lasts as long as its program does, or this object.

    Attributes:
        pids: the processes in which it was found.
    """

    pids: set[int]
    _fd: int = field(repr=False)
    _why: str = field(default="", repr=False)

    def look(self) -> View:
        """Takes a picture of the queue as it is now; can be repeated, which costs some microseconds per process.

        Raises:
            PermissionError: this process may not read it.
            RuntimeError: another version of joinq has made it, or it lives in another container.
            EOFError: it is no queue any more: something that is not joinq has written into it.
        """
        if self._fd < 0:
            raise PermissionError(self._why)
        try:
            picture = look(self._fd)
        except RuntimeError as error:
            raise RuntimeError(f"the queue of process {min(self.pids)} cannot be looked at: {error}") from None
        if picture is None:
            raise EOFError(f"what process {min(self.pids)} has is no queue any more: it was overwritten")
        return view_of(picture)

    def close(self) -> None:
        """Lets go of the queue."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._why = -1, "it was closed"

    __del__ = close


def find(pid: int | None = None) -> list[Seen]:
    """Finds the queues of a process, or of all processes that this user may look at.

    A queue is found in each process that has it, and is one. Observers do not have it: else two of them would keep each
    other's queues for ever.

    Raises:
        ProcessLookupError: there is no such process.
        PermissionError: it is another user's.
        FileNotFoundError: the system has no /proc.
    """
    if not os.path.exists("/proc/self/fd"):
        raise FileNotFoundError("queues of other processes are found in /proc, which this system does not have")
    found: dict[tuple[int, int], Seen] = {}
    if pid is not None:
        _find_in(pid, found)
        return list(found.values())
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                _find_in(int(name), found)
    return list(found.values())


def _find_in(pid: int, found: dict[tuple[int, int], Seen]) -> None:
    """Adds the queues of a process, by file."""
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except FileNotFoundError:
        raise ProcessLookupError(f"there is no process {pid}") from None
    except PermissionError:
        raise PermissionError(_refusal(pid)) from None
    seen = set()
    for number in numbers:
        with contextlib.suppress(OSError):
            file = _anonymous(path := f"/proc/{pid}/fd/{number}")
            if file and file not in seen and _add(found, file, pid, path):
                seen.add(file)
    for file, path in _mapped(pid):
        if file in seen:
            continue  # else the program has closed the descriptor: perhaps another process has one
        elsewhere = (f"/proc/{other}/fd/{number}" for other, number in everywhere() if file_at(other, number) == file)
        if not any(_add(found, file, pid, place) for place in (path, *elsewhere)):
            why = f"process {pid} has closed the descriptor of this queue, so that only root can look at it"
            found.setdefault(file, Seen({pid}, -1, why)).pids.add(pid)


def _add(found: dict[tuple[int, int], Seen], file: tuple[int, int], pid: int, path: str) -> bool:
    """Adds the file, if it can be opened and there is a queue in it."""
    known = found.get(file)
    if known and known._fd >= 0:
        known.pids.add(pid)
        return True
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return False
    if not _is_queue(fd):
        os.close(fd)
        return False
    found[file] = Seen({pid, *(known.pids if known else ())}, fd)
    return True


def _is_queue(fd: int) -> bool:
    try:
        return look(fd) is not None
    except (RuntimeError, OSError, MemoryError):  # look() of who sees it will say so again
        return True


def _anonymous(path: str) -> tuple[int, int] | None:
    """Which file without a name it is; None if it is something else, or cannot be written to: that is an observer's."""
    status = os.stat(path)
    is_one = stat.S_ISREG(status.st_mode) and not status.st_nlink and os.lstat(path).st_mode & stat.S_IWUSR
    return (status.st_dev, status.st_ino) if is_one else None


def _mapped(pid: int) -> Iterator[tuple[tuple[int, int], str]]:
    """The queues in a process's memory, and what root may open for them."""
    try:
        with open(f"/proc/{pid}/maps", errors="replace") as file:
            lines = file.readlines()
    except OSError:
        return
    for line in lines:
        if mapping := _MAPPING.fullmatch(line):
            addresses, major, minor, inode = mapping.groups()
            yield (os.makedev(int(major, 16), int(minor, 16)), int(inode)), f"/proc/{pid}/map_files/{addresses}"


def _refusal(pid: int) -> str:
    try:
        user = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return f"process {pid} cannot be looked at"
    if user == os.geteuid():
        return f"process {pid} cannot be looked at: it protects itself, or has more rights than you; try as root"
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    return f"process {pid} belongs to user {name}; look at it as that user, or as root"
