"""put() and get() as the stdlib documents them: the same cases on its queues and on ours."""

from __future__ import annotations

import gc
import inspect
import math
import multiprocessing
import multiprocessing.queues
import queue
import time
from fractions import Fraction

import payloads
import pytest
import workers
from probes import LIMIT

VALUES = {
    "none": None,
    "bool": True,
    "zero": 0,
    "long": -(2**200),
    "float": math.pi,
    "empty_text": "",
    "text": "Zażółć \0 gęślą \U0001f600",
    "empty_bytes": b"",
    "bytes": bytes(range(256)),
    "bytearray": bytearray(b"writable"),
    "page": b"p" * 4096,
    "megabyte": bytes(range(256)) * 4096,
    "nested": {"a": [1, (2, {3}), None], "b": {"c": frozenset({"d"})}},
    "object": payloads.Point(1, payloads.Point("x", b"y")),
    "function": payloads.identity,
    "exception_class": queue.Empty,
}

WAYS_TO_FAIL_AT_ONCE = [
    ((False,), {}),
    ((False, 5), {}),
    ((True, 0), {}),
    ((True, -1), {}),
    ((), {"block": False}),
    ((), {"timeout": 0}),
    ((), {"timeout": -0.5}),
    ((), {"block": True, "timeout": 0.0}),
]


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_get_returns_a_copy_of_what_was_put(make, value):
    """get() returns an object of the same type and value as the one that was put."""
    q = make()
    assert q.put(value) is None
    got = q.get(timeout=LIMIT)
    assert type(got) is type(value)
    assert got == value


def test_get_follows_the_order_of_one_producer(make):
    """Items of one producer arrive in the order in which it put them."""
    q = make()
    for i in range(1000):
        q.put(i)
    assert [q.get(timeout=LIMIT) for _ in range(1000)] == list(range(1000))


def test_get_of_mutable_items_shares_nothing(make):
    """The object that arrives is nobody else's: changing it changes nothing elsewhere."""
    q = make()
    sent = [1, [2]]
    q.put(sent)
    got = q.get(timeout=LIMIT)
    got[1].append(3)
    assert sent == [1, [2]]
    q.put(sent)
    assert q.get(timeout=LIMIT) == [1, [2]]


def test_put_and_get_take_their_arguments_by_position_and_by_name(make):
    """Every spelling of the arguments that the stdlib accepts is accepted."""
    q = make()
    q.put("a", True, 1)
    q.put(obj="b", block=True, timeout=None)
    q.put("c", timeout=1)
    q.put("d", False)
    q.put_nowait("e")
    q.put_nowait(obj="f")
    assert q.get() == "a"
    assert q.get(True) == "b"
    assert q.get(True, LIMIT) == "c"
    assert q.get(True, None) == "d"
    assert q.get(block=True, timeout=LIMIT) == "e"
    assert q.get(timeout=LIMIT) == "f"


def test_put_nowait_returns_none(make):
    """put_nowait() returns None."""
    q = make(1)
    assert q.put_nowait(1) is None
    assert q.get(timeout=LIMIT) == 1


def test_put_on_a_full_queue_raises_full(make):
    """Exactly maxsize items fit; every way of not waiting then raises queue.Full."""
    q = make(3)
    for i in range(3):
        assert not q.full()
        q.put_nowait(i)
    assert q.full()
    for args, kwargs in WAYS_TO_FAIL_AT_ONCE:
        with pytest.raises(queue.Full):
            q.put("too much", *args, **kwargs)
    with pytest.raises(queue.Full):
        q.put_nowait("too much")
    assert [q.get(timeout=LIMIT) for _ in range(3)] == [0, 1, 2]


def test_get_from_an_empty_queue_raises_empty(make):
    """Every way of not waiting raises queue.Empty on an empty queue."""
    q = make()
    for args, kwargs in WAYS_TO_FAIL_AT_ONCE:
        with pytest.raises(queue.Empty):
            q.get(*args, **kwargs)
    with pytest.raises(queue.Empty):
        q.get_nowait()


def test_get_makes_room_for_put(make):
    """After one get() a full queue takes exactly one more item."""
    q = make(2)
    q.put(1)
    q.put(2)
    assert q.get(timeout=LIMIT) == 1
    q.put_nowait(3)
    with pytest.raises(queue.Full):
        q.put_nowait(4)
    assert [q.get(timeout=LIMIT) for _ in range(2)] == [2, 3]


@pytest.mark.parametrize("timeout", [0.1, 1 / 3, Fraction(1, 10)], ids=str)
def test_put_waits_for_its_whole_timeout(make, timeout):
    """put(timeout) raises Full, and not before the timeout is over."""
    q = make(1)
    q.put(1)
    start = time.monotonic()
    with pytest.raises(queue.Full):
        q.put(2, timeout=timeout)
    # The stdlib's semaphores sleep by the wall clock, which may be stepped a little.
    assert time.monotonic() - start >= timeout - 0.01
    assert q.get(timeout=LIMIT) == 1


@pytest.mark.parametrize("timeout", [0.1, 1 / 3, Fraction(1, 10)], ids=str)
def test_get_waits_for_its_whole_timeout(make, timeout):
    """get(timeout) raises Empty, and not before the timeout is over."""
    q = make()
    start = time.monotonic()
    with pytest.raises(queue.Empty):
        q.get(timeout=timeout)
    assert time.monotonic() - start >= timeout - 0.01


@pytest.mark.parametrize("maxsize", [0, -1, -(10**6)])
def test_maxsize_not_above_zero_means_unbounded(make, maxsize):
    """A queue whose maxsize is zero or less is never full."""
    q = make(maxsize)
    for i in range(2000):
        q.put_nowait(i)
    assert not q.full()
    assert [q.get(timeout=LIMIT) for _ in range(2000)] == list(range(2000))


@pytest.mark.parametrize("maxsize", [True, 1, 40_000])
def test_maxsize_may_be_given_by_name(make, maxsize):
    """Maxsize is a keyword too, and True is 1."""
    q = make(maxsize=maxsize)
    for i in range(maxsize):
        q.put_nowait(i)
    with pytest.raises(queue.Full):
        q.put_nowait("too much")
    assert [q.get(timeout=LIMIT) for _ in range(maxsize)] == list(range(maxsize))


@pytest.mark.parametrize("maxsize", ["3", 1.5, None, [], 2.0], ids=repr)
def test_maxsize_that_is_no_integer_raises_type_error(make, maxsize):
    """Maxsize must be an integer."""
    with pytest.raises(TypeError):
        make(maxsize)


@pytest.mark.parametrize("timeout", ["1", [], b"", {}], ids=repr)
def test_timeout_that_is_no_number_raises_type_error(make, timeout):
    """A timeout that is needed must be a number."""
    q = make(1)
    with pytest.raises(TypeError):
        q.get(True, timeout)
    q.put(1)
    with pytest.raises(TypeError):
        q.put(2, True, timeout)
    assert q.get(timeout=LIMIT) == 1


def test_qsize_counts_puts_less_gets(make):
    """qsize() is the number of items put and not yet taken; full() compares it to maxsize."""
    q = make(5)
    assert (q.qsize(), q.full(), q.empty()) == (0, False, True)
    for i in range(1, 6):
        q.put(i)
        assert (q.qsize(), q.full()) == (i, i == 5)
    for i in range(4, -1, -1):
        q.get(timeout=LIMIT)
        assert (q.qsize(), q.full()) == (i, False)
    assert q.empty()


def test_get_blocks_until_another_process_puts(make, launch):
    """A blocked get() returns the item that another process puts."""
    q = make()
    other = launch(workers.puppet, q)
    other.begin_and_sleep("get")
    q.put("news")
    assert other.outcome() == "news"
    other.begin("get", timeout=LIMIT)
    q.put("more news")
    assert other.outcome() == "more news"


def test_put_blocks_until_another_process_gets(make, launch):
    """A put() blocked on a full queue goes on when another process makes room."""
    q = make(1)
    q.put(1)
    other = launch(workers.puppet, q)
    other.begin_and_sleep("put", 2)
    assert q.get(timeout=LIMIT) == 1
    assert other.outcome() is None
    assert q.get(timeout=LIMIT) == 2


def test_every_blocked_getter_gets_one_item(make, launch):
    """As many blocked getters wake as items are put, and no item goes to two."""
    q = make()
    others = [launch(workers.puppet, q) for _ in range(3)]
    for other in others:
        other.begin_and_sleep("get")
    for i in range(3):
        q.put(i)
    assert sorted(other.outcome() for other in others) == [0, 1, 2]
    assert q.empty()


def test_items_pass_between_processes_both_ways(make, launch):
    """What either process puts, the other gets: whole, and in order."""
    there, back = make(), make(4)
    other = launch(workers.echo, there, back)
    for number in range(30):
        there.put(payloads.make_item(0, number))
    there.put(None)
    for number in range(30):
        assert payloads.check_item(back.get(timeout=LIMIT))[:2] == (0, number)
    assert other.result() == 30


def test_each_of_several_producers_keeps_its_order(make, launch):
    """Items of different processes may mix, but those of each stay in order."""
    q = make()
    producers = [launch(workers.put_items, q, i, 100, (10, 500)) for i in range(2)]
    items = [payloads.check_item(q.get(timeout=LIMIT)) for _ in range(200)]
    for i, producer in enumerate(producers):
        producer.result()
        assert [item.number for item in items if item.producer == i] == list(range(100))


def test_process_that_ends_leaves_its_items_behind(make, launch):
    """A process may put and end without close(): everything it put arrives."""
    q = make()
    producer = launch(workers.put_items, q, 7, 50)
    for number in range(50):
        item = payloads.check_item(q.get(timeout=LIMIT))
        assert item[:2] == (7, number)
    producer.result()


def test_queue_passes_on_to_a_grandchild(make, launch):
    """A child can give the queue it was given to a child of its own."""
    q = make()
    child = launch(workers.grandparent, q, "from the grandchild", daemon=False)
    assert q.get(timeout=LIMIT) == "from the grandchild"
    assert child.result() == 0


def test_queue_outlives_its_creators_reference(make, launch):
    """A child that holds a queue can use it after its creator has dropped it."""
    q, answers = make(), make()
    child = launch(workers.echo, q, answers)
    q.put("before")
    assert answers.get(timeout=LIMIT) == "before"
    q.put("dropped")
    q.put(None)
    del q
    gc.collect()
    assert answers.get(timeout=LIMIT) == "dropped"
    assert child.result() == 2


@pytest.mark.parametrize("kind", ["JoinableQueue", "Queue", "SimpleQueue"])
def test_queue_is_an_instance_of_the_stdlib_class(impl, kind):
    """isinstance() holds for the class of multiprocessing.queues of the same name."""
    assert isinstance(getattr(impl, kind)(), getattr(multiprocessing.queues, kind))


def test_joinable_queue_is_a_queue(impl):
    """A JoinableQueue is a Queue, and a Queue is no JoinableQueue."""
    assert isinstance(impl.JoinableQueue(), type(impl.Queue()))
    assert not isinstance(impl.Queue(), type(impl.JoinableQueue()))
    assert not hasattr(impl.Queue(), "task_done")


PUBLIC_METHODS = [
    (kind, name)
    for kind in ["JoinableQueue", "Queue", "SimpleQueue"]
    for name, _ in inspect.getmembers(getattr(multiprocessing.queues, kind), inspect.isfunction)
    if name == "__init__" or not name.startswith("_")
]


@pytest.mark.parametrize(("kind", "name"), PUBLIC_METHODS)
def test_signature_begins_like_the_stdlibs(impl, kind, name):
    """Names, order and defaults are the stdlib's; what follows them can be left out."""
    if name == "__init__":
        theirs, ours = getattr(multiprocessing, kind), getattr(impl, kind)
    else:
        theirs = getattr(getattr(multiprocessing, kind)(), name)
        ours = getattr(getattr(impl, kind)(), name)
    theirs, ours = (
        [(p.name, p.kind, p.default) for p in inspect.signature(f).parameters.values()] for f in (theirs, ours)
    )
    assert ours[: len(theirs)] == theirs
    assert all(default is not inspect.Parameter.empty for *_, default in ours[len(theirs) :])
