"""The boxes in which get() receives items are shared by all queues of a process: nothing may pass between these."""

from __future__ import annotations

import gc
import os
import queue
import signal
import sys
import threading

import pytest

import joinq
from joinq import _queue


@pytest.fixture
def rapid_switching():
    """Threads that give way to each other as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_empty_in_one_thread_takes_nothing_from_another(rapid_switching):
    """A get() that finds nothing leaves the items alone that other threads take from other queues."""
    nothing, something = joinq.Queue(), joinq.Queue()
    ended = threading.Event()
    strays = []

    def poll():
        while not ended.is_set():
            try:
                strays.append(nothing.get_nowait())
            except queue.Empty:
                pass

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        for number in range(5_000):
            item = ("item", number, "x" * (number % 3 * 9_000))
            something.put(item)
            assert something.get() == item
    finally:
        ended.set()
        poller.join()
    assert strays == []
    assert (nothing.qsize(), something.qsize()) == (0, 0)


def test_exception_before_get_asks_brings_nothing_back():
    """An exception that a trace function raises in get(), before it takes anything, puts no earlier item back."""
    earlier, later = joinq.Queue(), joinq.Queue()
    earlier.put("earlier")
    later.put("later")
    assert earlier.get() == "earlier"
    lines = []

    def trace(frame, event, arg):
        if frame.f_code is joinq.Queue.get.__code__ and event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == stop_at:
                raise InterruptedError
        return trace

    for stop_at in range(1, 40):  # noqa: B007, trace() reads it
        lines.clear()
        sys.settrace(trace)
        try:
            later.get_nowait()
        except InterruptedError:
            assert later.qsize() <= 1
            assert earlier.qsize() == 0
        else:
            break
        finally:
            sys.settrace(None)
        if later.empty():
            later.put("later")  # the exception came after the item was unpickled
        assert later.qsize() == 1
    assert stop_at > 5


def test_interrupt_while_a_queue_is_cut_off(monkeypatch):
    """An interrupted get() of a large item, after shutdown(immediate=True), discards the item and ends its task."""
    q = joinq.JoinableQueue()
    q.put(Meddler(200_000))
    Meddler.queue = q
    with pytest.raises(KeyboardInterrupt):
        q.get()
    assert (q.qsize(), q.unfinished_tasks) == (0, 0)
    q.join(60)


def test_item_that_cannot_be_unpickled_counts_as_taken_whatever_it_raises():
    """Also if it raises something else each time, or what is no Exception."""
    q = joinq.JoinableQueue()
    for kind in (ValueError, SystemExit):
        q.put(Raiser(kind))
        with pytest.raises(kind):
            q.get()
        assert (q.qsize(), q.unfinished_tasks) == (0, 1)
        q.task_done()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="signals raise between any two bytecodes: see DESIGN.md")
@pytest.mark.parametrize("size", [1, 300_000])
def test_second_signal_does_not_lose_the_item(size):
    """An item whose get() is ended by one signal after the other is still there."""

    def handler(_, frame):
        # Not in the caller's frame: what get() has returned there is lost with the exception.
        if frame.f_code.co_filename == joinq.Queue.get.__code__.co_filename:
            raise TimeoutError

    before = signal.signal(signal.SIGALRM, handler)
    q = joinq.JoinableQueue()
    q.put([str(number) for number in range(size)])
    taken = 0
    try:
        for _ in range(20):
            signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
            try:
                q.get()
                taken = 1
            except TimeoutError:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if taken:
                break
            assert q.qsize() == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert q.qsize() == 1 - taken


class Late:
    """Cannot be unpickled the first time, or times, as if a signal had come."""

    loads = 0

    def __init__(self, load, failures=1):
        self.load, self.failures = load, failures

    def __setstate__(self, state):
        self.__dict__.update(state)
        Late.loads += 1
        if Late.loads <= self.failures:
            raise TimeoutError


TAKERS = {
    "get": lambda q: [q.get_nowait()],
    "get_many": lambda q: q.get_many(3, False),
}


@pytest.mark.parametrize("on_death", ["raise", "redeliver"])
@pytest.mark.parametrize("size", [1, 300_000])
@pytest.mark.parametrize("take", TAKERS)
def test_second_exception_anywhere_does_not_lose_the_item(take, size, on_death):
    """Wherever the interpreter runs signal handlers, after the first exception: what was taken is there again."""
    q = joinq.JoinableQueue(on_death=on_death)
    ours = joinq.Queue.get.__code__.co_filename, "<string>"  # by which a namedtuple is made
    step = left = 0

    def interrupt(frame, event, arg):
        nonlocal left
        if Late.loads and event in ("call", "c_return") and frame.f_code.co_filename in ours:
            left -= 1
            if left < 0:
                raise InterruptedError

    def attempt():
        sys.setprofile(interrupt)
        try:
            TAKERS[take](q)
        except (TimeoutError, InterruptedError):
            pass
        finally:
            sys.setprofile(None)

    while left <= 0:  # until it is over before that
        left, Late.loads = step, 0
        items = ["first", Late("x"), "last"] if take == "get_many" and size == 1 else [Late("x" * size)]
        q.put_many(items)
        attempt()
        gc.collect()  # what an exception refers to stays until it is gone
        assert Late.loads, "the first exception has not come"
        assert q.qsize() == len(items), f"lost at step {step}"
        got, expected = ([getattr(item, "load", item) for item in some] for some in ([q.get() for _ in items], items))
        assert got == expected or (on_death == "redeliver" and sorted(got) == sorted(expected))
        q.task_done(len(items))
        step += 1
    assert step > 5
    q.join(0)


def test_task_given_back_may_be_taken_by_a_handler(monkeypatch):
    """Under the name that it had: what settles the first taking leaves the second one alone."""
    q = joinq.JoinableQueue(on_death="redeliver")
    q.put(Late("x"))
    Late.loads = 0
    started = _queue.start_new_thread
    taken = []

    def take_at_once(function, args):
        (first,) = args[0]
        assert not first.loan.settle(False)  # as the thread does, and
        taken.append(q.get(timeout=60))  # before it goes on
        assert q._leases.mine[0] == first.loan.lease
        return started(function, args)

    monkeypatch.setattr(_queue, "start_new_thread", take_at_once)
    with pytest.raises(TimeoutError):
        q.get()
    assert taken[0].load == "x"
    assert q.empty()
    q.task_done()
    q.join(0)


@pytest.mark.parametrize("on_death", ["raise", "redeliver"])
@pytest.mark.parametrize("starts", [True, False])
def test_without_a_thread_to_try_it_the_item_goes_back(monkeypatch, starts, on_death):
    """Also if the thread was started, and a signal handler's exception only looks as if it was not."""
    q = joinq.JoinableQueue(on_death=on_death)
    q.put(Late("x", failures=2))  # where signal handlers run, the second failure would be another one's
    Late.loads, threads = 0, []

    def fail(function, args):
        if starts:
            threads.append(threading.Thread(target=lambda: (tried.wait(60), function(*args))))
            threads[0].start()
        raise RuntimeError

    tried = threading.Event()
    monkeypatch.setattr(_queue, "start_new_thread", fail)
    with pytest.raises(TimeoutError):
        q.get()
    tried.set()
    for thread in threads:
        thread.join(60)
    assert (q.qsize(), Late.loads) == (1, 1)
    Late.loads = 2
    assert q.get().load == "x"
    q.task_done()
    q.join(0)


class Companion:
    """Takes another item while it is unpickled; the first time something raises then."""

    loads = 0
    queue = None

    def __setstate__(self, state):
        Companion.loads += 1
        Companion.queue.get_nowait()
        if Companion.loads == 1:
            raise TimeoutError

    def __getstate__(self):
        return True


def test_what_unpickling_takes_is_given_back_if_it_is_only_tried():
    """The second unpickling takes the next task, in a thread that ends: somebody else has to be able to report it."""
    q = Companion.queue = joinq.JoinableQueue(on_death="redeliver")
    q.put_many([Companion(), "first", "second", "third"])
    Companion.loads = 0
    with pytest.raises(TimeoutError):
        q.get()
    assert q.stats().in_flight == 1  # the caller's own nested one
    taken = [q.get_nowait() for _ in range(q.qsize() - 1)]
    assert len(taken) == 2
    q.task_done(4)
    q.join(0)


@pytest.fixture
def interrupted():
    """A function that runs another one, with exceptions where the interpreter would run signal handlers.

    It is told how many such moments are to pass before each exception; returns the result, and how many have come.
    """
    monitoring, tool, folder = sys.monitoring, sys.monitoring.PROFILER_ID, os.path.dirname(joinq.__file__)
    start, end, jump = monitoring.events.PY_START, monitoring.events.C_RETURN, monitoring.events.JUMP
    main, pauses = threading.get_ident(), []

    def moment(code, *_):
        ours = code.co_filename.startswith((folder, "<string>")) or code.co_name == "__setstate__"
        if pauses and ours and threading.get_ident() == main:
            pauses[0] -= 1
            if pauses[0] < 0:
                pauses.pop(0)
                raise InterruptedError

    def run(function, *before):
        pauses[:] = before
        result = None
        monitoring.set_events(tool, start | monitoring.events.CALL | jump)
        try:
            result = function()
        except InterruptedError:
            pass
        came = len(before) - len(pauses)
        pauses.clear()
        monitoring.set_events(tool, 0)
        return result, came

    monitoring.use_tool_id(tool, "interrupted")
    monitoring.register_callback(tool, start, moment)
    monitoring.register_callback(tool, end, moment)
    monitoring.register_callback(tool, jump, lambda code, at, to: moment(code) if to < at else None)
    yield run
    for event in (start, end, jump):
        monitoring.register_callback(tool, event, None)
    monitoring.free_tool_id(tool)


class Item:
    """Takes some calls to be unpickled."""

    def __init__(self, number):
        self.number = number

    def __setstate__(self, state):
        self.__dict__.update(state)
        setattr(self, "number", state["number"])  # noqa: B010, a call

    def __eq__(self, other):
        return self.number == other.number


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs sys.monitoring")
@pytest.mark.parametrize("on_death", ["raise", "redeliver"])
@pytest.mark.parametrize("take", TAKERS)
def test_two_exceptions_anywhere_lose_no_item(interrupted, take, on_death):
    """Each item is either delivered or in the queue, and who has none has no task to report."""
    q = joinq.JoinableQueue(on_death=on_death)
    items = [Item(number) for number in range(3)]
    first = second = 0
    came = 2
    while came:  # until it is over before the first
        q.put_many(items)
        got, came = interrupted(lambda: TAKERS[take](q), first, second)
        gc.collect()
        got = got or []
        where = f"before them {first} and {second} moments"
        assert q.qsize() == len(items) - len(got), where
        got += [q.get() for _ in range(q.qsize())]
        assert sorted(got, key=lambda item: item.number) == items, where
        q.task_done(len(items))
        with pytest.raises(ValueError, match="too many"):
            q.task_done()
        q.join(0)
        first, second = (first, second + 1) if came == 2 else (first + 1, 0)
    assert first > 5


class Meddler:
    """Shuts the queue down while it is unpickled, and raises what Ctrl-C does."""

    queue = None

    def __init__(self, size):
        self.load = "x" * size

    def __setstate__(self, state):
        Meddler.queue.shutdown(immediate=True)
        raise KeyboardInterrupt


class Raiser:
    """Raises when it is unpickled."""

    def __init__(self, kind):
        self.kind = kind

    def __setstate__(self, state):
        raise state["kind"]
