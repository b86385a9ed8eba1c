"""The only importer of the extension module: results become exceptions, timeouts become deadlines.

Functions that take a deadline are called again with the same one when they answer INTERRUPTED: the interpreter has
run the signal handlers in between, and an exception of theirs ends the call.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import tempfile
import time
from queue import Empty, Full
from typing import TYPE_CHECKING

from joinq._jnq import ffi, lib
from joinq.exceptions import ShutDown

if TYPE_CHECKING:
    from joinq._jnq import CData

__all__ = [
    "FOREVER",
    "INTEGER_MIN",
    "INTEGER_ZERO",
    "INTERRUPTED",
    "LARGE",
    "NOW",
    "TIMEOUT",
    "attach",
    "create",
    "deadline_after",
    "error",
    "ffi",
    "lib",
]

NOW: int = lib.JNQ_NOW
FOREVER: int = lib.JNQ_FOREVER
INTERRUPTED: int = lib.JNQ_INTERRUPTED
LARGE: int = lib.JNQ_LARGE
INTEGER_ZERO: int = lib.JNQ_INTEGER_ZERO
INTEGER_MIN: int = lib.JNQ_INTEGER_MIN
TIMEOUT: int = lib.JNQ_TIMEOUT

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


def create(maxsize: int, file: int | None = None) -> CData:
    """Makes a queue and gives its handle, which leaves the queue when it is collected.

    Raises:
        OSError, MemoryError: the system gives neither file nor memory for it.
    """
    fd = _anonymous_file() if file is None else file
    out = ffi.new("jnq_queue **")
    return _handle(lib.jnq_create(fd, maxsize, out), fd, out)


def attach(fd: int) -> CData:
    """Joins the queue in the file and gives its handle, which owns the file.

    Raises:
        RuntimeError: it is not a queue of this version.
        OSError, MemoryError: it cannot be mapped here.
    """
    out = ffi.new("jnq_queue **")
    return _handle(lib.jnq_attach(fd, out), fd, out)


def _handle(rc: int, fd: int, out: CData) -> CData:
    if rc:
        with contextlib.suppress(OSError):  # it may be no descriptor at all
            os.close(fd)
        raise error(rc)
    return ffi.gc(out[0], lib.jnq_detach)
