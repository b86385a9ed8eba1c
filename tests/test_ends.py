"""
Waiting for a queue with poll(2), its two ends, its private attributes, and what close() leaves of it.

What the stdlib's queues have is asked of both.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import pickle
import select
import selectors
import signal
import socket
import sys
import threading
import weakref
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from queue import Empty

import probes
import pytest
import workers
from probes import LIMIT

import joinq
from joinq._private import Lock

KINDS = ["JoinableQueue", "Queue", "SimpleQueue"]


@pytest.fixture(params=KINDS)
def queue(request):
    """A queue of each kind."""
    return getattr(joinq, request.param)()


@pytest.fixture(params=KINDS)
def any_queue(request, impl):
    """A queue of each kind, of each implementation."""
    return getattr(impl, request.param)()


def polled(fd, event=select.POLLIN):
    """Whether poll(2) says so now."""
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(0))


# fileno() ---------------------------------------------------------------------------------


def test_readable_exactly_while_not_empty(queue):
    """The descriptor of the queue is that of its reader, and says whether there is an item."""
    queue.put(0)
    fd = queue.fileno()
    assert fd == queue.fileno() == queue._reader.fileno()
    assert polled(fd)
    queue.get()
    assert not polled(fd)
    for count in range(1, 4):
        for number in range(count):
            queue.put(number)
            assert polled(fd)
        for _ in range(count):
            assert polled(fd)
            queue.get()
        assert not polled(fd)


def test_writable_exactly_while_not_full():
    """The descriptor of the writer says whether there is room."""
    q = joinq.Queue(2)
    fd = q._writer.fileno()
    for _ in range(3):
        assert polled(fd, select.POLLOUT)
        q.put(1)
        assert polled(fd, select.POLLOUT)
        q.put(2)
        assert not polled(fd, select.POLLOUT)
        q.get()
        assert polled(fd, select.POLLOUT)
        q.get()


def test_shutdown_makes_both_ends_ready():
    """Neither get() nor put() would wait after shutdown()."""
    q = joinq.Queue(1)
    q.put(1)
    reader, writer = q._reader.fileno(), q._writer.fileno()
    q.shutdown(immediate=True)
    assert q._reader.poll() is True
    assert polled(reader)
    assert polled(writer, select.POLLOUT)


def test_everything_that_waits_takes_a_queue(queue):
    """select, selectors and multiprocessing.connection.wait() take the queue and its reader."""
    other, theirs = socket.socketpair()
    with other, theirs:
        for this in (queue, queue._reader):
            assert select.select([other, this], [], [], 0)[0] == []
            assert connection.wait([other, this], 0) == []
            queue.put(1)
            assert select.select([other, this], [], [], LIMIT)[0] == [this]
            assert connection.wait([other, this], LIMIT) == [this]
            with selectors.DefaultSelector() as selector:
                selector.register(this, selectors.EVENT_READ)
                assert [key.fileobj for key, _ in selector.select(LIMIT)] == [this]
            queue.get()


def test_wait_for_a_queue_or_the_end_of_a_process(queue, launch):
    """connection.wait() on a queue and a sentinel: the one that comes first."""
    child = launch(workers.puppet, queue)
    ends = [queue, child.process.sentinel]
    assert connection.wait(ends, 0) == []
    child.call("put", "news")
    assert connection.wait(ends, LIMIT) == [queue]
    assert queue.get() == "news"
    os.kill(child.pid, signal.SIGKILL)
    assert connection.wait(ends, LIMIT) == [ends[1]]
    child.process.join()
    child.close()


def test_poll_is_woken_by_another_process(queue, launch):
    """A process that sleeps in poll(2) sees what another one puts."""
    child = launch(workers.polls, queue)
    assert child.receive() == "ready"
    child.wait_asleep()
    queue.put("news")
    assert child.result() == "news"


def test_nothing_is_opened_before_somebody_asks(queue):
    """A queue has one descriptor, and few attributes, until fileno() is called."""
    before = probes.descriptors()
    kind = type(queue)
    q = kind()
    q.put(1)
    assert q._reader.poll()
    q.get()
    assert len(probes.descriptors()) == len(before) + 1
    assert len(vars(kind())) <= 9


# The ends ---------------------------------------------------------------------------------


def test_an_end_is_a_connection(any_queue):
    """It knows its direction, and is the same object each time."""
    reader, writer = any_queue._reader, any_queue._writer
    assert any_queue._reader is reader
    assert any_queue._writer is writer
    assert isinstance(reader, connection.Connection)
    assert (reader.readable, reader.writable, reader.closed) == (True, False, False)
    assert (writer.readable, writer.writable, writer.closed) == (False, True, False)
    assert isinstance(writer.fileno(), int)
    with pytest.raises(OSError, match=r"^connection is read-only$"):
        reader.send(1)
    with pytest.raises(OSError, match=r"^connection is read-only$"):
        reader.send_bytes(b"1")
    for call in (writer.recv, writer.recv_bytes, writer.poll):
        with pytest.raises(OSError, match=r"^connection is write-only$"):
            call()


def test_what_is_sent_is_put_and_received_is_got(any_queue):
    """send() is put(), recv() is get(), also as pickles; poll() tells whether there is something."""
    reader, writer = any_queue._reader, any_queue._writer
    assert reader.poll() is False
    writer.send([1])
    assert reader.poll() is True
    assert reader.poll(LIMIT) is True
    assert any_queue.empty() is False
    assert reader.recv() == [1]
    for item in (2, ["three"]):
        writer.send(item)
        assert pickle.loads(reader.recv_bytes()) == item
        writer.send_bytes(pickle.dumps(item))
        assert reader.recv() == item
    assert reader.poll(0.01) is False
    assert reader.poll(-1) is False


def test_poll_waits(queue, launch):
    """poll(None) and poll(timeout) wait for an item, and leave it."""
    child = launch(workers.puppet, queue)
    for timeout in (None, LIMIT):
        with concurrent.futures.ThreadPoolExecutor() as executor:
            answer = executor.submit(queue._reader.poll, timeout)
            child.call("put", 1)
            assert answer.result(LIMIT) is True
        assert queue.get() == 1


def test_a_closed_end_refuses(any_queue):
    """Everything but close() and closed raises OSError, and the other end does not care."""
    reader, writer = any_queue._reader, any_queue._writer
    with reader as same:
        assert same is reader
    assert reader.closed
    reader.close()
    for call in (reader.recv, reader.recv_bytes, reader.poll, reader.fileno):
        with pytest.raises(OSError, match=r"^handle is closed$"):
            call()
    assert not writer.closed
    writer.close()
    writer.close()
    for call in (lambda: writer.send(1), lambda: writer.send_bytes(b"1"), writer.fileno):
        with pytest.raises(OSError, match=r"^handle is closed$"):
            call()


def test_an_end_outlives_its_queue(queue):
    """A reader that is kept keeps the items; nothing keeps the queue object."""
    reader = queue._reader
    other = type(queue)()
    other.put(1)
    kept, seen = other._reader, weakref.ref(other)
    del other
    assert seen() is None
    assert kept.recv() == 1
    kept.close()
    assert not reader.closed


def test_ends_can_be_given_to_a_child(any_queue, launch):
    """As arguments of a process, like any connection."""
    reader, writer = any_queue._reader, any_queue._writer
    sender = launch(workers.transmit, writer, [1, "two", [3]])
    receiver = launch(workers.receive, reader, 3)
    sender.result()
    assert receiver.result() == [1, "two", [3]]


# The end of the stream ----------------------------------------------------------------------


def test_end_of_the_stream_alone(any_queue):
    """When the only process has closed the writer, get() gives what is there and then raises EOFError."""
    any_queue.put("last")
    any_queue._reader.poll(LIMIT)
    any_queue._writer.close()
    assert any_queue.get() == "last"
    assert any_queue._reader.poll(LIMIT) is True  # the stdlib's feeder may still be in write(), and has the pipe open
    assert any_queue._reader.poll() is True
    with pytest.raises(EOFError):
        any_queue.get()
    with pytest.raises(EOFError):
        any_queue._reader.recv()


@pytest.mark.parametrize("args", [(False,), (True, 1.5)])
def test_end_of_the_stream_instead_of_empty(make, args):
    """Empty means that something may still come."""
    q = make()
    with pytest.raises(joinq.Empty):
        q.get(False)
    q._writer.close()
    with pytest.raises(EOFError):
        q.get(*args)


def test_end_of_the_stream_when_the_others_have_closed(queue, launch):
    """A get() that waits raises EOFError when the last writer closes its end, not before."""
    child = launch(workers.read_to_the_end, queue)
    assert child.receive() == "ready"
    child.wait_asleep()
    queue.put(1)
    queue.put(2)
    child.wait_asleep()
    queue._writer.close()
    assert child.result() == [1, 2]


def test_end_of_the_stream_when_the_others_have_died(queue, launch):
    """A writer that is killed has closed its end, too."""
    child = launch(workers.read_to_the_end, queue)
    writer = launch(workers.puppet, queue)
    assert child.receive() == "ready"
    writer.call("put", 1)
    queue._writer.close()
    child.wait_asleep()
    writer.call("put", 2)
    writer.kill()
    assert child.result() == [1, 2]


@pytest.mark.parametrize("ctx", ["spawn", "forkserver"], indirect=True)
@pytest.mark.parametrize("killed", [False, True])
def test_end_of_the_stream_for_a_reading_end(queue, launch, killed):
    """A process that was sent the reading end alone is told, too, and is no writer for others."""
    child = launch(workers.receive_to_the_end, queue._reader)
    writer = launch(workers.puppet, queue)
    child.wait_asleep()
    writer.call("put", 1)
    queue._writer.close()
    if killed:
        writer.kill()
    else:
        writer.send(None)
        writer.result()
    assert child.result() == [1]
    with pytest.raises(EOFError):
        queue.get()


def test_end_of_the_stream_not_while_the_queue_is_here_again(queue):
    """A process that has closed the writer, and is sent the queue, may put again."""
    queue._writer.close()
    again = pickle.loads(pickle.dumps(queue))
    assert queue._reader.poll() is False
    again.put(1)
    assert queue.get() == 1


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
def test_who_has_not_yet_used_the_queue_may_still_put(queue, launch):
    """A forked child is in no table before its first call; the stream ends with it all the same."""
    child = launch(workers.puppet, queue)
    queue._writer.close()
    with pytest.raises(Empty):
        joinq.Queue.get(queue, False)
    child.call("put", 1)
    assert queue.get() == 1
    child.kill()
    with pytest.raises(EOFError):
        queue.get()


# Pools --------------------------------------------------------------------------------------


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def context(request):
    """Our context for each start method."""
    return joinq.get_context(request.param)


def gone(pid):
    """Whether a process has ended."""
    return probes.state(pid) in "ZX"


def test_pool(context):
    """multiprocessing.Pool on our queues: everything that it does with them."""
    with context.Pool(3, maxtasksperchild=7) as pool:
        assert pool.map(workers.squared, range(100)) == [n * n for n in range(100)]
        assert sorted(pool.imap_unordered(workers.squared, range(10))) == [n * n for n in range(10)]
        with pytest.raises(TypeError):
            pool.apply(workers.squared, ("x",))
        pool.close()
        pool.join()


def test_pool_is_terminated_with_work_left(context):
    """terminate() ends a pool whose workers are busy and whose queue of tasks is full."""
    for _ in range(3):
        pool = context.Pool(2)
        pool.map_async(workers.nap_and_tell, [0.001] * 1000, chunksize=1)
        pool.apply(workers.squared, (2,)) if _ else None
        pool.terminate()
        pool.join()


def test_terminate_does_not_rely_on_the_lock():
    """Tasks that are left are taken without recv(), which would wait if a worker was faster, whoever has _rlock."""
    q = joinq.SimpleQueue()
    for number in range(10):
        q.put(number)
    ended = threading.Event()
    handler = threading.Thread(target=ended.wait)
    handler.start()
    try:
        q._writer.send("last")
        with q._rlock:
            multiprocessing.pool.Pool._help_stuff_finish(q, handler, 2)
        assert q.empty()
    finally:
        ended.set()
        handler.join()


@pytest.mark.parametrize("ctx", ["spawn"], indirect=True)  # a forked child cannot have a forkserver of its own
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_a_killed_pool_end(method, launch):
    """When the process that has the pool is killed, its workers end."""
    owner = launch(workers.keep_pool, method, daemon=False)
    pids = owner.receive()
    assert len(pids) == 3
    owner.kill()
    for pid in pids:
        probes.wait_until(lambda pid=pid: gone(pid), f"worker {pid} ends")


def test_process_pool_executor(context):
    """concurrent.futures on our SimpleQueue."""
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        assert list(executor.map(workers.squared, range(20))) == [n * n for n in range(20)]
        with pytest.raises(BrokenProcessPool):
            executor.submit(workers.die).result(LIMIT)


# Private attributes ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_attribute_of_the_stdlib_is_there(kind):
    """Whatever a fresh queue of the running version has, ours has."""
    theirs = getattr(multiprocessing.get_context("fork"), kind)()
    ours = getattr(joinq, kind)()
    assert [name for name in dir(theirs) if not hasattr(ours, name)] == []
    for name in dir(theirs):
        if not name.startswith("__"):
            assert callable(getattr(ours, name)) == callable(getattr(theirs, name)), name


@pytest.mark.parametrize("kind", KINDS[:2])
def test_plain_private_attributes_are_equal(kind, launch):
    """Those that are values."""
    theirs, ours = getattr(multiprocessing, kind)(3), getattr(joinq, kind)(3)
    names = ["_maxsize", "_opid", "_ignore_epipe", "_thread", "_jointhread", "_joincancelled", "_closed", "_close"]
    for name in names:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert list(ours._buffer) == list(theirs._buffer) == []
    for q in (theirs, ours):
        q.cancel_join_thread()
        assert q._joincancelled
        assert q._sem._semlock._get_value() == q._sem.get_value() == 3
        assert not q._sem._semlock._is_zero()
        with q._notempty:
            pass
    assert getattr(joinq, kind)()._maxsize == getattr(multiprocessing, kind)()._maxsize
    child = launch(workers.identity, ours)
    assert child.result() == (os.getpid(), 3)


def test_what_cannot_be_honoured_says_what_to_use():
    """Parts of the feeder thread raise, before anything is lost."""
    q = joinq.JoinableQueue()
    for call in (q._start_thread, q._feed, q._sem.acquire, lambda: q._buffer.append(1)):
        with pytest.raises(NotImplementedError, match=r"put\(\)"):
            call()
    for call in (q._unfinished_tasks.acquire, q._unfinished_tasks.release):
        with pytest.raises(NotImplementedError, match=r"task_done\(\)"):
            call()
    assert q._sem.release() is None
    assert len(q._buffer) == 0


@pytest.mark.parametrize("kind", KINDS[:2])
def test_terminate_broken(kind):
    """What concurrent.futures does with a queue whose readers died; Python 3.12 and later."""
    theirs, ours = getattr(multiprocessing, kind)(), getattr(joinq, kind)()
    if not hasattr(theirs, "_terminate_broken"):
        pytest.skip("the queues of this version do not have it")
    for q in (theirs, ours):
        q._terminate_broken()
        assert (q._closed, q._reader.closed, q._writer.closed) == (True, True, False)
        with pytest.raises(ValueError, match="is closed"):
            q.put(1)


@pytest.mark.parametrize("name", ["_rlock", "_wlock"])
def test_locks(any_queue, name):
    """_rlock and _wlock are locks."""
    lock = getattr(any_queue, name)
    assert getattr(any_queue, name) is lock
    with pytest.raises(ValueError, match=r"^semaphore or lock released too many times$"):
        lock.release()
    assert lock.acquire() is True
    assert lock.acquire(False) is False
    assert lock.acquire(block=True, timeout=0.01) is False
    assert lock.acquire(True, -1) is False
    lock.release()
    with lock:
        assert not lock.acquire(block=False)
    assert lock.acquire(timeout=LIMIT)
    lock.release()


def test_a_lock_is_free_in_the_child_of_a_fork():
    """Whoever held it is not there."""
    lock = Lock()
    with lock:
        child = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(not lock.acquire(False)))
        child.start()
        child.join()
    assert child.exitcode == 0


def subclass_with_timeout(base):
    """The subclass that many programs have."""

    class WithTimeout(base):
        def join(self, timeout=None):
            with self._cond:
                if not self._unfinished_tasks._semlock._is_zero():
                    return self._cond.wait(timeout)
            return True

    return WithTimeout


def subclass_with_predicate(base):
    """The same in other words."""

    class WithTimeout(base):
        def join(self, timeout=None):
            with self._cond:
                return self._cond.wait_for(self._unfinished_tasks._semlock._is_zero, timeout)

    return WithTimeout


@pytest.mark.parametrize("make", [subclass_with_timeout, subclass_with_predicate])
@pytest.mark.parametrize("base", [joinq.JoinableQueue, multiprocessing.queues.JoinableQueue])
def test_subclass_with_a_join_of_its_own(base, make):
    """_cond and _unfinished_tasks are enough for a join() with a timeout."""
    q = make(base)(ctx=multiprocessing.get_context("fork"))
    assert q.join(0.01)
    q.put(1)
    assert q._unfinished_tasks.get_value() == 1
    assert q.join(0.01) is False
    q.get()
    finisher = threading.Timer(0.05, q.task_done)
    finisher.start()
    assert q.join(LIMIT)
    finisher.join()
    assert q._unfinished_tasks.get_value() == 0
    with q._cond:
        q._cond.notify_all()
        q._cond.notify()


@pytest.mark.parametrize("kind", KINDS[:2])
def test_subclass_with_a_get_of_its_own(kind):
    """The stdlib's own get() works on our attributes."""
    ctx = multiprocessing.get_context("fork")
    theirs = getattr(multiprocessing.queues, kind)

    class Own(getattr(joinq, kind)):
        get = multiprocessing.queues.Queue.get
        qsize = theirs.qsize
        full = theirs.full
        empty = theirs.empty

    q = Own(2, ctx=ctx)
    assert (q.qsize(), q.full(), q.empty()) == (0, False, True)
    q.put(1)
    q.put("two")
    assert (q.qsize(), q.full(), q.empty()) == (2, True, False)
    assert q.get() == 1
    assert q.get(timeout=LIMIT) == "two"
    with pytest.raises(joinq.Empty):
        q.get(False)
    with pytest.raises(joinq.Empty):
        q.get(timeout=0.01)


# After close() --------------------------------------------------------------------------------


def outcome(q, name, *args):
    """What a call does, in words that can be compared."""
    try:
        return getattr(q, name)(*args)
    except Exception as error:
        return type(error).__name__, str(error).replace(repr(q), "Q")


def unused(q):
    q.close()


def used(q):
    q.put(1)
    q.get(timeout=LIMIT)
    q.close()
    q.join_thread()


def used_and_left(q):
    q.put(1)
    q._reader.poll(LIMIT)
    q.close()
    q.join_thread()


def closed_twice(q):
    used(q)
    q.close()


def cancelled(q):
    q.cancel_join_thread()
    q.close()


def reader_closed(q):
    q._reader.close()


def reader_closed_and_closed(q):
    q._reader.close()
    q.close()


def reset(q):
    q.close()
    q._reset()


def used_by_another(q):
    child = multiprocessing.get_context("fork").Process(target=q.put, args=(1,))
    child.start()
    child.join()
    q.close()


STATES = [
    unused,
    used,
    used_and_left,
    used_by_another,
    closed_twice,
    cancelled,
    reader_closed,
    reader_closed_and_closed,
    reset,
]
CALLS = [
    ("put", 1),
    ("put_nowait", 1),
    ("get", True, 0.01),
    ("get", False),
    ("get_nowait",),
    ("empty",),
    ("qsize",),
    ("full",),
    ("join_thread",),
    ("cancel_join_thread",),
    ("close",),
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]}{len(call) - 1}")
@pytest.mark.parametrize("kind", KINDS[:2])
def test_closed_queue_as_the_stdlib_of_this_version(kind, state, call):
    """In whatever state of being closed, each call does what the stdlib's does."""
    theirs, ours = getattr(multiprocessing, kind)(2), getattr(joinq, kind)(2)
    for q in (theirs, ours):
        state(q)
    assert outcome(ours, *call) == outcome(theirs, *call)


@pytest.mark.parametrize("state", STATES[:6], ids=lambda state: state.__name__)
def test_closed_joinable_queue_as_the_stdlib_of_this_version(state):
    """task_done() and join() do not mind close()."""
    theirs, ours = multiprocessing.JoinableQueue(2), joinq.JoinableQueue(2)
    for q in (theirs, ours):
        state(q)
    for call in ("task_done", "join", "task_done"):
        if call == "join" and ours.unfinished_tasks:
            continue
        assert outcome(ours, call) == outcome(theirs, call)


@pytest.mark.parametrize("close", ["close", "reader", "writer"])
@pytest.mark.parametrize("call", [("put", 1), ("get",), ("empty",), ("close",)], ids=lambda call: call[0])
def test_closed_simple_queue_as_the_stdlib_of_this_version(close, call):
    """As a whole, or one end."""
    outcomes = []
    for q in (multiprocessing.SimpleQueue(), joinq.SimpleQueue()):
        q.put("there")
        if close == "close":
            q.close()
        else:
            getattr(q, f"_{close}").close()
        if (close, call[0]) == ("reader", "put"):
            return  # the stdlib's raises BrokenPipeError: no process can read; ours does not look for one
        outcomes.append(outcome(q, *call))
    assert outcomes[0] == outcomes[1]


def test_writer_closed_alone():
    """put() raises; the stdlib's feeder thread prints the same error."""
    q = joinq.Queue()
    q.put(1)
    q._writer.close()
    with pytest.raises(OSError, match=r"^handle is closed$"):
        q.put(2)
    assert q.get() == 1


def test_fileno_after_close():
    """As get()."""
    q, simple = joinq.Queue(), joinq.SimpleQueue()
    q.close()
    simple.close()
    with pytest.raises(ValueError, match="is closed"):
        q.fileno()
    with pytest.raises(OSError, match=r"^handle is closed$"):
        simple.fileno()
