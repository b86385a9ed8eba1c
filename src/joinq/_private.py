"""The private attributes of the stdlib's queues, for programs that touch them.

What a queue without pipe, semaphores and feeder thread can say truthfully is here; what it cannot do raises an error
that says what to use instead. Each is made when somebody asks for it.
"""

from __future__ import annotations

import collections
import threading
import weakref
from multiprocessing import util
from typing import TYPE_CHECKING, Any, Callable

from joinq._native import lib
from joinq.exceptions import JoinTimeout

if TYPE_CHECKING:
    from typing import NoReturn

    from joinq._ends import ReadEnd, WriteEnd
    from joinq._queue import JoinableQueue, Queue

__all__ = ["JoinablePrivates", "Made", "Privates", "QueuePrivates"]


class Made:
    """An attribute that is made at the first access, and is the instance's own from then on."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, queue: Any, owner: type) -> Any:
        if queue is None:
            return self
        return queue.__dict__.setdefault(self._name, self._make(queue))  # another thread may have been faster


def _unavailable(name: str, instead: str) -> NotImplementedError:
    return NotImplementedError(f"{name} of a multiprocessing queue is not available in joinq; {instead}")


class Lock:
    """What `_rlock` and `_wlock` offer, within one process: put() and get() do not need it, nor take it.

    A child of a fork finds it free.
    """

    def __init__(self) -> None:
        self._renew()
        util.register_after_fork(self, type(self)._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Returns whether it was taken in time, as multiprocessing.Lock does."""
        if not block or (timeout is not None and timeout <= 0):
            return self._lock.acquire(False)
        return self._lock.acquire(True, -1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))

    def release(self) -> None:
        """Raises ValueError if it is not taken. Any thread may release it."""
        try:
            self._lock.release()
        except RuntimeError:
            raise ValueError("semaphore or lock released too many times") from None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()


class _Condition(Lock):
    """What `_cond` offers to a subclass with a join() of its own: wait() waits until no task is unfinished."""

    def __init__(self, queue: JoinableQueue) -> None:
        super().__init__()
        self._queue = weakref.ref(queue)  # it holds us

    def wait(self, timeout: float | None = None) -> bool:
        """Returns False at the timeout; raises what JoinableQueue.join() does."""
        from joinq._queue import JoinableQueue

        queue = self._queue()
        if queue is None:
            raise ReferenceError("the queue is gone")
        self.release()
        try:
            JoinableQueue.join(queue, timeout)
        except JoinTimeout:
            return False
        finally:
            self.acquire()
        return True

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Waits, if the predicate is not true, until no task is unfinished, and returns what it is then."""
        result = predicate()
        if not result:
            self.wait(timeout)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """Does nothing: task_done() wakes who waits."""

    def notify_all(self) -> None:
        """Does nothing: task_done() wakes who waits."""


class _Count:
    """What `_sem` and `_unfinished_tasks` tell: a semaphore's value, and whether it is zero."""

    def __init__(self, name: str, value: Callable[[], int], instead: str) -> None:
        self._name = name
        self._value = value
        self._instead = instead
        self._semlock = self

    def get_value(self) -> int:
        return self._value()

    _get_value = get_value

    def _is_zero(self) -> bool:
        return not self._value()

    def acquire(self, block: bool = True, timeout: float | None = None) -> NoReturn:
        raise _unavailable(f"{self._name}.acquire()", self._instead)

    def release(self, n: int = 1) -> None:
        raise _unavailable(f"{self._name}.release()", self._instead)


class _Room(_Count):
    def release(self, n: int = 1) -> None:
        """Does nothing: there is room as soon as an item is taken."""


def _room(queue: Queue) -> _Room:
    handle, maxsize = queue._handle, queue._maxsize
    return _Room("_sem", lambda: max(maxsize - lib.jnq_qsize(handle), 0), "put() and get() count themselves")


def _unfinished(queue: JoinableQueue) -> _Count:
    handle = queue._handle
    return _Count("_unfinished_tasks", lambda: lib.jnq_unfinished(handle), "use put(), task_done() and join()")


class _Buffer(collections.deque):  # type: ignore[type-arg]
    """What put() has not yet written: always empty."""

    def _refuse(self, *args: object) -> NoReturn:
        raise _unavailable("adding to _buffer", "use put()")

    append = appendleft = extend = extendleft = insert = __iadd__ = _refuse


def _read_end(queue: Any) -> ReadEnd:
    from joinq._ends import ReadEnd

    return ReadEnd(queue)


def _write_end(queue: Any) -> WriteEnd:
    from joinq._ends import WriteEnd

    return WriteEnd(queue)


class Privates:
    """Those of SimpleQueue, which the others have, too."""

    _reader = Made(_read_end)
    _writer = Made(_write_end)
    _rlock = Made(lambda queue: Lock())
    _wlock = Made(lambda queue: Lock())
    _poll = Made(lambda queue: queue._reader.poll)


class QueuePrivates(Privates):
    """Those of Queue."""

    _ignore_epipe = False
    _thread = None
    _jointhread = None
    _joincancelled = False
    _close = None

    _buffer = Made(lambda queue: _Buffer())
    _notempty = Made(lambda queue: threading.Condition())
    _sem = Made(_room)
    _send_bytes = Made(lambda queue: queue._writer.send_bytes)
    _recv_bytes = Made(lambda queue: queue._reader.recv_bytes)

    def _start_thread(self) -> None:
        raise _unavailable("_start_thread()", "put() writes the item itself")

    @staticmethod
    def _feed(*args: object) -> None:
        raise _unavailable("_feed()", "put() writes the item itself")


class JoinablePrivates:
    """Those that JoinableQueue has besides."""

    _cond = Made(_Condition)
    _unfinished_tasks = Made(_unfinished)
