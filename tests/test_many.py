"""put_many() and get_many(): as put() and get() for each item, whatever the items are, and whatever happens midway."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import multiprocessing
import os
import pickle
import signal
import struct
import sys
import threading
import time
import weakref
from functools import partial

import payloads
import probes
import pytest
import workers
from payloads import Pickled
from probes import LIMIT

import joinq
from joinq._native import lib


@pytest.fixture
def ctx():
    """How a process was started makes no difference to the items."""
    return multiprocessing.get_context("fork")


KINDS = {
    "Queue": joinq.Queue,
    "raise": joinq.JoinableQueue,
    "ignore": partial(joinq.JoinableQueue, on_death="ignore"),
    "redeliver": partial(joinq.JoinableQueue, on_death="redeliver"),
}


@pytest.fixture(params=KINDS)
def new(request):
    """The constructor of each kind of queue."""
    return KINDS[request.param]


@pytest.fixture
def q(new):
    """An unbounded queue of each kind; in order and without tasks afterwards."""
    queue = new()
    yield queue
    probes.check_invariants(queue)
    assert queue.qsize() == 0
    done_with_all(queue)


def done_with_all(queue):
    """Report what this thread has taken, and everything was taken."""
    if isinstance(queue, joinq.JoinableQueue) and queue.unfinished_tasks:
        queue.task_done(queue.unfinished_tasks)
        queue.join(0)


def drain(queue):
    """All that is there, by single gets."""
    items = []
    with contextlib.suppress(joinq.Empty):
        while True:
            items.append(queue.get(False))
    return items


def drain_many(queue, most=1000):
    """All that is there, by get_many()."""
    items = []
    with contextlib.suppress(joinq.Empty):
        while True:
            got = queue.get_many(most, block=False)
            assert 1 <= len(got) <= most
            items += got
    return items


WAYS_OUT = {"get": drain, "get_many": drain_many, "three": partial(drain_many, most=3)}
WAYS_IN = {
    "put": lambda queue, items: [queue.put(item) for item in items],
    "put_many": lambda queue, items: queue.put_many(items),
    "generator": lambda queue, items: queue.put_many(item for item in items),
}


# What arrives ---------------------------------------------------------------------------------------


class Int(int):
    pass


class Str(str):
    __slots__ = ("note",)


class Bytes(bytes):
    pass


class Float(float):
    pass


class Tuple(tuple):
    __slots__ = ()


def described(value):
    """The value such that two are equal only if they are of the same types and the same bits."""
    if isinstance(value, float):
        return type(value), struct.pack("d", value)
    if isinstance(value, (tuple, list)):
        return type(value), [described(item) for item in value]
    if isinstance(value, payloads.Celsius):
        return type(value), value.degrees
    return type(value), value


BITS = (0, 8, 30, 31, 61, 62, 63, 64, 200)
INTEGERS = [sign * (1 << bits) + by for bits in BITS for sign in (1, -1) for by in (-1, 0, 1)]
FLOATS = [0.0, -0.0, 1.5, -1e308, 5e-324, math.inf, -math.inf, math.nan, struct.unpack("d", b"\1\0\0\0\0\0\xf4\xff")[0]]
TEXTS = ["", "a", "é", "ż", "\uffff", "\0", "\ud800", "a\udfff", "\U0001f600", "\U0010ffff", "\ud83d\ude00"]
TEXTS += [char * length for char in "aéż\U0001f600" for length in (7, 8, 9, 1023, 1024, 1025, 8176, 8177, 100_000)]
LENGTHS = [0, 1, 7, 8, 9, 47, 48, 49, 1016, 1023, 1024, 1025, 4096, 8168, 8175, 8176, 8177, 16384, 65535, 65536, 65537]
STRINGS = [(b"%d:" % length * length)[:length] for length in [*LENGTHS, 1 << 20]]
OTHERS = [
    *(None, True, False, Int(5), Int(2**70), Str("text"), Str("ż" * 2000), Bytes(b"bytes"), Bytes(9000), Float(-0.0)),
    *((), (1,), (None, True, 1.0, "x", b"y"), Tuple((1, 2)), [], {}, {1: [2]}, {3}, frozenset("a"), 1j, ..., range(3)),
    *(bytearray(b"array"), bytearray(100_000), payloads.Point(1, "y"), payloads.Celsius(20), len, int, Int),
]
MIXED = [*INTEGERS, *FLOATS, *TEXTS, *STRINGS, *OTHERS]


@pytest.fixture(scope="module", autouse=True)
def reducers():
    payloads.register_celsius()


@pytest.mark.parametrize("way_out", WAYS_OUT.values(), ids=WAYS_OUT)
@pytest.mark.parametrize("way_in", WAYS_IN.values(), ids=WAYS_IN)
def test_every_value_arrives_with_its_type(q, way_in, way_out):
    """Whatever is put arrives in order, of the same type, and bit by bit the same."""
    for step in (1, 11):  # in other neighbourhoods
        values = [MIXED[i * step % len(MIXED)] for i in range(len(MIXED))]
        way_in(q, values)
        assert q.qsize() == len(values)
        got = way_out(q)
        assert list(map(described, got)) == list(map(described, values))
    assert math.gcd(len(MIXED), 11) == 1


@pytest.mark.parametrize("way_out", WAYS_OUT.values(), ids=WAYS_OUT)
def test_constants_arrive_as_themselves(q, way_out):
    """True, False and None are the ones that everybody has."""
    q.put_many([True, None, False] * 10)
    got = way_out(q)
    assert all(one is other for one, other in zip(got, [True, None, False] * 10))
    assert len(got) == 30


@pytest.mark.parametrize("count", [1, 2, 999, 1000, 1001, 5000])
@pytest.mark.parametrize("size", [0, 100, 1000])
def test_batches_of_every_length_arrive(q, count, size):
    """However many items there are, and however long, they arrive in order."""
    items = [b"%d;" % i + b"x" * size for i in range(count)]
    q.put_many(items)
    assert q.qsize() == count
    assert drain_many(q, 100) == items
    q.put_many(items)
    assert drain(q) == items


def test_what_changes_after_put_many_changes_nothing_in_the_queue(q):
    """put_many() takes the items as they are now."""
    thing = [1]
    q.put_many([thing, thing])
    thing.append(2)
    assert q.get_many(1) == [[1]]
    assert q.get() == [1]


def test_nothing_is_put_of_nothing(q):
    """An empty iterable is no item, also on a queue that is full or was shut down."""
    assert q.put_many([]) is None
    assert q.qsize() == 0
    full = joinq.JoinableQueue(1)
    full.put(1)
    full.put_many([])
    full.put_many(iter(()), False)
    full.shutdown()
    full.put_many(())
    assert full.qsize() == full.unfinished_tasks == 1


# Partial puts -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def raises(kind, put, **options):
    """The block raises so, and says so many items are in."""
    with pytest.raises(kind, **options) as caught:
        yield
    assert type(caught.value.items_put) is int
    assert caught.value.items_put == put


@pytest.mark.parametrize("how", [{"block": False}, {"timeout": 0}, {"timeout": -1}, {"timeout": 0.01}], ids=str)
@pytest.mark.parametrize("maxsize", [1, 2, 5, 300, 1500])
def test_full_queue_takes_what_it_has_room_for(new, maxsize, how):
    """Full says how many items are in: exactly those, and they are the first."""
    q = new(maxsize)
    for there in {0, 1, maxsize // 2, maxsize}:
        q.put_many(range(-there, 0))
        with raises(joinq.Full, maxsize - there):
            q.put_many(range(2000), **how)
        assert q.full()
        assert drain(q) == [*range(-there, maxsize - there)]
    q.put_many(range(maxsize), block=False)
    assert drain_many(q) == [*range(maxsize)]
    done_with_all(q)


def test_large_items_count_among_the_small_ones(new):
    """Room is counted in items, whatever their size."""
    q = new(5)
    with raises(joinq.Full, 5):
        q.put_many([0, b"x" * 100_000, 1, "y" * 2000, 2, 3], block=False)
    assert q.get_many(1) == [0]
    assert [len(q.get()), q.get(), len(q.get()), q.get()] == [100_000, 1, 2000, 2]


def test_timeout_is_for_all_items(new):
    """put_many() waits for at most its timeout, not again for each part that found room."""
    q = new(1)
    began = time.monotonic()
    with raises(joinq.Full, 1):
        q.put_many([1, 2], timeout=0.2)
    assert time.monotonic() - began >= 0.2
    assert q.get() == 1


@pytest.mark.parametrize("maxsize", [1, 3, 100])
def test_put_many_waits_for_room(launch, new, maxsize):
    """With a reader, all items pass through a small queue, in order."""
    q = new(maxsize)
    putter = launch(workers.puppet, q)
    putter.begin("put_many", list(range(1000)))
    got = []
    while len(got) < 1000:
        got += q.get_many(7, timeout=LIMIT)
    assert got == [*range(1000)]
    assert putter.outcome() is None
    done_with_all(q)


def test_generator_is_asked_no_more_when_the_queue_is_full(q):
    """An endless iterable ends at the first error."""
    q = joinq.Queue(2500)
    with raises(joinq.Full, 2500):
        q.put_many(itertools.count(), block=False)
    assert drain_many(q) == [*range(2500)]


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 1999])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_error_of_the_iterable_comes_after_its_items(q, count, error):
    """What an iterable gave before it raised is in the queue."""

    def source():
        yield from range(count)
        raise error

    with raises(error, count):
        q.put_many(source())
    assert drain_many(q) == [*range(count)]


class Sized:
    """An iterable with a length, of which put_many() may draw ahead."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return 1

    def __iter__(self):
        return iter(self.items)


def test_error_of_the_iterable_does_not_wait_for_room(new):
    """It is raised at once, also if not all that came before it finds room: it may be a signal handler's."""
    q = new(3)
    with raises(ZeroDivisionError, 3):
        q.put_many(Sized(1 // (4 - i) for i in itertools.count()))
    assert len(drain(q)) == 3


def test_generator_may_wait_for_its_own_items(q):
    """Each item is in the queue before the next one is asked for, whatever its size."""

    def conversation():
        for item in [*range(2500), "x" * 2000, b"x" * 100_000, [1]]:
            yield item
            assert q.get(False) == item

    q.put_many(conversation())
    q.put_many(item + q.qsize() for item in [0, 0, 0])
    assert drain(q) == [0, 1, 2]


@pytest.mark.parametrize("source", [list, tuple, iter, dict.fromkeys, Sized])
@pytest.mark.parametrize("count", [1, 1000, 2500])
def test_any_iterable_will_do(q, source, count):
    """Whether it has a length, and how many items it gives, makes no difference to what arrives."""
    q.put_many(source(range(count)))
    assert drain_many(q) == [*range(count)]


class AfterwardsAlarm:
    """A port after whose calls a signal handler raises."""

    def __init__(self, port):
        self.port = port

    def put_many(self, *args):
        self.port.put_many(*args)
        raise Alarm


@pytest.mark.parametrize("source", [list, tuple, iter])
@pytest.mark.parametrize("count", [10, 2500])
def test_handler_that_raises_after_a_part_says_how_many_are_in(new, source, count):
    """`items_put` is what is in, also if a signal handler runs when the core has just returned."""
    q = new()
    items = source(range(count))
    port, q._port = q._port, AfterwardsAlarm(q._port)
    with pytest.raises(Alarm) as caught:
        q.put_many(items)
    q._port = port
    assert caught.value.items_put == q.qsize() > 0
    assert drain_many(q) == [*range(caught.value.items_put)]


@pytest.mark.parametrize("index", [0, 1, 5, 999, 1000, 1500])
@pytest.mark.parametrize("bad", [payloads.Pickling(payloads.fail, "no way"), payloads.Pickling(payloads.interrupt)])
def test_unpicklable_item_comes_after_those_before_it(q, index, bad):
    """Items before the one that cannot be pickled are in, it and later ones are not."""
    items = [*range(index), bad, *range(1000)]
    with raises((LookupError, KeyboardInterrupt), index):
        q.put_many(items)
    assert drain_many(q) == [*range(index)]
    q.put_many(["again"])
    assert q.get() == "again"


def test_unpicklable_item_is_found_on_a_full_queue(new):
    """An item that cannot be pickled raises at once: what comes before it is put as far as there is room."""
    q = new(1)
    q.put(0)
    with raises(LookupError, 0):
        q.put_many([payloads.Pickling(payloads.fail, "no way")])
    with raises(LookupError, 0):
        q.put_many([1, payloads.Pickling(payloads.fail, "no way")])
    assert q.get() == 0
    with raises(LookupError, 1):
        q.put_many([1, payloads.Pickling(payloads.fail, "no way")])
    assert q.get() == 1


def test_iterable_may_use_the_queue():
    """An iterable may itself take items from the queue, and put some."""
    q = joinq.JoinableQueue()
    q.put_many(range(10))
    q.put_many(-q.get() for _ in range(10))
    assert drain(q) == [-i for i in range(10)]

    class Puts:
        def __reduce__(self):
            q.put("inside")
            return payloads.identity, ("outside",)

    q.put_many([Puts()])
    assert drain_many(q) == ["inside", "outside"]
    assert q.unfinished_tasks == 22


def test_handler_that_raises_ends_a_waiting_put_many(launch, new):
    """KeyboardInterrupt while put_many() waits leaves the items that were in, and says how many."""
    q = new(3)
    putter = launch(workers.puppet, q)
    putter.begin_and_sleep("put_many", [*range(10)])
    assert q.get_many(2) == [0, 1]
    probes.wait_until(q.full, "more items are in")
    putter.wait_asleep()
    os.kill(putter.pid, signal.SIGINT)
    with raises(KeyboardInterrupt, 5):
        putter.outcome()
    assert drain(q) == [2, 3, 4]


def test_handler_that_returns_ends_nothing(launch, new):
    """A signal handler runs while put_many() and get_many() wait, and they go on."""
    q = new(1)
    putter = launch(workers.puppet_that_reports_signals, q)
    putter.begin_and_sleep("put_many", [1, 2, 3])
    os.kill(putter.pid, signal.SIGUSR2)
    assert putter.receive() == "handled"
    putter.wait_asleep()
    assert [q.get(timeout=LIMIT) for _ in range(3)] == [1, 2, 3]
    assert putter.outcome() is None
    putter.begin_and_sleep("get_many", 5)
    os.kill(putter.pid, signal.SIGUSR2)
    assert putter.receive() == "handled"
    putter.wait_asleep()
    q.put(4)
    assert putter.outcome() == [4]


def test_shutdown_ends_a_waiting_put_many(launch, new):
    """What was in before the shutdown is in, and ShutDown says how many."""
    q = new(2)
    putter = launch(workers.puppet, q)
    putter.begin_and_sleep("put_many", [*range(10)])
    q.shutdown()
    with raises(joinq.ShutDown, 2):
        putter.outcome()
    assert q.get_many(5) == [0, 1]
    with pytest.raises(joinq.ShutDown):
        q.get_many(5)
    with raises(joinq.ShutDown, 0):
        q.put_many([1])


def test_no_memory_leaves_what_was_in(launch, q):
    """MemoryError, too, says how many items are in."""
    putter = launch(workers.puppet_without_memory, q)
    if not putter.receive():
        pytest.skip("this system does not let a process be refused memory")
    with raises(MemoryError, 2):
        putter.call("put_many", [1, 2, b"x" * 50_000_000, 3])
    assert drain_many(q) == [1, 2]


# get_many ----------------------------------------------------------------------------------------------


def test_get_many_takes_what_is_there(q):
    """At least one item, at most max_items, the oldest first; no waiting for more."""
    q.put_many(range(10))
    assert q.get_many(1) == [0]
    assert q.get_many(4) == [1, 2, 3, 4]
    assert q.get_many(2**70) == [5, 6, 7, 8, 9]
    for how in ({"block": False}, {"timeout": 0}, {"timeout": 0.01}):
        with pytest.raises(joinq.Empty):
            q.get_many(3, **how)


def test_get_many_waits_for_the_first_item(launch, new):
    """It sleeps on an empty queue, and returns with what is there when it wakes."""
    q = new()
    getter = launch(workers.puppet, q)
    getter.begin_and_sleep("get_many", 10)
    q.put("one")
    assert getter.outcome() == ["one"]
    getter.begin_and_sleep("get_many", 10)
    q.put_many(["large" * 20_000, "two"])
    got = getter.outcome()
    got += getter.call("get_many", 10) if len(got) == 1 else []
    assert [len(item) for item in got] == [100_000, 3]
    getter.begin_and_sleep("get_many", 10)
    q.shutdown()
    with pytest.raises(joinq.ShutDown):
        getter.outcome()


@pytest.mark.parametrize("wrong", ["1", 1.0, None, [1], 1j])
def test_get_many_wants_an_integer(q, wrong):
    """max_items is an integer."""
    with pytest.raises(TypeError, match="max_items"):
        q.get_many(wrong)


@pytest.mark.parametrize("wrong", [0, -1, -(2**70), False])
def test_get_many_wants_to_get_something(q, wrong):
    """max_items is at least one."""
    with pytest.raises(ValueError, match="max_items"):
        q.get_many(wrong)


@pytest.mark.parametrize("timeout", [math.nan, "1", [1]])
def test_wrong_timeouts_are_refused(q, timeout):
    """As put() and get() do, and nothing is put or taken."""
    with pytest.raises((TypeError, ValueError), match="timeout"):
        q.put_many([1], timeout=timeout)
    with pytest.raises((TypeError, ValueError), match="timeout"):
        q.get_many(1, timeout=timeout)
    assert q.qsize() == 0


@pytest.mark.parametrize("wrong", [None, 5, len])
def test_put_many_wants_an_iterable(q, wrong):
    """What cannot be iterated raises TypeError, and nothing is put."""
    with pytest.raises(TypeError):
        q.put_many(wrong)
    assert q.qsize() == 0


def test_closed_queue_refuses_both(new):
    """After close(), put_many() and get_many() raise what put() and get() do."""
    q = new()
    q.put(1)
    q.close()
    for call in (partial(q.put_many, [1]), partial(q.get_many, 1), partial(q.put_many, [])):
        with pytest.raises(ValueError, match="is closed"):
            call()
    assert q.qsize() == 1


def test_closed_end_refuses_its_side(new):
    """An end closed alone ends that side, as with put() and get()."""
    q = new()
    q.put_many([1, 2])
    q._writer.close()
    with pytest.raises(OSError):
        q.put_many([3])
    assert q.get_many(1) == [1]
    q._reader.close()
    with pytest.raises(OSError):
        q.get_many(1)


# Items that cannot be unpickled ---------------------------------------------------------------------------

SIZES = {"small": 0, "long": 5000, "large": 90_000}


def drain_failing(queue, error):
    """All that is there, and the errors of those that fail, each of which takes one item."""
    items, errors = [], []
    for left in range(queue.qsize(), 0, -1):
        try:
            items += queue.get_many(10, block=False)
        except error as failure:
            errors.append(failure)
            assert queue.qsize() < left
        if not queue.qsize():
            break
    return items, errors


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("index", [0, 1, 5, 9])
def test_item_that_fails_counts_as_taken(q, index, size):
    """get_many() raises what unpickling raises; all the other items are still there, in order."""
    items = [*range(10)]
    items[index] = Pickled(payloads.fail, "x" * size)
    q.put_many(items)
    got, failures = drain_failing(q, LookupError)
    assert [error.args for error in failures] == [("x" * size,)]
    del items[index]
    assert got == items
    if isinstance(q, joinq.JoinableQueue):
        assert q.unfinished_tasks == 10
        q.task_done(10)
        assert q.unfinished_tasks == 0


@pytest.mark.parametrize("error", [joinq.Empty, joinq.ShutDown, EOFError])
@pytest.mark.parametrize("index", [0, 1, 5, 9])
def test_item_may_fail_as_a_queue_does(q, index, error):
    """What an item raises is raised, also if it looks like the end of the queue."""
    items = [*range(10)]
    items[index] = Pickled(raise_one, error)
    q.put_many(items)
    got, failures = drain_failing(q, error)
    assert len(failures) == 1
    del items[index]
    assert got == items


def raise_one(error):
    raise error


def test_get_many_takes_the_last_items_when_nobody_can_put_more(new):
    """When every process has closed `_writer`, EOFError comes after the last item, not instead of it."""
    q = new()
    q.put_many(range(3))
    q._writer.close()
    assert q.get_many(10) == [0, 1, 2]
    with pytest.raises(EOFError):
        q.get_many(10)


def test_every_item_of_a_batch_may_fail(q):
    """Each costs one get_many()."""
    q.put_many([Pickled(payloads.fail, str(i)) for i in range(20)])
    for i in range(20):
        with pytest.raises(LookupError, match=f"{i}"):
            q.get_many(20)
        assert q.qsize() == 19 - i


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("index", [0, 1, 5, 9])
def test_interrupted_get_many_takes_nothing(q, index, size):
    """A signal handler's exception while an item is unpickled leaves all of them in the queue, in order."""
    items = [*range(10)]
    items[index] = Pickled(payloads.interrupt_once, "interruptible", "x" * size)
    q.put_many(items)
    items[index] = "interruptible"
    got = []
    for _ in range(3):
        payloads.interruptions.append(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            while True:  # a large item is in no batch
                got += q.get_many(10, block=False)
        assert not payloads.interruptions
        assert q.qsize() == 10 - len(got)
    got += drain_many(q)
    assert got == items


@pytest.mark.parametrize("index", [0, 4, 9])
def test_handler_that_raises_another_exception_takes_nothing(new, index):
    """Whether an exception is a handler's or an item's does not depend on its type."""
    q = new()
    items = [*range(10)]
    items[index] = Pickled(payloads.interrupt_once, "interruptible", "")
    q.put_many(items)
    items[index] = "interruptible"

    def handler(signum, frame):
        raise LookupError("the handler's")

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        payloads.interruptions.append(signal.SIGUSR2)
        with pytest.raises(LookupError, match="the handler's"):
            q.get_many(10)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert drain(q) == items


# Together ----------------------------------------------------------------------------------------------------


def test_single_gets_and_batches_share_a_chunk(launch, new):
    """Several processes take from the same chunks, singly and by batches: each item arrives once, in order."""
    q = new()
    count = 3000
    getters = [launch(workers.consume_in_batches, q, most) for most in (1, 1, 2, 50)]
    for first in range(0, count, 300):
        q.put_many(range(first, first + 300))
    q.put_many([None] * len(getters))
    taken = [getter.result() for getter in getters]
    for numbers in taken:
        assert numbers == sorted(numbers)
    assert sorted(itertools.chain(*taken)) == [*range(count)]
    assert q.qsize() == 0
    if isinstance(q, joinq.JoinableQueue):
        q.join(LIMIT)


def test_one_put_many_wakes_all_who_can_get_something(launch, new):
    """As many sleepers wake as there are items."""
    q = new()
    getters = [launch(workers.puppet, q) for _ in range(4)]
    for getter in getters:
        getter.begin_and_sleep("get")
    q.put_many(range(4))
    assert sorted(getter.outcome() for getter in getters) == [0, 1, 2, 3]


def test_one_get_many_wakes_all_who_can_put_something(launch, new):
    """As many sleepers wake as there is room."""
    q = new(4)
    q.put_many(range(4))
    putters = [launch(workers.puppet, q) for _ in range(4)]
    for number, putter in enumerate(putters):
        putter.begin_and_sleep("put", number)
    got = q.get_many(4)
    assert got == [0, 1, 2, 3] or isinstance(q, joinq.JoinableQueue)
    for putter in putters:
        putter.outcome()
    assert sorted(got + drain(q)) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_threads_share_a_queue_by_batches():
    """Threads that put and get batches at once lose nothing, and each producer's items are in order."""
    q = joinq.JoinableQueue(100)
    taken = [[] for _ in range(3)]

    def consume(mine):
        while mine[-1:] != [None]:
            got = q.get_many(9, timeout=LIMIT)
            rest = got[got.index(None) + 1 :] if None in got else []
            q.put_many(rest)
            mine += got[: len(got) - len(rest)]
            q.task_done(len(got))

    threads = [threading.Thread(target=consume, args=(mine,)) for mine in taken]
    threads += [threading.Thread(target=q.put_many, args=([(who, i) for i in range(2000)],)) for who in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads[3:]:
        thread.join(LIMIT)
    q.put_many([None] * 3, timeout=LIMIT)
    for thread in threads[:3]:
        thread.join(LIMIT)
    q.join(LIMIT)
    payloads.check_every_item_once([mine[:-1] for mine in taken], 3, 2000)


# Tasks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_death", ["raise", "ignore", "redeliver"])
def test_tasks_of_a_batch_are_reported_by_number(on_death):
    """task_done(n) finishes a batch; join() returns when all are."""
    q = joinq.JoinableQueue(on_death=on_death)
    q.put_many(range(100))
    assert q.unfinished_tasks == 100
    while q.unfinished_tasks:
        with pytest.raises(joinq.JoinTimeout):
            q.join(0)
        q.task_done(len(q.get_many(30)))
    q.join(0)
    with pytest.raises(ValueError):
        q.task_done()


def test_tasks_of_a_killed_taker_are_known():
    """With on_death="raise" LostTasks counts all that a dead process had taken by get_many()."""
    q = joinq.JoinableQueue()
    q.put_many(range(100))

    def take():
        assert len(q.get_many(30)) == 30
        assert q.get() == 30
        q.task_done(10)
        os.kill(os.getpid(), signal.SIGKILL)

    pid = workers.fork(take)
    assert workers.wait_for(pid) == -signal.SIGKILL
    rest = drain_many(q)
    assert rest == [*range(31, 100)]
    q.task_done(69)
    with pytest.raises(joinq.LostTasks) as caught:
        q.join(LIMIT)
    assert caught.value.unfinished == 21
    assert [(dead.pid, dead.tasks) for dead in caught.value.processes] == [(pid, 21)]


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("singly", [0, 1, 3])
def test_batch_of_a_killed_taker_is_redelivered_in_order(size, singly):
    """With on_death="redeliver" all that a dead process had in hand comes back, in order, before the rest."""
    q = joinq.JoinableQueue(on_death="redeliver")
    items = [(i, b"x" * size) for i in range(20)]
    q.put_many(items)

    def take():
        for _ in range(singly):
            q.get()
        got = q.get_many(8)
        assert got == items[singly : singly + 8]
        q.task_done(2)
        os.kill(os.getpid(), signal.SIGKILL)

    assert workers.wait_for(workers.fork(take)) == -signal.SIGKILL
    probes.reap(q)
    assert drain_many(q, 7) == items[2:]
    q.task_done(18)
    q.join(0)
    probes.check_invariants(q)


def test_shutdown_discards_the_rest_of_a_chunk(new):
    """shutdown(immediate) after a part of a chunk was taken ends the other items' tasks, not the taken ones'."""
    q = new()
    q.put_many(range(100))
    q.put_many([b"x" * 20_000] * 3)
    assert q.get_many(10) == [*range(10)]
    assert q.get() == 10
    q.shutdown(immediate=True)
    assert q.qsize() == 0
    for call in (q.get, partial(q.get_many, 3), partial(q.put_many, [1])):
        with pytest.raises(joinq.ShutDown):
            call()
    if isinstance(q, joinq.JoinableQueue):
        assert q.unfinished_tasks == 11
        q.task_done(11)
        q.join(0)
    probes.check_invariants(q)


def test_measured_queue_counts_batches():
    """The figures of a measured queue are those of single puts."""
    figures = []
    for way_in in (WAYS_IN["put"], WAYS_IN["put_many"]):
        q = joinq.JoinableQueue()
        lib.jnq_measure(q._handle)
        for _ in range(2):
            way_in(q, [1, "text", b"x" * 3000, b"y" * 100_000, [2], None])
            q.get_many(1)
        counters = probes.counters(q)
        figures.append((counters["put_bytes"], counters["backlog"], counters["puts"]))
    assert figures[0] == figures[1]


# Nothing is left ---------------------------------------------------------------------------------------------


def ignoring(error, call, *args, **kwargs):
    """A call that must raise so."""
    with pytest.raises(error):
        call(*args, **kwargs)


def pass_each(q, items):
    for item in items:
        q.put(item)
        q.get()


def pass_all(q, items):
    q.put_many(items)
    while q.qsize():
        q.get_many(1000)


def interrupted(q, get):
    q.put_many([1, "x" * 2000, Pickled(payloads.interrupt_once, "interruptible", ""), 2])
    for _ in range(3):
        payloads.interruptions.append(signal.SIGINT)
        with contextlib.suppress(KeyboardInterrupt, joinq.Empty):
            while True:
                get()
        payloads.interruptions.clear()
    drain(q)


def failing(q):
    q.put_many([1, Pickled(payloads.fail, "small"), 2, Pickled(payloads.fail, "x" * 90_000), 3])
    drain_failing(q, LookupError)


BAD = payloads.Pickling(payloads.fail, "no way")
BOXED = [payloads.Boxed(bytearray(size), bytes(size)) for size in (0, 100, 5000, 100_000)]
STEPS = {
    "put_and_get": lambda q: pass_each(q, MIXED[:-60]),
    "put_and_get_others": lambda q: pass_each(q, OTHERS),
    "put_many_and_get_many": lambda q: pass_all(q, MIXED[:-60]),
    "put_many_and_get_many_others": lambda q: pass_all(q, OTHERS),
    "buffers": lambda q: pass_each(q, BOXED),
    "buffers_in_batches": lambda q: pass_all(q, BOXED),
    "generator_fails": lambda q: (ignoring(ZeroDivisionError, q.put_many, (1 // i for i in (2, 1, 0))), drain(q)),
    "unpicklable": lambda q: (ignoring(LookupError, q.put, BAD), ignoring(LookupError, q.put_many, [1, BAD]), drain(q)),
    "buffer_error": lambda q: ignoring(pickle.PicklingError, q.put, payloads.Boxed(memoryview(bytes(9))[::2])),
    "wrong_arguments": lambda q: (ignoring(TypeError, q.put_many, 5), ignoring(TypeError, q.get_many, "")),
    "empty": lambda q: (ignoring(joinq.Empty, q.get, False), ignoring(joinq.Empty, q.get_many, 5, False)),
    "timeout": lambda q: ignoring(joinq.Empty, q.get_many, 5, timeout=0.0001),
    "full": lambda q: (ignoring(joinq.Full, q.put_many, [object] * 1200, block=False), drain(q)),
    "cannot_be_unpickled": failing,
    "interrupted_get": lambda q: interrupted(q, q.get_nowait),
    "interrupted_get_many": lambda q: interrupted(q, lambda: q.get_many(10, block=False)),
    "interrupted_buffers": lambda q: (
        q.put(payloads.Boxed(bytearray(100_000), then="interrupt")),
        payloads.interruptions.append(signal.SIGINT),
        ignoring(KeyboardInterrupt, q.get),
        payloads.kept.clear(),
        drain(q),
        payloads.kept.clear(),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("kind", ["Queue", "redeliver"])
def test_nothing_is_left_of_a_call(kind, step):
    """However often a call succeeds or fails, no object is left of it, and none is freed too often."""
    q = KINDS[kind](1100)  # more than put_many() takes at a time, but not by as many
    known = [None, True, False, (), "", b"", BAD, *MIXED, *BOXED, payloads.Boxed, joinq.Empty, joinq.Full, LookupError]
    known += [bytes, bytearray, memoryview, type(q), q, q._port, type(q._port)]

    def observe():
        gc.collect()
        return sys.getallocatedblocks(), sum(map(sys.getrefcount, known)), probes.counters(q)["used_bytes"]

    def repeat(times):
        for _ in range(times):
            step(q)
            if kind == "redeliver" and q.unfinished_tasks:
                q.task_done(q.unfinished_tasks)

    repeat(60)
    observed = [observe()]
    for _ in range(8):  # caches that fill up do so in the first ones
        repeat(40)
        observed.append(observe())
    for what in range(3):
        growth = [after[what] - before[what] for before, after in zip(observed, observed[1:])]
        assert min(map(abs, growth)) < 30, growth
    assert observed[0][2] == observed[-1][2]
    probes.check_invariants(q)


def test_exceptions_of_batches_leave_no_cycle():
    """What an error of put_many() or get_many() referred to is gone with the exception, without the collector."""

    class Thing:
        def __reduce__(self):
            return payloads.fail, ("no way back",)

    gc.disable()
    try:
        for q in (joinq.JoinableQueue(5), joinq.JoinableQueue(5, on_death="redeliver")):
            thing = Thing()
            witness = weakref.ref(thing)
            with contextlib.suppress(joinq.Full):
                q.put_many([thing] * 9, block=False)
            with contextlib.suppress(LookupError):
                q.get_many(5)
            with contextlib.suppress(LookupError):
                q.put_many([thing, payloads.Pickling(payloads.fail, "no way")])
            del thing
            assert witness() is None
    finally:
        gc.enable()


class Falsy(Exception):
    """An exception that is false, as containers of errors can be."""

    def __len__(self):
        return 0


def raising(error):
    """An iterable that raises after an item."""
    yield 1
    raise error


@pytest.mark.parametrize("error", [Falsy, KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("how", ["iterable", "item"])
def test_an_exception_ends_a_put_many_that_would_wait(how, error):
    """Nobody makes room: an exception, which may be a signal handler's, is raised all the same."""
    q = joinq.Queue(1)
    q.put(0)
    items = Sized(raising(error)) if how == "iterable" else [1, Failing(error)]
    with pytest.raises(error) as caught:
        q.put_many(items)
    assert caught.value.items_put == 0
    assert drain(q) == [0]


class Failing:
    """Cannot be pickled."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


class Alarm(Exception):
    """What a signal handler raises."""


def test_redelivered_batches_in_a_storm_of_signals():
    """Whenever a handler raises in get_many(): what the thread has in hand is what it was given."""
    if sys.version_info < (3, 11):
        pytest.skip("handlers run between any two bytecodes there")
    q = joinq.JoinableQueue(on_death="redeliver")
    q.put_many(range(3000))
    got, armed = [], False

    def handler(signum, frame):
        nonlocal armed
        # Not in the caller's frame: what get_many() has returned there is lost.
        if armed and frame.f_code.co_filename == joinq.Queue.get_many.__code__.co_filename:
            armed = False
            raise Alarm

    before = signal.signal(signal.SIGVTALRM, handler)
    gc.collect()
    gc.disable()  # an exception in a callback of the collector's is nobody's
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.0002, 0.0002)
    try:
        for _ in range(300):
            try:
                armed = True
                while True:
                    got += q.get_many(7, False)
            except Alarm:
                pass
            except joinq.Empty:
                break
            armed = False
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        gc.enable()
    assert got + drain(q) == [*range(3000)]
    q.task_done(3000)
    q.join(0)
