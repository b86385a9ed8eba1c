"""A queue's two ends, `_reader` and `_writer`, as connections: for programs that know the stdlib's is a pipe.

multiprocessing.Pool and concurrent.futures are among them; others wait for `q._reader` in an event loop. An end is made
when somebody asks for it.
"""

from __future__ import annotations

import io
import time
import weakref
from multiprocessing import connection, pool
from multiprocessing.reduction import ForkingPickler
from queue import Empty
from typing import TYPE_CHECKING, Any

from joinq._leases import leases_of
from joinq._native import FOREVER, INTERRUPTED, all_attached, error, lib, pollable
from joinq._queue import Queue, SimpleQueue, _Shared
from joinq._transit import pack, unpack

if TYPE_CHECKING:
    from threading import Thread

__all__ = ["ReadEnd", "WriteEnd"]


class _End(_Shared, connection.Connection):
    """What both ends have in common. Connection has the errors of a closed end and of the wrong direction.

    To close an end closes it for this process (and the children that it forks from then on), not for others, and the
    queue's methods that need it raise OSError from then on. To drop it closes nothing. A process that is sent the
    reading end alone is none that could put something.
    """

    _handle: Any  # None: closed

    if TYPE_CHECKING:
        _writable: bool

        def _check_closed(self) -> None: ...

    def __init__(self, queue: _Shared) -> None:
        self._take(queue._handle)
        self._owner: weakref.ref[_Shared] | None = weakref.ref(queue)  # which holds us

    def _take(self, handle: Any) -> None:
        self._use(handle)
        self._leases = leases_of(handle)

    @property
    def _put_closed(self) -> bool:  # type: ignore[override]
        if self._owner is None:  # it has arrived without the other end; if that is here, too, the core knows
            return not self._writable
        queue = self._owner()
        return bool(queue and queue._put_closed)

    def __reduce__(self) -> Any:
        self._check_closed()
        return _arrived, (type(self), pack(self._handle))

    def _close(self) -> None:
        """Connection's finalizer calls it."""


def _arrived(kind: type[_End], travelled: Any) -> _End:
    end = kind.__new__(kind)
    before = all_attached()
    end._take(unpack(travelled))
    end._owner = None
    if end._writable:
        lib.jnq_begin_writing(end._handle)
    elif end._handle not in before:
        lib.jnq_end_writing(end._handle)
    return end


class ReadEnd(_End):
    """Where items come out: `q._reader`."""

    _readable = True
    _writable = False

    def fileno(self) -> int:
        """A descriptor that is readable exactly while the queue is not empty, or was shut down. Only to wait for.

        Raises:
            OSError: this end is closed; or there is no descriptor left.
        """
        self._check_closed()
        return pollable(self._handle, lib.JNQ_IN_GET)

    def recv(self) -> Any:
        """Waits for an item and takes it, as the queue's get() does.

        Raises:
            EOFError: the queue is empty, and every process that could have put something has closed its `_writer`,
                this one too, or has ended. Noticed within about a second.
            OSError: this end is closed.
        """
        self._check_closed()
        return Queue.get(self)  # type: ignore[arg-type]

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO:
        """recv_bytes() gives a pickle of the item, however long."""
        return io.BytesIO(ForkingPickler.dumps(self.recv()))

    def _poll(self, timeout: float | None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not lib.jnq_qsize(self._handle):
            left = 1.0 if deadline is None else min(deadline - time.monotonic(), 1.0)  # nothing wakes us at the end
            if lib.jnq_is_shutdown(self._handle) or self._at_end():
                return True
            if left <= 0:
                return False
            if connection.wait([self], left):
                return True
        return True

    def close(self) -> None:
        """Closes this end for this process; get() raises OSError from now on."""
        self._handle = self._port = None  # type: ignore[assignment]
        queue = self._owner and self._owner()
        if queue:
            queue._get_closed = True


class WriteEnd(_End):
    """Where items go in: `q._writer`."""

    _readable = False
    _writable = True

    def fileno(self) -> int:
        """A descriptor that is writable exactly while the queue is not full. Only to wait for.

        Raises:
            OSError: this end is closed; or there is no descriptor left.
        """
        self._check_closed()
        return pollable(self._handle, lib.JNQ_IN_PUT)

    def send(self, obj: Any) -> None:
        """Puts an item, as the queue's put() does. Raises OSError if this end is closed."""
        self._check_closed()
        Queue.put(self, obj)  # type: ignore[arg-type]

    def _send_bytes(self, buf: memoryview) -> None:
        """send_bytes() takes an item that was pickled already, and nothing else."""
        data = bytes(buf)
        rc = INTERRUPTED
        while rc == INTERRUPTED:
            rc = lib.jnq_put(self._handle, data, len(data), FOREVER)
        if rc:
            raise error(rc)

    def close(self) -> None:
        """Closes this end for this process; put() raises OSError from now on.

        get() raises EOFError when no process is left that could put anything.
        """
        handle = self._handle
        self._handle = self._port = None  # type: ignore[assignment]
        if handle is not None:
            lib.jnq_end_writing(handle)
        queue = self._owner and self._owner()
        if queue:
            queue._put_closed = True


# Pool.terminate() empties the queue of tasks under its _rlock, relying on poll() to say that the next recv() will not
# wait. Here a worker may be faster, and recv() would wait for ever.

_help_stuff_finish = pool.Pool._help_stuff_finish  # type: ignore[attr-defined]


def _drain(inqueue: Any, task_handler: Thread, size: int) -> None:
    if not isinstance(inqueue, SimpleQueue):
        _help_stuff_finish(inqueue, task_handler, size)
        return
    try:
        while task_handler.is_alive():
            Queue.get(inqueue, False)  # type: ignore[arg-type]
    except Empty:
        pass


pool.Pool._help_stuff_finish = staticmethod(_drain)  # type: ignore[attr-defined]
