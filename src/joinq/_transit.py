"""How a queue travels: what is pickled, and how it is found again where that arrives.

A child that is being started is given the queue's descriptor, as the stdlib does it. On any other way travels a
*ticket*, which says where the queue can be found, and meanwhile the *keeper* (_keeper.py) holds the queue, so that the
sender may drop it, end or be killed. Whoever has received it tells the keeper.

The first process that sends a queue starts the keeper. A process is connected to one keeper at most, the first it
hears of. To that it says whatever it has to say in single messages without an answer: so the connection needs no
lock, and is shared by forked children. It is also what tells the keeper that the program still runs.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import sys
import threading
import weakref
from multiprocessing import context, process, reduction, spawn, util
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from joinq import _keeper
from joinq._holders import everywhere, file_at, file_of, is_writable, our_children
from joinq._keeper import ARRIVED, GIVE, HERE, KEEP, MESSAGE, NOT_HERE, WATCH, peer_uid
from joinq._native import attach, attached, lib, when_loaded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from joinq._jnq import CData

__all__ = ["Ticket", "held_arrivals", "pack", "say_arrived", "unpack"]

# A keeper that does not answer for so many seconds is done without.
_PATIENCE = 5.0


class Given(NamedTuple):
    """A queue on its way to a child that is being started."""

    descriptor: Any  # reduction.DupFd
    keeper: bytes | None


class Ticket(NamedTuple):
    """A queue on any other way."""

    uid: int
    device: int
    inode: int
    queue: int
    pid: int  # where it was when it was sent,
    fd: int  # and its descriptor there
    keeper: bytes
    number: int


Travelled = Union[Given, Ticket]


def pack(handle: CData) -> Travelled:
    """What is pickled in place of a queue.

    Raises:
        OSError: the program has closed the queue's descriptor, or there can be no keeper.
    """
    fd = lib.jnq_fileno(handle)
    if fd < 0:
        raise OSError(
            "the program has closed the file descriptor of the queue; "
            "it cannot be given to a process that is not forked"
        )
    if context.get_spawning_popen() is not None:
        line = _lines.get("ours")
        return Given(reduction.DupFd(fd), line.keeper if line else None)
    status = os.fstat(fd)
    queue, number = lib.jnq_id(handle), int.from_bytes(os.urandom(8), sys.byteorder)
    keeper = _leave(fd, queue, number)
    return Ticket(os.geteuid(), status.st_dev, status.st_ino, queue, os.getpid(), fd, keeper, number)


def unpack(travelled: Travelled) -> CData:
    """The handle of the queue that was packed.

    Raises:
        FileNotFoundError: no process has the queue any more.
        PermissionError: it belongs to another user.
        RuntimeError, OSError, MemoryError: it cannot be attached here.
    """
    if isinstance(travelled, Given):
        handle = attach(travelled.descriptor.detach())
        if travelled.keeper:
            _join(travelled.keeper)
        return handle
    handle = _find(travelled)
    _join(travelled.keeper)
    if _arrivals.held is not None:
        _arrivals.held.append(travelled)
    elif not when_loaded(functools.partial(say_arrived, travelled)):  # what comes with it may fail, and it go back
        say_arrived(travelled)
    return handle


def say_arrived(ticket: Ticket) -> None:
    """Tells the keeper. Nothing is lost if that fails: the keeper is dead, or keeps the queue to its own end."""
    line = _lines.get("ours")
    if line is not None and line.keeper == ticket.keeper:
        try:
            line.say(ARRIVED, ticket.queue, ticket.number)
        except OSError as error:
            _drop(line, error)
    else:
        with contextlib.suppress(OSError), _connect(ticket.keeper) as keeper:
            _say(keeper, ARRIVED, ticket.queue, ticket.number)


class _Arrivals(threading.local):
    held: list[Ticket] | None = None


_arrivals = _Arrivals()


@contextlib.contextmanager
def held_arrivals() -> Iterator[list[Ticket]]:
    """Gives the tickets of the queues that arrive in this block. They stay under way until say_arrived()."""
    before, _arrivals.held = _arrivals.held, []
    try:
        yield _arrivals.held
    finally:
        _arrivals.held = before


def _find(ticket: Ticket) -> CData:
    if ticket.uid != os.geteuid():
        raise PermissionError(
            f"the queue belongs to user {ticket.uid}, and this process to user {os.geteuid()}; "
            "a queue can only be sent to processes of the same user"
        )
    handle = attached(ticket.device, ticket.inode)
    if handle is None:
        fd = _search(ticket)
        if fd is not None:
            handle = attach(fd)
    # No two files that exist have the same numbers: if it is another queue, the one that was sent is gone.
    if handle is None or lib.jnq_id(handle) != ticket.queue:
        raise FileNotFoundError(
            "the queue is gone: no process has it any more"
            if os.path.exists("/proc/self/fd")
            else "the queue was not found: its keeper does not answer, and without /proc nobody else can be asked"
        )
    return handle


def _search(ticket: Ticket) -> int | None:
    """A descriptor of the ticket's file: of the sender's, of the keeper's, or else of whoever has it."""
    fd = _open(ticket, ticket.pid, ticket.fd)
    if fd is None:
        with contextlib.suppress(OSError), _connect(ticket.keeper) as keeper:
            fd = _ask(keeper, ticket.queue)
    for place in everywhere():
        if fd is not None:
            break
        fd = _open(ticket, *place)
    return fd


def _open(ticket: Ticket, pid: int, number: int) -> int | None:
    """Opens a descriptor of another process, if it is one of the ticket's file: opening any other may block."""
    if file_at(pid, number) == (ticket.device, ticket.inode) and is_writable(pid, number):
        with contextlib.suppress(OSError):
            return os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
    return None


class _Line:
    """The connection to a keeper. The last reference closes it, unless the program already has."""

    def __init__(self, connection: socket.socket, keeper: bytes) -> None:
        self.keeper = keeper
        self.fd = connection.detach()
        self._file = file_of(self.fd)
        self._watched: set[int] = set()
        weakref.finalize(self, _close, self.fd, self._file).atexit = False
        parent = process.parent_process()
        if parent is not None and parent.pid:
            self._watch(parent.pid)
        elif os.getppid() == _forked_by:
            self._watch(_forked_by)

    def say(self, word: bytes, queue: int = 0, ticket: int = 0, fd: int | None = None) -> None:
        """Raises ConnectionError if the keeper is dead, socket.timeout if it does not listen, or another OSError."""
        if file_of(self.fd) != self._file:
            raise ConnectionError("the program has closed the connection to the keeper")
        # A copy: whatever interrupts us may close that, but not the line.
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, os.dup(self.fd)) as connection:
            connection.settimeout(_PATIENCE)
            _say(connection, word, queue, ticket, fd)

    def tell_children(self) -> None:
        """Lets the keeper watch the children: they may not be connected, and what is sent may be meant for them."""
        children = our_children() | {child.pid for child in list(process._children)}  # type: ignore[attr-defined]
        for pid in children - self._watched:
            self._watch(pid)
        self._watched = children

    def _watch(self, pid: int) -> None:
        """By a descriptor of our own making: a sentinel's number may be something else by now."""
        with contextlib.suppress(OSError):  # it has just ended, or no system call tells when it does
            fd = os.pidfd_open(pid)
            try:
                self.say(WATCH, ticket=select.POLLIN, fd=fd)
            finally:
                os.close(fd)


def _say(connection: socket.socket, word: bytes, queue: int, ticket: int, fd: int | None = None) -> None:
    attachment = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))]
    connection.sendmsg([MESSAGE.pack(word, queue, ticket)], attachment, socket.MSG_NOSIGNAL)


def _close(fd: int, file: tuple[int, int] | None) -> None:
    if file is not None and file_of(fd) == file:
        os.close(fd)


# By os.fork(): multiprocessing does not know these parents. The first is 0 if this process was not forked.
_forked_by, _pid = 0, os.getpid()


def _after_fork() -> None:
    global _forked_by, _pid
    _forked_by, _pid = _pid, os.getpid()


os.register_at_fork(after_in_child=_after_fork)


# "ours" is the line of this process, if it has one. A dictionary, because its operations are atomic: two threads, or a
# signal handler, may want a line at once, and only one becomes ours.
_lines: dict[str, _Line] = {}


# Those of keepers that did not listen: they may only be stopped, and would end without the connection.
_unheard: list[_Line] = []


def _drop(line: _Line, error: OSError) -> None:
    """Does without a keeper from now on if it is dead or does not listen. No other error is a reason: a connection that
    is closed may be the keeper's end, and so that of the queues that it has.
    """
    if isinstance(error, socket.timeout):
        _unheard.append(line)
    elif not isinstance(error, ConnectionError):
        return
    if _lines.get("ours") is line:
        _lines.pop("ours", None)


def _join(keeper: bytes) -> None:
    """Connects to a keeper that others use, unless this process has one."""
    if "ours" not in _lines:
        with contextlib.suppress(OSError):
            connection = _connect(keeper)
            _ask(connection, 0)  # it might just end, and what is said to it then would be lost
            _lines.setdefault("ours", _Line(connection, keeper))


def _leave(fd: int, queue: int, ticket: int) -> bytes:
    """Leaves the queue with a keeper, and gives its address."""
    line = _lines.get("ours")
    if line is not None:
        try:
            line.say(KEEP, queue, ticket, fd)
            line.tell_children()
            return line.keeper
        except (ConnectionError, socket.timeout) as error:
            _drop(line, error)
    line = _lines.setdefault("ours", _start_keeper())
    line.say(KEEP, queue, ticket, fd)
    line.tell_children()
    return line.keeper


# The sockets of a keeper that another thread is about to start. If a child of a fork held the keeper's ends, its death
# would not be noticed.
_starting: set[socket.socket] = set()


def _forget_starting() -> None:
    while _starting:
        _starting.pop().close()


os.register_at_fork(after_in_child=_forget_starting)


def _start_keeper() -> _Line:
    address = b"\0joinq-" + os.urandom(16).hex().encode()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ends = {ours, theirs, listener}
    _starting.update(ends)
    try:
        listener.bind(address)
        listener.listen(128)
        fds = listener.fileno(), theirs.fileno()
        # Not by subprocess, which waits for a descriptor to be closed that a fork in another thread may have copied.
        path = os.fsencode(spawn.get_executable())
        args = ["-I", "-S", os.path.abspath(_keeper.__file__), *map(str, fds)]
        pid = util.spawnv_passfds(path, [path, *map(os.fsencode, args)], fds)
        with contextlib.suppress(ChildProcessError):  # the program has waited for it
            if status := os.waitpid(pid, 0)[1]:
                raise OSError(f"{os.fsdecode(path)!r} ends with {os.waitstatus_to_exitcode(status)}")
        return _Line(ours, address)
    except (OSError, TypeError) as error:
        raise OSError(f"the process that holds queues under way cannot be started: {error}") from error
    finally:
        for end in ends:
            end.close()
        _starting.difference_update(ends)


def _connect(keeper: bytes) -> socket.socket:
    """Raises OSError if nobody is there."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(_PATIENCE)
        connection.connect(keeper)
        if peer_uid(connection) != os.geteuid():
            raise PermissionError("another user's process has the keeper's address")
    except BaseException:
        connection.close()
        raise
    return connection


def _ask(keeper: socket.socket, queue: int) -> int | None:
    """Asks for a queue's descriptor. Raises OSError if the keeper does not answer."""
    _say(keeper, GIVE, queue, 0)
    word, fds, _, _ = socket.recv_fds(keeper, len(HERE), 1, socket.MSG_CMSG_CLOEXEC)
    if word not in (HERE, NOT_HERE):
        raise ConnectionResetError("the keeper has ended")
    return fds[0] if fds else None
