"""
What `python -m joinq run --report` tells at the end: the queues that a program made, what went through them, and who
was left with tasks in hand.

A witness, a process of its own, is given a descriptor of every queue when it is made, and reads the figures from the
queues themselves when the program has ended. So nobody has to live to report anything: a killed process falsifies
nothing, and if the program itself is killed the report comes all the same. The price is that the memory of a queue
stays until then.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import os
import resource
import select
import signal
import socket
import sys
import warnings
from dataclasses import replace
from multiprocessing import reduction, util
from typing import Any, NamedTuple

from joinq import _queue
from joinq._holders import file_of
from joinq._names import made_at
from joinq._native import ffi, lib, look
from joinq._observe import view_of
from joinq._why import elsewhere, processes, summary


def begin() -> None:
    """Starts the witness, and from now on tells it of every queue that is made, here and in the program's children."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    their_control, control = socket.socketpair()
    pid = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        try:
            if not os.fork():  # nobody's child, so that no wait() of the program finds it
                _witness(pid, theirs.detach(), their_control.detach())
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    theirs.close()
    their_control.close()
    _listen(ours.detach())
    # After multiprocessing's own exit function, which waits for children.
    atexit.unregister(util._exit_function)  # type: ignore[attr-defined]
    atexit.register(_finish, _Line(control.detach()), pid)
    atexit.register(util._exit_function)  # type: ignore[attr-defined]


def travel() -> Any:
    """What a child that is not forked needs to take part, for arrive()."""
    try:
        return reduction.DupFd(_line.fileno()) if _line else None
    except OSError as error:
        _warn("those of a child", error)
    return None


def arrive(travelled: Any) -> None:
    if travelled is not None:
        _listen(travelled.detach())


class _Line:
    """One end of a socket, of which the program knows nothing: it may close it, and reuse its number."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._fd = fd
        self._file = file_of(fd)

    def fileno(self) -> int:
        """The descriptor. Raises OSError if it is ours no more."""
        if file_of(self._fd) != self._file:
            raise OSError("the program has closed a file descriptor that is not its own")
        return self._fd

    def send(self, data: bytes, *fds: int) -> None:
        line = socket.socket(fileno=self.fileno())
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            line.sendmsg([data], rights, socket.MSG_NOSIGNAL)
        finally:
            line.detach()

    def close(self) -> None:
        os.close(self.fileno())


_line: _Line | None = None  # of this process, to the witness


def _listen(line: int) -> None:
    global _line
    _line = _Line(line)
    _queue.observer = _made


def _made(queue: _queue._Shared) -> None:
    """Lets a new queue be measured, and gives the witness a descriptor of it."""
    assert _line
    lib.jnq_measure(queue._handle)
    place = _place()
    try:
        _line.send(f"{type(queue).__name__}\n{place}".encode("utf-8", "replace"), lib.jnq_fileno(queue._handle))
    except OSError as error:
        _warn(f"the one made at {place}", error)


def _warn(which: str, why: object) -> None:
    warnings.warn(f"joinq: of the queues, {which} will be missing from the report: {why}", RuntimeWarning, stacklevel=2)


def _place() -> str:
    """Where in the program a queue is being made, as short as it is unambiguous."""
    path, line = made_at()
    short = [path[len(base) + 1 :] for base in (os.getcwd(), *sys.path) if base and path.startswith(base + os.sep)]
    return f"{min([path, *short], key=len)}:{line}"


def _finish(control: _Line, pid: int) -> None:
    """Lets the witness report, and waits until it has."""
    if os.getpid() != pid or not _line:
        return  # a forked child that ends as its parent does
    _queue.observer = None
    with contextlib.suppress(OSError):
        _line.close()
    with contextlib.suppress(OSError):
        control.send(b"end")
        os.read(control.fileno(), 1)


class Figures(NamedTuple):
    """Of one queue, or of all that were made in one place."""

    queues: int
    items: int
    bytes: int
    backlog: int  # the highest
    get: float  # seconds that all threads together were blocked
    put: float
    join: float

    def __add__(self, other: Any) -> Figures:
        sums = [mine + others for mine, others in zip(self, other)]
        return Figures(*sums)._replace(backlog=max(self.backlog, other.backlog))


def _witness(program: int, line: int, control: int) -> None:
    """Waits for the end of the program, with a descriptor of each of its queues, and reports."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd not in (0, 1, 2, line, control):
            with contextlib.suppress(OSError):
                os.close(fd)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.chdir("/")
    queues: list[tuple[str, int]] = []
    left = _collect(program, socket.socket(fileno=line), socket.socket(fileno=control), queues)
    os.write(2, _table(queues, left, program).encode("utf-8", "replace"))


def _collect(program: int, line: socket.socket, control: socket.socket, queues: list[tuple[str, int]]) -> bool:
    """Fills in the queues (-1: came without a descriptor) until the program ends; true if some process goes on.

    The end is when the program says so; or when it is dead and nobody is left who could tell of a queue.
    """

    def receive() -> bool:
        text, found, _, _ = line.recvmsg(4096, socket.CMSG_SPACE(4), socket.MSG_DONTWAIT)
        if text:
            fd = int.from_bytes(found[0][2][:4], sys.byteorder) if found else -1
            queues.append((text.decode("utf-8", "replace"), _only_to_look(fd)))
        return bool(text)

    watched: set[Any] = {line, control}
    main = None
    with contextlib.suppress(OSError):  # it is dead already, or this is Linux before 5.3
        main = os.pidfd_open(program)
        watched.add(main)
    while watched:
        ready = select.select(watched, [], [])[0]
        if line in ready and not receive():
            watched.discard(line)
        if main in ready:
            watched.discard(main)
        if control in ready:
            if control.recv(3):
                break
            watched.discard(control)
    try:
        while receive():
            pass
    except BlockingIOError:
        return True
    return False


def _only_to_look(fd: int) -> int:
    """The same, by which the others see that we put nothing: readers wait for an end of the stream as without us."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    finally:
        if fd >= 0:
            os.close(fd)


def _read(fd: int) -> Figures:
    counters = ffi.new("jnq_counters *")
    try:
        picture = look(fd)
    except (OSError, RuntimeError):
        picture = None
    if picture is None:
        return Figures(0, 0, 0, 0, 0, 0, 0)
    lib.jnq_glance(picture, counters)
    blocked = [ns / 1e9 for ns in counters.blocked_ns]
    return Figures(1, counters.puts, counters.put_bytes, counters.backlog, *blocked)


def _left_over(fd: int, place: str, program: int) -> list[str]:
    """Who died with tasks in hand, or goes on with some. Who has ended in order may just not have reported the last
    one, and the program itself is about to end.
    """
    try:
        picture = look(fd)
    except (OSError, RuntimeError):
        picture = None
    if picture is None:
        return []
    view = view_of(picture)
    holders = [h for h in view.holders if h.pid != program and (h.tasks or h.unsure) and h.exitcode != 0]
    view = replace(view, holders=tuple(holders))
    lines = [f"  {sentence}" for sentence in processes(view, elsewhere(view))]
    return [f"{view.kind} {view.name!r}, made at {place}: {summary(view)}", *lines] if lines else []


def _table(queues: list[tuple[str, int]], left: bool, program: int) -> str:
    rows: dict[str, Figures] = {}
    lost = 0
    for text, fd in queues:
        figures = _read(fd)
        lost += not figures.queues
        rows[text] = rows[text] + figures if text in rows else figures
    if not rows:
        return "joinq: this program made no queue\n"
    lines: list[tuple[str, ...]] = [
        ("kind", "made at", "queues", "items", "bytes", "peak backlog", "blocked in get", "put", "join")
    ]
    total = Figures(0, 0, 0, 0, 0, 0, 0)
    for text, figures in rows.items():
        total += figures
        kind, place = text.split("\n", 1)
        lines.append((kind, place, *_cells(figures)))
    if len(rows) != 1:
        lines.append(("all", "", *_cells(total)))
    widths = [max(map(len, column)) for column in zip(*lines)]
    out = ["joinq: the queues of this program"]
    for line in lines:
        cells = zip(line, widths, "<<" + ">" * len(line))
        out.append("  ".join(f"{cell:{side}{width}}" for cell, width, side in cells).rstrip())
    for text, fd in queues:
        out += _left_over(fd, text.split("\n", 1)[1], program)
    if left:
        out.append("Some of its processes were still running, so this is not yet all.")
    if lost:
        out.append(f"The figures of {lost} more could not be had.")
    return "\n".join(out) + "\n"


def _cells(figures: Figures) -> list[str]:
    return [f"{number:,}" for number in figures[:4]] + [f"{seconds:.3f} s" for seconds in figures[4:]]
