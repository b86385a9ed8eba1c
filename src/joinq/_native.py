"""The only importer of the extension module: results become exceptions, timeouts become deadlines.

Functions that take a deadline are called again with the same one when they answer INTERRUPTED: the interpreter has
run the signal handlers in between, and an exception of theirs ends the call.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import math
import os
import sys
import tempfile
import time
import weakref
from multiprocessing import process, util
from queue import Empty, Full
from typing import TYPE_CHECKING, Any

from joinq import _jnq
from joinq._jnq import Declined, Loan, Port, ffi, lib, load, when_loaded
from joinq._payload import assemble, dumps, loads
from joinq.exceptions import ShutDown

if TYPE_CHECKING:
    from joinq._jnq import CData

__all__ = [
    "EMPTY",
    "FOREVER",
    "INTERRUPTED",
    "LOST",
    "NOT_OURS",
    "NOW",
    "OK",
    "ON_DEATH",
    "TIMEOUT",
    "Declined",
    "Loan",
    "Port",
    "all_attached",
    "attach",
    "attached",
    "create",
    "deadline_after",
    "error",
    "ffi",
    "lib",
    "load",
    "look",
    "pollable",
    "port",
    "when_loaded",
]

OK: int = lib.JNQ_OK
EMPTY: int = lib.JNQ_EMPTY
NOW: int = lib.JNQ_NOW
FOREVER: int = lib.JNQ_FOREVER
INTERRUPTED: int = lib.JNQ_INTERRUPTED
LOST: int = lib.JNQ_LOST
NOT_OURS: int = lib.JNQ_NOT_OURS
TIMEOUT: int = lib.JNQ_TIMEOUT

ON_DEATH: dict[str, int] = {"ignore": lib.JNQ_IGNORE, "raise": lib.JNQ_RAISE, "redeliver": lib.JNQ_REDELIVER}

_OUTCOMES: dict[int, tuple[type[Exception], tuple[str, ...]]] = {
    lib.JNQ_EMPTY: (Empty, ()),
    lib.JNQ_FULL: (Full, ()),
    lib.JNQ_SHUTDOWN: (ShutDown, ()),
    lib.JNQ_TOO_MANY_DONE: (ValueError, ("task_done() called too many times",)),
    lib.JNQ_MISMATCH: (
        RuntimeError,
        ("the file is not a queue of this version of joinq; use the same joinq in all processes",),
    ),
    lib.JNQ_CORRUPT: (
        RuntimeError,
        ("the queue's memory was overwritten by something that is not joinq; make a new queue",),
    ),
    lib.JNQ_NO_MEMORY: (MemoryError, ("no memory for the item; the queue is as it was before",)),
    lib.JNQ_CROWDED: (OSError, ("too many processes use this queue at once",)),
    lib.JNQ_NAMESPACE: (
        RuntimeError,
        (
            "this process is in another pid or time namespace (container) than the one that made the queue, "
            "so they could not see each other's death; use a queue within one container only",
        ),
    ),
}


def error(rc: int) -> Exception:
    """The exception that says what a result of the core means."""
    if rc in _OUTCOMES:
        kind, args = _OUTCOMES[rc]
        return kind(*args)
    if rc == errno.ENOMEM:
        return MemoryError("no memory for a queue")
    if rc > 0:
        return OSError(rc, os.strerror(rc))
    return SystemError(f"unknown result {rc} of the core; this is a bug in joinq")


def deadline_after(timeout: float | None) -> int:
    """Makes an absolute deadline of a timeout in seconds; None is forever, less than nothing is now.

    Raises:
        TypeError: it is not a number.
        ValueError: it is not a number that can be waited for (NaN).
    """
    if timeout is None:
        return FOREVER
    try:
        if math.isnan(timeout):
            raise ValueError(f"timeout must be a number of seconds or None, not {timeout!r}")
    except TypeError:
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}") from None
    if timeout <= 0:
        return NOW
    return time.monotonic_ns() + int(min(timeout, 1e9) * 1e9)


def _anonymous_file() -> int:
    """An empty file without a name, which the core can seal; the kernel frees it with its last user."""
    try:
        return os.memfd_create("joinq", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except (AttributeError, OSError):  # no memfd on this system
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


# The handles of this process, by file: a queue that arrives twice is one mapping, and one entry in the process table.
_handles: weakref.WeakValueDictionary[tuple[int, int], CData] = weakref.WeakValueDictionary()


def create(maxsize: int, on_death: str = "ignore", max_deliveries: int = 0, file: int | None = None) -> CData:
    """Makes a queue and gives its handle, which leaves the queue when it is collected.

    Raises:
        OSError, MemoryError: the system gives neither file nor memory for it.
    """
    _introduce()
    fd = _anonymous_file() if file is None else file
    out = ffi.new("jnq_queue **")
    return _handle(lib.jnq_create(fd, maxsize, ON_DEATH[on_death], max_deliveries, out), fd, out)


def attach(fd: int) -> CData:
    """Joins the queue in the file and gives its handle, which owns the file.

    Raises:
        RuntimeError: it is not a queue of this version.
        OSError, MemoryError: it cannot be mapped here.
    """
    handle = _handles.get(_identity(fd))
    if handle is not None:
        os.close(fd)
        return handle
    _introduce()
    out = ffi.new("jnq_queue **")
    return _handle(lib.jnq_attach(fd, out), fd, out)


def look(fd: int) -> CData | None:
    """Gives a picture of the queue in a file, which is not joined, disturbed, nor closed; None if there is none in it.

    Raises:
        RuntimeError: it is a queue of another version, or of another container.
        OSError: it cannot be read.
    """
    out = ffi.new("jnq_queue **")
    rc = lib.jnq_look(fd, out)
    if rc == EMPTY:
        return None
    if rc:
        raise error(rc)
    return ffi.gc(out[0], lib.jnq_forget)


def attached(device: int, inode: int) -> CData | None:
    """The handle that this process has of the queue in that file."""
    return _handles.get((device, inode))


def all_attached() -> list[CData]:
    """Every handle that this process has."""
    # list() of the references is one step: other threads may make queues meanwhile.
    return [handle for handle in (ref() for ref in _handles.valuerefs()) if handle is not None]


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _handle(rc: int, fd: int, out: CData) -> CData:
    if rc:
        with contextlib.suppress(OSError):  # it may be no descriptor at all
            os.close(fd)
        raise error(rc)
    return _handles.setdefault(_identity(fd), ffi.gc(out[0], lib.jnq_detach))  # another thread may have been faster


def port(handle: CData) -> Port:
    """What takes objects into the queue and out of it: see csrc/python/objects.h."""
    return Port(handle, int(ffi.cast("uintptr_t", handle)), dumps, loads, assemble)


def pollable(handle: CData, what: int) -> int:
    """Gives the descriptor that tells poll(2) whether a get, put or join (lib.JNQ_IN_GET ...) would wait: see jnq.h.

    Raises:
        OSError: there is no descriptor left, or no /proc.
    """
    out = ffi.new("int *")
    rc = INTERRUPTED
    while rc == INTERRUPTED:
        rc = lib.jnq_pollable(handle, what, out)
    if rc:
        raise error(rc)
    return int(out[0])


def _introduce() -> None:
    """Tells the core our name, which others see in the process table."""
    name = process.current_process().name.encode("utf-8", "replace")
    while len(name) >= lib.JNQ_NAME_BYTES:  # at a character's border
        name = name.decode("utf-8")[:-1].encode("utf-8")
    lib.jnq_name_process(name.replace(b"\0", b"?"))


# How a process ends is announced when nothing can follow: in multiprocessing's processes by _bootstrap(), when their
# threads have ended, too; in others after multiprocessing's own exit function, which waits for children.
_bootstrapping = False
_exceptions_known: object = None  # what sys.last_value was when this process began


def _depart(failed: bool) -> None:
    """Tells the others that this process ends, and whether in order: who has not told will be found killed."""
    for handle in all_attached():
        lib.jnq_depart(handle, failed)


_bootstrap = process.BaseProcess._bootstrap  # type: ignore[attr-defined]


@functools.wraps(_bootstrap)
def _watched_bootstrap(self: process.BaseProcess, *args: Any, **kwargs: Any) -> Any:
    """Runs a process of multiprocessing, and announces its end with its exit code."""
    global _bootstrapping
    _bootstrapping = True
    code = _bootstrap(self, *args, **kwargs)
    _depart(code != 0)
    return code


process.BaseProcess._bootstrap = _watched_bootstrap  # type: ignore[attr-defined]


def _at_exit() -> None:
    """Announces the end of another process; of its exit code only an uncaught exception can be known."""
    if not _bootstrapping:
        last = getattr(sys, "last_value", None)
        _depart(last is not None and last is not _exceptions_known and not hasattr(sys, "ps1"))


def _after_fork() -> None:
    global _bootstrapping, _exceptions_known
    _bootstrapping = False
    _exceptions_known = getattr(sys, "last_value", None)


_introduce()
util.register_after_fork(_introduce, lambda _: _introduce())
os.register_at_fork(after_in_child=_after_fork)
os.register_at_fork(
    before=_jnq.before_fork,
    after_in_parent=_jnq.after_fork_in_parent,
    after_in_child=_jnq.after_fork_in_child,
)
atexit.unregister(util._exit_function)  # type: ignore[attr-defined]
atexit.register(_at_exit)
atexit.register(util._exit_function)  # type: ignore[attr-defined]
