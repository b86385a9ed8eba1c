"""The public queues: the stdlib's interface over the core. The docstrings are the contract with the user.

No item is lost on the way: put() pickles before it touches the queue, and the core's put happens wholly or not at all.
What get() takes is unpickled before any signal handler can run, or else an exception of such a handler makes it give
the item back.
"""

from __future__ import annotations

import contextlib
import operator
import os
import types
import warnings
import weakref
from _thread import start_new_thread
from multiprocessing import queues, util
from multiprocessing.synchronize import SEM_VALUE_MAX  # type: ignore[attr-defined]
from queue import Empty, Full
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from joinq._holders import Holder, death, has_writer, holders, lost, tasks
from joinq._leases import DeadLetter, Lease, Leases, dead_letters, give_back_lease, give_back_leases, leases_of
from joinq._log import tell
from joinq._names import checked
from joinq._native import (
    EMPTY,
    INTERRUPTED,
    LOST,
    NOW,
    ON_DEATH,
    TIMEOUT,
    Declined,
    create,
    deadline_after,
    error,
    ffi,
    lib,
    pollable,
    port,
)
from joinq._observe import view_of
from joinq._payload import dumps
from joinq._private import JoinablePrivates, Made, Privates, QueuePrivates
from joinq._stats import Stats, stats_of, traits_of
from joinq._tasks import Task, each, shown_by
from joinq._transit import held_arrivals, pack, unpack
from joinq._why import explain
from joinq.exceptions import DeadLetterWarning, JoinTimeout, LostTasks

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Generator, Iterable, Sequence
    from contextlib import AbstractContextManager

    from joinq._jnq import CData, Key, Loan, Port

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

# The queue that this process has made or received last.
_latest: weakref.ref[Queue] | None = None

# Is told of every queue that this process makes: see _report.py.
observer: Callable[[_Shared], None] | None = None


_RAISE: Any = object()
_NO_MORE: Any = object()


class _Taken(NamedTuple):
    """What a get() had taken when an exception ended it."""

    handle: CData
    port: Port
    loan: Loan | None  # the item that was being unpickled
    reason: BaseException
    mine: deque[Lease] | None = None  # redeliver: the thread's tasks in hand,
    batch: Sequence[Loan] = ()  # and what it had taken before in the same call


def _settle(todo: list[_Taken], settled: CData, apart: bool = True) -> None:
    """Gives back what a get() had taken, but not an item that cannot be unpickled.

    Nothing about an exception tells whether it is a signal handler's or that of an item: unpickling once more does,
    apart from signal handlers, in a thread of its own. Without one the item goes back in any case: rather it comes
    again than it is lost.
    """
    try:
        taken = todo.pop()
    except IndexError:
        return
    try:
        handle, loan, mine = taken.handle, taken.loan, taken.mine
        if loan is not None:
            back = (KeyboardInterrupt, MemoryError)  # another process may have memory
            failed = apart and loan.owed and not isinstance(taken.reason, back) and _fails_to_load(taken.port, loan)
            if mine is None:
                loan.settle(failed)
            elif failed:
                loan.taken = mine
            else:
                _end_lease(handle, loan, mine)
        if mine is not None:
            for loan in reversed(taken.batch):
                _end_lease(handle, loan, mine)
    finally:
        settled.taken = 0


def _end_lease(handle: CData, loan: Loan, mine: deque[Lease]) -> None:
    # If it was owed, it may be somebody's again by now, under the same name.
    if loan.settle(False) and loan.lease in mine:
        with contextlib.suppress(ValueError):  # a handler has just reported it done
            mine.remove(loan.lease)
        give_back_lease(handle, loan.lease)


def _fails_to_load(port: Port, loan: Loan) -> bool:
    try:
        with held_arrivals():
            port.load(loan)
    except BaseException:
        return True
    finally:
        give_back_leases()  # what unpickling itself has taken: it is nobody's when this thread ends
    return False


def _give_back(taken: _Taken) -> None:
    """Settles what an exception has left, though signal handlers may raise meanwhile.

    If one does so even before, the item is back when nothing refers to the exceptions any more: see Loan.
    """
    todo = [taken]
    settled = ffi.new("jnq_box *")
    settled.taken = 1
    try:
        start_new_thread(_settle, (todo, settled))
    except (RuntimeError, MemoryError):  # there cannot be another thread; or it is a signal handler's, and there is one
        with contextlib.suppress(BaseException):
            _settle(todo, settled, False)
    except BaseException:
        pass  # another signal: the first exception will do
    try:
        lib.jnq_await(settled)
    except BaseException:
        pass


class _Shared:
    """What all three have in common."""

    _handle: CData
    _port: Port
    _leases: Leases | None = None
    _get_closed = False  # in this process: get() is refused,
    _put_closed = False  # and put()
    _lines = Made(lambda queue: {})  # of coroutines that wait: see _asyncio.py
    _kind: ClassVar[int]
    name = Made(lambda queue: _name(queue))  # a subclass may have its own

    def _closed_error(self) -> Exception:
        return OSError("handle is closed")

    def _handles_errors(self) -> bool:
        """True if a subclass has its own way with what cannot be pickled, as concurrent.futures has."""
        handler = getattr(type(self), "_on_queue_feeder_error", None)
        return handler not in (None, queues.Queue._on_queue_feeder_error)  # type: ignore[attr-defined]

    def _tell_letters(self) -> None:
        """Warns of the dead letters that this process has not told of."""

    def _idle(self) -> None:
        """What a blocked get() looks for, once a second."""
        tell(self._handle)
        if self._leases is not None and lib.jnq_news(self._handle):
            self._tell_letters()
        if self._at_end():
            raise EOFError

    def _at_end(self) -> bool:
        """True if the queue is empty, and no process is left that could put something."""
        return self._put_closed and not has_writer(self._handle) and not lib.jnq_qsize(self._handle)

    def _get_error(self, rc: int) -> Exception:
        tell(self._handle)
        return EOFError() if rc == EMPTY and self._at_end() else error(rc)

    def _take_anyway(self, outcome: list[Any], key: Key) -> Any:
        """Goes on with `self._port[key]`, which has Declined with these args; the result or error of a get().

        Empties the list: an exception must not be referred to by the frames that it refers to.
        """
        while True:
            rc, loan, reason = outcome
            outcome.clear()
            if reason is not None:
                try:
                    if loan is not None:
                        _give_back(_Taken(self._handle, self._port, loan, reason))
                    raise reason
                finally:
                    del reason, loan
            if rc != INTERRUPTED:
                raise self._get_error(rc)
            self._idle()
            try:
                return self._port[key]
            except Declined as declined:
                outcome += declined.args

    def _take_lease(self, deadline: int | None, batch: list[Loan] | None = None, otherwise: Any = _RAISE) -> Any:
        """get() with on_death="redeliver"; what to give `otherwise`, if there is no item and not an exception.

        Of a batch, it adds the loan to those that are to be settled.
        """
        leases: Leases = self._leases  # type: ignore[assignment]
        mine = leases.mine
        loan: Any = None
        try:
            try:
                loan = self._port[deadline]
            except Declined as declined:
                outcome = [*declined.args]
            if loan is None:
                if otherwise is not _RAISE and outcome[2] is None:
                    return otherwise
                loan = self._take_anyway(outcome, deadline)
            item = leases.load(self._port, loan, batch or ())
            if batch is None:
                loan.taken = mine
            else:
                batch += (loan,)
            return item
        except BaseException as exception:
            if loan is not None:
                _give_back(_Taken(self._handle, self._port, loan, exception, mine=mine))
            raise

    def _fill(self, items: list[Any], batch: list[Loan], most: int, deadline: int | None) -> None:
        """Takes items and their loans. On its own: a jump back may lie outside of the `try` around its loop."""
        items += (self._take_lease(deadline, batch),)
        while len(items) < most:
            item = self._take_lease(NOW, batch, _NO_MORE)
            if item is _NO_MORE:
                break
            items += (item,)

    def _take_leases(self, most: int, deadline: int | None) -> list[Any]:
        """get_many() with on_death="redeliver"."""
        mine = self._leases.mine  # type: ignore[union-attr]
        items: list[Any] = []
        batch: list[Loan] = []
        try:
            self._fill(items, batch, most, deadline)
            self._port.taken = batch, mine
        except BaseException as exception:
            _give_back(_Taken(self._handle, self._port, None, exception, mine=mine, batch=batch))
            raise
        return items

    def fileno(self) -> int:
        """A descriptor that is readable exactly while get() would not wait: there is an item, or it was shut down.

        For select, selectors, event loops and multiprocessing.connection.wait(), which take the queue itself, too. It
        is only to be waited for, and neither to be read nor closed. Another process may be faster with the item, so
        use get_nowait() then. If somebody dies in put() or get(), it may lie for 100 ms. From the first call on, in
        any process, each change between empty and not empty costs whoever makes it a few microseconds. A child of a
        fork has to call it, too.

        Raises:
            OSError: this process has no descriptor left.
            ValueError, OSError: it has closed the queue, as with get().
        """
        if self._get_closed:
            raise self._closed_error()
        return pollable(self._handle, lib.JNQ_IN_GET)

    def stats(self) -> Stats:
        """Gives the figures of the queue, over all of its processes, the dead ones included.

        It waits for nobody and slows nobody down, so it can be asked at any time, also after close(), shutdown(), or a
        fork. The stdlib's queues have no such method.
        """
        return stats_of(self._handle)

    def holders(self) -> list[Holder]:
        """Tells, for each process that uses the queue, or died with tasks in hand, what it has, does and waits for.

        A process uses it from its first call on (with spawn and forkserver: from its arrival) to its end. One that died
        without tasks in hand is no longer told of once that was noticed. As stats() it can be asked at any time; here
        each process costs a look into /proc.
        """
        return list(holders(self._handle))

    __class_getitem__: ClassVar[Any] = classmethod(types.GenericAlias)

    def __repr__(self) -> str:
        if not hasattr(self, "_handle"):
            return object.__repr__(self)
        return f"<{type(self).__qualname__} {_name(self)!r} at {id(self):#x}>"

    def _create(self, maxsize: int, name: str | None, on_death: str = "ignore", max_deliveries: int = 0) -> None:
        label = checked(name)
        self._use(create(maxsize, on_death, max_deliveries))
        lib.jnq_label(self._handle, self._kind, label)
        if observer:
            observer(self)

    def _use(self, handle: CData) -> None:
        self._handle = handle
        self._port = port(handle)

    def _arrive(self, travelled: Any) -> None:
        self._use(unpack(travelled))
        lib.jnq_begin_writing(self._handle)  # perhaps only its reading end was here, or the writing one was closed

    def __copy__(self) -> Any:
        raise RuntimeError(f"a {type(self).__name__} cannot be copied; pickle it to send it to another process")

    def __deepcopy__(self, memo: Any) -> Any:
        return self.__copy__()


def _name(queue: _Shared) -> str:
    traits = traits_of(queue._handle)  # which the name is a part of
    return ffi.string(traits.name).decode("utf-8", "replace")


def latest() -> Queue | None:
    """The Queue that this process has made or received last, if it is still there."""
    return _latest() if _latest else None


def _limit(maxsize: int) -> int:
    """The core's maxsize."""
    try:
        return min(max(operator.index(maxsize), 0), 2**63)
    except TypeError:
        raise TypeError(f"maxsize must be an integer (0: no limit), not {maxsize!r}") from None


def check_on_death(on_death: str, max_deliveries: int) -> None:
    """Raises TypeError or ValueError if these arguments of JoinableQueue are not allowed."""
    if on_death not in ON_DEATH:
        raise ValueError(f"on_death must be 'raise', 'ignore' or 'redeliver', not {on_death!r}")
    try:
        deliveries = operator.index(max_deliveries)
    except TypeError:
        raise TypeError(f"max_deliveries must be an integer, not {max_deliveries!r}") from None
    if not 1 <= deliveries < 2**31:
        raise ValueError(f"max_deliveries must be from 1 to {2**31 - 1}, not {max_deliveries}")


class Queue(_Shared, QueuePrivates, queues.Queue):  # type: ignore[type-arg]
    """A queue shared by processes: `multiprocessing.Queue`, in shared memory.

    Args:
        maxsize: how many items it holds; 0 or less is without limit.
        name: by which people know the queue, in every process: its attribute `name`, its repr(), and all that joinq
            tells of it. Up to 63 bytes of printable UTF-8; without one, the place where it was made: "resize.py:12".
        ctx: accepted because the stdlib's class wants it, and not used.

    Raises:
        TypeError: maxsize is not an integer, or the name no string.
        ValueError: the name is empty, too long, or not printable.
        OSError, MemoryError: the system gives neither file nor memory for a queue.

    Differences from the stdlib's: an item is pickled in put(), so that errors are raised there and the object may be
    changed afterwards; after put() returns, the item can be got in every process, also when the caller dies; qsize(),
    empty() and full() are exact; there is no thread to wait for; and there is shutdown().

    A process that dies, wherever it is, neither hangs the others nor harms the queue. The queue and its
    items last until the last process that has it is gone. After a fork both processes use it, and each has its own of
    the large buffers that were received; a child for whose copies there is no memory ends at once, with a message and
    exit code 1.

    A queue can be pickled at any time, and be sent to processes of the same user by a Pool, a Pipe, a Manager, another
    queue, or itself. It is then under way, and lasts although nobody has it, also when the sender is killed, until it
    is received, or the program has ended. Pickling raises OSError if the process that keeps it meanwhile cannot be
    started. Unpickling raises FileNotFoundError if the queue is gone: its pickle can be loaded again, but only as long
    as somebody has the queue; and PermissionError if it is another user's. copy.copy() and deepcopy() raise
    RuntimeError.
    """

    _kind = lib.JNQ_QUEUE

    def __init__(self, maxsize: int = 0, *, name: str | None = None, ctx: Any = None) -> None:
        self._create(_limit(maxsize), name)
        self._reset_state(maxsize, os.getpid())

    def _use(self, handle: CData) -> None:
        global _latest
        super()._use(handle)
        _latest = weakref.ref(self)

    def _reset_state(self, maxsize: int, opid: int) -> None:
        self._maxsize = maxsize if maxsize > 0 else SEM_VALUE_MAX
        self._opid = opid
        self._get_closed = self._put_closed = self._closed = False

    def __getstate__(self) -> Any:
        return (pack(self._handle), self._maxsize, self._opid)

    def __setstate__(self, state: Any) -> None:
        travelled, maxsize, opid = state
        self._arrive(travelled)
        self._reset_state(maxsize, opid)

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Puts an item into the queue.

        Args:
            obj: is pickled before the call returns.
            block: wait for a free slot if the queue is full.
            timeout: for so many seconds at most; None waits for ever.

        Raises:
            queue.Full: no slot was free in time.
            ShutDown: the queue was shut down, also while waiting.
            ValueError: this process has closed the queue (OSError: only `_writer`).
            MemoryError: there is no memory for the item.
            Exception: whatever pickling the object raises, unless a subclass defines `_on_queue_feeder_error(e, obj)`:
                then that is called, as the stdlib does.

        In each of these cases nothing was put. If the caller is killed, the item is there whole or not at all.
        Signal handlers run while it waits.
        """
        if self._put_closed:
            raise self._closed_error()
        deadline = (None if timeout is None else deadline_after(timeout)) if block else NOW
        try:
            rc = self._port.put(obj, deadline)
        except Exception:
            if not self._handles_errors():
                raise
            try:
                dumps(obj)
            except Exception as reason:
                self._on_queue_feeder_error(reason, obj)  # type: ignore[attr-defined]
                return
            raise  # a signal handler's
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
            ValueError: this process has closed the queue (OSError: only `_reader`).
            EOFError: the queue is empty, and every process that could put something has closed `_writer`, this one
                too, or has ended. Noticed within about a second.
            Exception: whatever unpickling the item raises; the item counts as taken then.

        If the caller is killed while it waits, nothing is lost; an item that it had taken dies with it. An exception
        raised by a signal handler leaves the item in the queue (with what its own unpickling has by then written into
        its large buffers).
        """
        if self._get_closed:
            raise self._closed_error()
        deadline = (None if timeout is None else deadline_after(timeout)) if block else NOW
        if self._leases is not None:
            return self._take_lease(deadline)
        try:
            return self._port[deadline]
        except Declined as declined:
            outcome = [*declined.args]
        return self._take_anyway(outcome, deadline)

    def put_many(self, iterable: Iterable[Any], block: bool = True, timeout: float | None = None) -> None:
        """Puts the items of an iterable, in their order: as put() for each, but much faster if they are small.

        Args:
            iterable: each of its items is pickled on its own. It may be endless. If it has a length, it is asked for
                up to 1000 items ahead. If it has none, as a generator, it is asked for the next item only when all
                before it are in the queue, so it may wait for what becomes of them; iter() makes any one so.
            block: wait for free slots if the queue is full.
            timeout: for so many seconds at most, for all of them; None waits for ever.

        Raises:
            Exception: as put() does, or what the iterable raises. Its attribute `items_put` says how many items are in
                the queue: the first so many; the others are not. (Exceptions that take no attributes have none.)
                If pickling, a signal handler or the iterable raises, what there is no room for at once is not put.

        Others may put items in between. If the caller is killed, the first items are there, each whole, and the others
        are not.
        """
        if self._put_closed:
            raise self._closed_error()
        deadline = (None if timeout is None else deadline_after(timeout)) if block else NOW
        put = [0]  # kept by the core, because after any call a signal handler may raise
        try:
            ahead = True
            source: Any = iterable
            if type(iterable) is not list:
                ahead = hasattr(iterable, "__len__")
                source = iter(iterable)
            while True:
                rc = self._port.put_many(source, deadline, put, ahead)
                if not rc:
                    return
                if rc != INTERRUPTED:
                    raise error(rc)
                if self._put_closed:
                    raise self._closed_error()
        except BaseException as failure:
            with contextlib.suppress(AttributeError, TypeError):
                failure.items_put = put[0]  # type: ignore[attr-defined]
            raise

    def get_many(self, max_items: int, block: bool = True, timeout: float | None = None) -> list[Any]:
        """Takes some of the oldest items, as get() does, and at least one: those that are there; it waits for no more.

        Args:
            max_items: so many at most. There may be fewer although more are in the queue.
            block: wait for the first one if the queue is empty.
            timeout: for so many seconds at most; None waits for ever.

        Raises:
            TypeError, ValueError: max_items is not an integer, or less than 1.
            Exception: as get() does. If an item cannot be unpickled, that one counts as taken; the others go back.

        With JoinableQueue, task_done(n) reports n of them done. If the caller is killed, what it had taken dies with
        it, or with on_death="redeliver" goes back to the queue.
        """
        try:
            most = min(operator.index(max_items), 2**63)
        except TypeError:
            raise TypeError(f"max_items must be an integer, not {max_items!r}") from None
        if most < 1:
            raise ValueError(f"max_items must be 1 or more, not {max_items}")
        if self._get_closed:
            raise self._closed_error()
        deadline = (None if timeout is None else deadline_after(timeout)) if block else NOW
        if self._leases is not None:
            return self._take_leases(most, deadline)
        key = (most, deadline)
        try:
            return self._port[key]  # type: ignore[no-any-return]
        except Declined as declined:
            outcome = [*declined.args]
        return self._take_anyway(outcome, key)  # type: ignore[no-any-return]

    async def aget(self) -> Any:
        """Takes the oldest item, as get() does; while the queue is empty, the event loop does other things.

        For a timeout, `asyncio.wait_for(q.aget(), seconds)`. A cancelled aget() has taken nothing. The coroutines of a
        loop are served in the order of their arrival. Any number of loops, threads and processes may wait. With
        on_death="redeliver" the tasks of all coroutines are their thread's, and task_done() finishes the oldest.

        Raises:
            Exception: as get() does, but not Empty.
        """
        from joinq._asyncio import until

        return await until(self, lib.JNQ_IN_GET, lambda: self.get(False), Empty)

    async def aput(self, obj: Any) -> None:
        """Puts an item, as put() does; while the queue is full, the event loop does other things.

        For a timeout, `asyncio.wait_for(q.aput(obj), seconds)`. A cancelled aput() has put nothing. The object is
        pickled when there is room.

        Raises:
            Exception: as put() does, but not Full.
        """
        from joinq._asyncio import until

        await until(self, lib.JNQ_IN_PUT, lambda: self.put(obj, False), Full)

    def put_nowait(self, obj: Any) -> None:
        """Puts an item if a slot is free: `put(obj, False)`."""
        return self.put(obj, False)

    def get_nowait(self) -> Any:
        """Takes an item if there is one: `get(False)`."""
        return self.get(False)

    def buffer(self, nbytes: int) -> memoryview:
        """Gives writable memory of the queue, of so many bytes, which putting it into this queue does not copy.

        Put it as `pickle.PickleBuffer(memory)`, or as an object that has it for its buffer, such as a NumPy array (see
        joinq.empty()): whatever supports pickle protocol 5. A contiguous part of it will do. With other objects that
        have buffers in the same item, it is copied like them.

        After it was put it is the receiver's, too: what either of them writes, the other one sees; so the sender should
        let go of it. The memory lasts until both have, whoever dies. Put a second time, or into another queue, it is
        copied. The child of a fork has a copy of its own.

        Raises:
            MemoryError: there is no memory.
            TypeError, ValueError: nbytes is not an integer, or less than 0.
        """
        try:
            n = operator.index(nbytes)
        except TypeError:
            raise TypeError(f"nbytes must be an integer, not {nbytes!r}") from None
        if n < 0:
            raise ValueError(f"nbytes must be 0 or more, not {nbytes}")
        rc: int
        try:
            return self._port.buffer(min(n, 2**64 - 1))
        except Declined as declined:
            rc = declined.args[0]
        raise error(rc)

    def qsize(self) -> int:
        """The number of items in the queue, exact at one moment of the call."""
        return lib.jnq_qsize(self._handle)

    def empty(self) -> bool:
        """True if there is no item in the queue, exact at one moment of the call.

        Raises:
            OSError: this process has closed the queue, and put something before. (The stdlib's close() leaves the pipe
                open if nothing was put.)
        """
        if self._get_closed and (self._end_closed("_reader") or lib.jnq_has_put(self._handle)):
            raise OSError("handle is closed")
        return not lib.jnq_qsize(self._handle)

    def full(self) -> bool:
        """True if there are maxsize items in the queue, exact at one moment of the call."""
        limit = lib.jnq_maxsize(self._handle)
        return 0 < limit <= lib.jnq_qsize(self._handle)

    def close(self) -> None:
        """Ends put() and get() in this process, but not in its children; items that were put stay in the queue."""
        self._get_closed = self._put_closed = self._closed = True
        util.register_after_fork(self, Queue._after_fork)

    def _closed_error(self) -> Exception:
        return ValueError(f"Queue {self!r} is closed") if self._closed else super()._closed_error()

    def _after_fork(self) -> None:
        self._reset(after_fork=True)

    def _reset(self, after_fork: bool = False) -> None:
        """Undoes close() and cancel_join_thread(), but not what was done to an end alone."""
        self._get_closed = self._end_closed("_reader")
        self._put_closed = self._end_closed("_writer")
        self._joincancelled = self._closed = False

    def _end_closed(self, name: str) -> bool:
        end = self.__dict__.get(name)
        return end is not None and end.closed

    def join_thread(self) -> None:
        """Returns at once: nothing is left to be flushed. As in the stdlib, close() must have been called."""
        assert self._closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self) -> None:
        """Does nothing: the stdlib's would let the process exit without flushing, and here nothing is to be flushed."""
        self._joincancelled = True

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

    @property
    def is_shutdown(self) -> bool:
        """True after shutdown() in any process; `queue.Queue` of Python 3.13 has the same attribute."""
        return bool(lib.jnq_is_shutdown(self._handle))


class JoinableQueue(JoinablePrivates, Queue, queues.JoinableQueue):  # type: ignore[type-arg]
    """A queue that knows which tasks are unfinished: `multiprocessing.JoinableQueue`, in shared memory.

    Args:
        maxsize, name, ctx: as with `Queue`.
        on_death: what becomes of the tasks that a process had taken, and not reported done, when it dies.
            "raise": they stay unfinished, but join() raises LostTasks when no living process can finish one.
            "ignore": they stay unfinished, and join() waits, as the stdlib's does.
            "redeliver": within a second they go back to the front of the queue, in their order. So a task is
            taken at least once, not at most once. Only the thread that has taken a task can finish it, and
            task_done() finishes the oldest of the calling thread's; see also task() and dead_letters().
        max_deliveries: with "redeliver", a task that has killed so many of the processes that took it is given up.

    Errors and differences are those of `Queue`; besides, join() takes a timeout, task_done() a number, and there are
    `unfinished_tasks` and task(). A process dies for us if it is killed, or ends with another exit code than 0 (one
    that multiprocessing has not started: with an uncaught exception); a process that ends in order with tasks in hand
    may have handed them on, so from then on "raise" is as "ignore", as it is when a process finishes tasks that
    another one has taken. With "redeliver" neither is possible. Whether a process is alive decides, never a time: a
    task may take days.
    """

    _kind = lib.JNQ_JOINABLE

    def __init__(
        self,
        maxsize: int = 0,
        *,
        on_death: str = "raise",
        max_deliveries: int = 3,
        name: str | None = None,
        ctx: Any = None,
    ) -> None:
        check_on_death(on_death, max_deliveries)
        self._create(_limit(maxsize), name, on_death, operator.index(max_deliveries))
        self._reset_state(maxsize, os.getpid())

    def _reset_state(self, maxsize: int, opid: int) -> None:
        super()._reset_state(maxsize, opid)
        self._leases = leases_of(self._handle)
        self._letters_told = 0

    def task_done(self, n: int = 1) -> None:
        """Reports that n tasks are finished; any process may, for any task that was put.

        With on_death="redeliver": the n oldest that the calling thread has taken.

        Raises:
            ValueError: more than were unfinished, or than the thread has taken (none is reported then); or n is less
                than 1.
            TypeError: n is not an integer.
        """
        if n != 1:
            n = operator.index(n)
            if n < 1:
                raise ValueError(f"task_done() takes the number of finished tasks, 1 or more, not {n}")
            n = min(n, 2**64 - 1)
        if self._leases is not None:
            self._leases.finish_oldest(self._handle, n)
            return
        rc = self._port.task_done(n)
        if rc:
            raise error(rc)

    def task(self, block: bool = True, timeout: float | None = None) -> AbstractContextManager[Any]:
        """Takes the oldest item, and reports this task done at the end of the `with` block, also if that raises.

        In the child of a fork made by the block, the task is the parent's.

        Raises:
            Exception: as get() does; ValueError at the end if the block has itself reported the task done.
        """
        return Task(self, block, timeout)

    def tasks(self, progress: Any = None) -> Generator[Any, None, None]:
        """Iterates over tasks, as get() takes them, until shutdown(), and reports each done when it is worked on.

        A task counts as done when the loop's body comes back for the next one, or is left: by an exception of any
        kind, `break` or `return`. So each task that the body was given is reported once; the body must not do it. One
        that it was not given stays in the queue: none is taken in advance, and an exception of a signal handler during
        the wait leaves the item where it is. A failed task that is to be taken again has to be put again.

            for path in q.tasks():
                resize(path)

        An iterator that is kept in a variable does not notice that the loop was left: its last task is in hand until
        it is asked for the next one, its close() is called, or the garbage collector finds it. If the process is
        killed, `on_death` says what becomes of the task. In the child of a fork made by the body, the task is the
        parent's. One iterator is for one thread.

        Args:
            progress: shows how many tasks this loop has finished. `tqdm`, for a bar that is made here and closed at the
                end; a bar, which is only updated; or a `rich.progress.Progress`, for a row in it.

        Raises:
            TypeError: `progress` is something else.
            Exception: as get() does, but not ShutDown; ValueError if the body has reported its task done. An item that
                cannot be unpickled counts as taken, as with get(): task_done() reports it.

        The stdlib's queues have no such method.
        """
        return each(self, JoinableQueue.task_done, shown_by(progress, self.name))

    def join(self, timeout: float | None = None) -> None:
        """Waits until every task is finished, or all were at some moment since the call.

        Args:
            timeout: for so many seconds at most; None waits for ever, as the stdlib's does.

        Raises:
            JoinTimeout: tasks were unfinished all the time; its text says who has them, and
                in which other queue he waits.
            LostTasks: all unfinished tasks were taken by processes that have died (only with on_death="raise"). Again
                at each call, until somebody else reports them done.

        Warns:
            DeadLetterWarning: tasks were given up.

        Signal handlers run while it waits.
        """
        if not self._join(ffi.new("uint64_t *"), deadline_after(timeout)):
            raise JoinTimeout(self._why_unfinished(f"after {timeout} seconds"))

    async def ajoin(self) -> None:
        """Waits as join() does; meanwhile the event loop does other things.

        For a timeout, `asyncio.wait_for(q.ajoin(), seconds)`, which raises asyncio.TimeoutError.

        Raises:
            LostTasks: as join() does.
        """
        from joinq._asyncio import until

        since = ffi.new("uint64_t *")

        def attempt() -> None:
            if not self._join(since, NOW):
                raise JoinTimeout

        if not self._join(since, NOW):  # from now on no zero is missed
            await until(self, lib.JNQ_IN_JOIN, attempt, JoinTimeout)

    def _join(self, since: CData, deadline: int) -> bool:
        """One join(), in one call or in several with the same `since`. Returns False at the deadline."""
        rc = INTERRUPTED
        while rc == INTERRUPTED:
            rc = lib.jnq_join(self._handle, since, deadline)
            tell(self._handle, own=False)
            if self._leases:
                self._tell_letters()
        if rc == LOST:
            raise self._lost_tasks()
        if rc and rc != TIMEOUT:
            raise error(rc)
        return rc != TIMEOUT

    def _why_unfinished(self, when: str) -> str:
        return "\n  ".join(explain(view_of(self._handle), when=when))

    def _lost_tasks(self) -> LostTasks:
        unfinished = self.unfinished_tasks
        dead = lost(self._handle, unfinished)
        who = "; ".join(f"process {d.pid} ({d.name}) {death(d.exitcode)} with {tasks(d.tasks)}" for d in dead)
        return LostTasks(
            f"{tasks(unfinished)} will never be finished, because who took them is dead: {who}", dead, unfinished
        )

    def dead_letters(self) -> list[DeadLetter]:
        """The tasks that were given up (on_death="redeliver"), oldest first; they stay there as long as the queue does.

        A task is given up when max_deliveries of the processes that took it have died before they finished it. It
        counts as finished.
        """
        return dead_letters(self._handle)

    def _tell_letters(self) -> None:
        lib.jnq_news(self._handle)
        letters = dead_letters(self._handle, self._letters_told)
        self._letters_told += len(letters)
        for letter in letters:
            warnings.warn(
                f"a task was given up after it had killed {letter.deaths} of the processes that took it (the last: "
                f"{', '.join(map(str, letter.pids))}); dead_letters() has it",
                DeadLetterWarning,
                stacklevel=4,
            )

    @property
    def unfinished_tasks(self) -> int:
        """The number of tasks that were put and not yet reported done, exact at one moment of the call."""
        return lib.jnq_unfinished(self._handle)


class SimpleQueue(_Shared, Privates, queues.SimpleQueue):  # type: ignore[type-arg]
    """A queue without timeouts and limits: `multiprocessing.SimpleQueue`, in shared memory.

    Args:
        name: as with Queue.
        ctx: accepted because the stdlib's class wants it, and not used.

    put() never blocks, while the stdlib's waits for a reader when the pipe is full; the rest is as with `Queue`.
    """

    _kind = lib.JNQ_SIMPLE

    def __init__(self, *, name: str | None = None, ctx: Any = None) -> None:
        self._create(0, name)

    def __getstate__(self) -> Any:
        return pack(self._handle)

    def __setstate__(self, state: Any) -> None:
        self._arrive(state)

    def put(self, obj: Any) -> None:
        """Puts an item. Raises OSError after close(), MemoryError, or what pickling the object raises."""
        Queue.put(self, obj)  # type: ignore[arg-type]

    def get(self) -> Any:
        """Waits for an item and takes it.

        Raises:
            OSError: this process has called close().
            EOFError: as with Queue.
            Exception: whatever unpickling the item raises.
        """
        return Queue.get(self)  # type: ignore[arg-type]

    async def aget(self) -> Any:
        """Takes an item, as get() does; see Queue.aget()."""
        from joinq._asyncio import until

        return await until(self, lib.JNQ_IN_GET, lambda: Queue.get(self, False), Empty)  # type: ignore[arg-type]

    async def aput(self, obj: Any) -> None:
        """Puts an item, as put() does, which never waits."""
        self.put(obj)

    def empty(self) -> bool:
        """True if there is no item. Raises OSError after close()."""
        if self._get_closed:
            raise self._closed_error()
        return not lib.jnq_qsize(self._handle)

    def close(self) -> None:
        """Ends the use of the queue in this process."""
        self._reader.close()
        self._writer.close()
