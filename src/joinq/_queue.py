"""The public queues: the stdlib's interface over the core. The docstrings are the contract with the user.

No item is lost on the way: put() pickles before it touches the queue, and the core's put happens wholly or not at all.
get() has taken the item when the core answers; an exception that a signal handler raises from then on until get()
returns makes it give the item back.
"""

from __future__ import annotations

import operator
import types
from _thread import start_new_thread
from multiprocessing import context, queues, reduction, util
from typing import TYPE_CHECKING, Any, ClassVar

from joinq._native import (
    FOREVER,
    INTEGER_MIN,
    INTEGER_ZERO,
    INTERRUPTED,
    LARGE,
    NOW,
    TIMEOUT,
    attach,
    create,
    deadline_after,
    error,
    ffi,
    lib,
)
from joinq._payload import PLAIN, dumps, loads, plain_dumps
from joinq.exceptions import JoinTimeout

if TYPE_CHECKING:
    from joinq._jnq import Buffer, CData

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

_put = lib.jnq_put
_put_integer = lib.jnq_put_integer
_get = lib.jnq_get
_task_done = lib.jnq_task_done

# Boxes not in use, with the view of their copy. Each call has its own: another thread's, or one in a signal handler,
# takes another.
_boxes: list[tuple[CData, Buffer]] = []


def _new_box() -> tuple[CData, Buffer]:
    box = ffi.gc(ffi.new("jnq_box *"), lib.jnq_release)
    return box, ffi.buffer(box.copy)


def _settle(todo: list[tuple[CData, CData | None, Any, Any, BaseException]]) -> None:
    """Gives back the item of a get() that an exception ended, unless the item is the reason for it.

    Nothing about an exception tells whether it is a signal handler's or that of an item which cannot be unpickled:
    unpickling once more does. Runs in a thread of its own, because signal handlers do not.
    """
    try:
        handle, box, payload, item, reason = todo.pop()
    except IndexError:
        return
    if box is None or not box.taken:  # CPython 3.9 and 3.10: interrupted between emptying the box and returning
        box = ffi.new("jnq_box *")
        data = payload if isinstance(payload, bytes) else plain_dumps(item)
        lib.jnq_rebox(handle, box, data, len(data))
    elif payload is not None and not isinstance(reason, KeyboardInterrupt) and _fails_to_load(payload):
        lib.jnq_release(box)
        return
    while lib.jnq_unget(handle, box) == INTERRUPTED:
        pass


def _fails_to_load(payload: bytes | Buffer) -> bool:
    try:
        loads(payload)
    except BaseException:
        return True
    return False


class _Shared:
    """What all three have in common: the handle, and how a queue travels to a child process."""

    _handle: CData

    __class_getitem__: ClassVar[Any] = classmethod(types.GenericAlias)

    def _travel(self) -> Any:
        context.assert_spawning(self)
        fd = lib.jnq_fileno(self._handle)
        if fd < 0:
            raise OSError(
                f"the program has closed the file descriptor of {self!r}; "
                "it cannot be given to a process that is not forked"
            )
        return reduction.DupFd(fd)

    def _arrive(self, travelled: Any) -> None:
        self._handle = attach(travelled.detach())


class Queue(_Shared, queues.Queue):  # type: ignore[type-arg]
    """A queue shared by processes: `multiprocessing.Queue`, in shared memory.

    Args:
        maxsize: how many items it holds; 0 or less is without limit.
        ctx: accepted because the stdlib's class wants it, and not used.

    Raises:
        TypeError: maxsize is not an integer.
        OSError, MemoryError: the system gives neither file nor memory for a queue.

    Differences from the stdlib's: an item is pickled in put(), so that errors are raised there and the object may be
    changed afterwards; after put() returns, the item can be got in every process, also when the caller dies; qsize(),
    empty() and full() are exact; there is no thread to wait for; and there is shutdown().

    A process that dies, wherever it is, neither hangs the others nor harms the queue. The queue and its
    items last until the last process that has it is gone. After a fork both processes use it.
    """

    def __init__(self, maxsize: int = 0, *, ctx: Any = None) -> None:
        try:
            size = max(operator.index(maxsize), 0)
        except TypeError:
            raise TypeError(f"maxsize must be an integer (0: no limit), not {maxsize!r}") from None
        self._handle = create(min(size, 2**63))
        self._reset_state(maxsize)

    def _reset_state(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._closed = False

    def __getstate__(self) -> Any:
        return (self._travel(), self._maxsize)

    def __setstate__(self, state: Any) -> None:
        travelled, maxsize = state
        self._arrive(travelled)
        self._reset_state(maxsize)

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Puts an item into the queue.

        Args:
            obj: is pickled before the call returns.
            block: wait for a free slot if the queue is full.
            timeout: for so many seconds at most; None waits for ever.

        Raises:
            queue.Full: no slot was free in time.
            ShutDown: the queue was shut down, also while waiting.
            ValueError: this process has closed the queue.
            MemoryError: there is no memory for the item.
            Exception: whatever pickling the object raises.

        In each of these cases nothing was put. If the caller is killed, the item is there whole or not at all.
        Signal handlers run while it waits.
        """
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        deadline = (FOREVER if timeout is None else deadline_after(timeout)) if block else NOW
        handle = self._handle
        if type(obj) is int and -INTEGER_MIN <= obj <= INTEGER_MIN:
            rc = _put_integer(handle, obj, deadline)
            if not rc:
                return
        data = plain_dumps(obj) if type(obj) in PLAIN else dumps(obj)
        rc = _put(handle, data, len(data), deadline)
        if rc:
            while rc == INTERRUPTED:
                rc = _put(handle, data, len(data), deadline)
            if rc:
                raise error(rc)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes the oldest item out of the queue.

        Args:
            block: wait for an item if the queue is empty.
            timeout: for so many seconds at most; None waits for ever.

        Raises:
            queue.Empty: no item came in time.
            ShutDown: the queue is empty and was shut down, also while waiting.
            ValueError: this process has closed the queue.
            Exception: whatever unpickling the item raises; the item counts as taken then.

        If the caller is killed while it waits, nothing is lost; an item that it had taken dies with it. An exception
        raised by a signal handler leaves the item in the queue.
        """
        # A signal handler may raise after any call: so nothing is called between the one that unpickles the item and
        # the return, and until then the item is in the box.
        global _boxes
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        deadline = (FOREVER if timeout is None else deadline_after(timeout)) if block else NOW
        try:
            pair = _boxes.pop()
        except IndexError:
            pair = _new_box()
        handle = self._handle
        box: CData | None
        box, copy = pair
        item: Any = None
        payload: Any = None
        rc = INTERRUPTED
        try:
            while rc == INTERRUPTED:
                rc = _get(handle, box, deadline)
            if rc >= INTEGER_MIN:
                item = rc - INTEGER_ZERO
            elif rc >= 0:
                payload = copy[:rc]
                item = loads(payload)
            elif rc == LARGE:
                payload = ffi.buffer(box.payload, box.bytes)
                return loads(payload)  # the box ends with this frame, and so does the loan
            if rc >= 0:
                box.taken = 0  # only an empty box may be found by others
                box = None
                _boxes += (pair,)
                return item
        except BaseException as exception:
            if box is None or box.taken or rc >= 0:
                todo = [(handle, box, payload, item, exception)]
                try:
                    start_new_thread(_settle, (todo,))
                except RuntimeError:  # there cannot be another thread
                    _settle(todo)
                except BaseException:
                    pass  # another signal: `exception` will do
                try:
                    if box is not None:
                        lib.jnq_await(box)
                except BaseException:
                    pass
            raise
        _boxes.append(pair)
        raise error(rc)

    def put_nowait(self, obj: Any) -> None:
        """Puts an item if a slot is free: `put(obj, False)`."""
        return self.put(obj, False)

    def get_nowait(self) -> Any:
        """Takes an item if there is one: `get(False)`."""
        return self.get(False)

    def qsize(self) -> int:
        """The number of items in the queue, exact at one moment of the call."""
        return lib.jnq_qsize(self._handle)

    def empty(self) -> bool:
        """True if there is no item in the queue, exact at one moment of the call."""
        return not lib.jnq_qsize(self._handle)

    def full(self) -> bool:
        """True if there are maxsize items in the queue, exact at one moment of the call."""
        limit = lib.jnq_maxsize(self._handle)
        return 0 < limit <= lib.jnq_qsize(self._handle)

    def close(self) -> None:
        """Ends put() and get() in this process, but not in its children; items that were put stay in the queue."""
        self._closed = True
        util.register_after_fork(self, Queue._reopen)

    def _reopen(self) -> None:
        self._closed = False

    def join_thread(self) -> None:
        """Returns at once: nothing is left to be flushed. As in the stdlib, close() must have been called."""
        assert self._closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self) -> None:
        """Does nothing: the stdlib's would let the process exit without flushing, and here nothing is to be flushed."""

    def shutdown(self, immediate: bool = False) -> None:
        """Ends the queue in every process, as `queue.Queue.shutdown` of Python 3.13 does.

        From now on put() raises ShutDown, and get() does when the queue is empty; those that wait are woken.

        Args:
            immediate: discard the items in the queue. They count as done, and join() returns if they were the last
                unfinished ones.
        """
        rc = lib.jnq_shutdown(self._handle, bool(immediate))
        while rc == INTERRUPTED:
            rc = lib.jnq_shutdown(self._handle, bool(immediate))
        if rc:
            raise error(rc)


class JoinableQueue(Queue, queues.JoinableQueue):  # type: ignore[type-arg]
    """A queue that knows which tasks are unfinished: `multiprocessing.JoinableQueue`, in shared memory.

    Args, errors and differences are those of `Queue`; besides, join() takes a timeout, task_done() a number, and
    there is `unfinished_tasks`.
    """

    def task_done(self, n: int = 1) -> None:
        """Reports that n tasks are finished; any process may, for any task that was put.

        Raises:
            ValueError: more than were unfinished (none is reported then), or n is less than 1.
            TypeError: n is not an integer.
        """
        if n != 1:
            n = operator.index(n)
            if n < 1:
                raise ValueError(f"task_done() takes the number of finished tasks, 1 or more, not {n}")
            n = min(n, 2**64 - 1)
        rc = _task_done(self._handle, n)
        if rc:
            raise error(rc)

    def join(self, timeout: float | None = None) -> None:
        """Waits until every task is finished, or all were at some moment since the call.

        Args:
            timeout: for so many seconds at most; None waits for ever, as the stdlib's does.

        Raises:
            JoinTimeout: tasks were unfinished all the time.

        A task that was taken by a process which then died stays unfinished. Signal handlers run while it waits.
        """
        since = ffi.new("uint64_t *")
        deadline = deadline_after(timeout)
        rc = lib.jnq_join(self._handle, since, deadline)
        while rc == INTERRUPTED:
            rc = lib.jnq_join(self._handle, since, deadline)
        if rc == TIMEOUT:
            raise JoinTimeout(
                f"{self.unfinished_tasks} tasks are unfinished after {timeout} seconds, "
                f"{self.qsize()} of them still in the queue"
            )
        if rc:
            raise error(rc)

    @property
    def unfinished_tasks(self) -> int:
        """The number of tasks that were put and not yet reported done, exact at one moment of the call."""
        return lib.jnq_unfinished(self._handle)


class SimpleQueue(_Shared, queues.SimpleQueue):  # type: ignore[type-arg]
    """A queue without timeouts and limits: `multiprocessing.SimpleQueue`, in shared memory.

    Args:
        ctx: accepted because the stdlib's class wants it, and not used.

    put() never blocks, while the stdlib's waits for a reader when the pipe is full; the rest is as with `Queue`.
    """

    def __init__(self, *, ctx: Any = None) -> None:
        self._handle = create(0)
        self._closed = False

    def __getstate__(self) -> Any:
        return self._travel()

    def __setstate__(self, state: Any) -> None:
        self._arrive(state)
        self._closed = False

    def _check_closed(self) -> None:
        if self._closed:
            raise OSError("handle is closed")

    def put(self, obj: Any) -> None:
        """Puts an item. Raises OSError after close(), MemoryError, or what pickling the object raises."""
        self._check_closed()
        Queue.put(self, obj)  # type: ignore[arg-type]

    def get(self) -> Any:
        """Waits for an item and takes it. Raises OSError after close(), or what unpickling the item raises."""
        self._check_closed()
        return Queue.get(self)  # type: ignore[arg-type]

    def empty(self) -> bool:
        """True if there is no item. Raises OSError after close()."""
        self._check_closed()
        return not lib.jnq_qsize(self._handle)

    def close(self) -> None:
        """Ends the use of the queue in this process."""
        self._closed = True
