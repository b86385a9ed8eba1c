"""How items and queues are pickled: the same cases on the stdlib's queues and on ours."""

from __future__ import annotations

import copy
import copyreg
import multiprocessing
import socket
from fractions import Fraction
from multiprocessing import resource_sharer
from multiprocessing.reduction import ForkingPickler

import payloads
import pytest
import workers
from probes import LIMIT


@pytest.fixture
def reducers():
    """Take back what a test registers, so that the next test sees a fresh interpreter."""
    forking, shared = dict(ForkingPickler._extra_reducers), dict(copyreg.dispatch_table)
    yield
    for table, before in [
        (ForkingPickler._extra_reducers, forking),
        (copyreg.dispatch_table, shared),
    ]:
        table.clear()
        table.update(before)


@pytest.mark.parametrize("kind", ["JoinableQueue", "Queue", "SimpleQueue"])
@pytest.mark.parametrize("use", [copy.copy, copy.deepcopy])
def test_queue_cannot_be_copied(impl, kind, use):
    """There is no second queue with the same items."""
    q = getattr(impl, kind)()
    with pytest.raises(RuntimeError):
        use(q)


def test_put_uses_reducers_of_forking_pickler(make, reducers):
    """An object that only ForkingPickler's registry can pickle arrives."""
    q = make()
    payloads.register_celsius()
    q.put([payloads.Celsius(36.6)])
    assert q.get(timeout=LIMIT)[0].degrees == 36.6


def test_put_uses_reducers_registered_after_its_first_use(make, reducers):
    """A reducer counts from the moment of its registration, also if it replaces another."""
    q = make()
    q.put(payloads.Point(1, 2))
    assert q.get(timeout=LIMIT) == payloads.Point(1, 2)
    payloads.register_celsius()
    q.put(payloads.Celsius(1))
    assert q.get(timeout=LIMIT).degrees == 1
    ForkingPickler.register(payloads.Celsius, lambda thing: (Fraction, (thing.degrees, 2)))
    q.put(payloads.Celsius(1))
    assert q.get(timeout=LIMIT) == Fraction(1, 2)


def test_put_uses_reducers_of_copyreg(make, reducers):
    """A reducer registered with copyreg, at any time, is used too."""
    q = make()
    q.put(payloads.Point(1, 2))
    assert q.get(timeout=LIMIT) == payloads.Point(1, 2)
    copyreg.pickle(payloads.Point, lambda point: (payloads.Point, (point.y, point.x)))
    q.put(payloads.Point(1, 2))
    assert q.get(timeout=LIMIT) == payloads.Point(2, 1)


def test_put_prefers_forking_picklers_reducer_to_copyregs(make, reducers):
    """Of two reducers for one class, ForkingPickler's wins."""
    q = make()
    copyreg.pickle(payloads.Point, lambda point: (payloads.Point, ("copyreg", 0)))
    ForkingPickler.register(payloads.Point, lambda point: (payloads.Point, ("forking", 0)))
    q.put(payloads.Point(1, 2))
    assert q.get(timeout=LIMIT).x == "forking"


def test_put_uses_reducers_registered_in_a_child(make, launch):
    """A child's own registration counts for what the child puts."""
    q = make()
    child = launch(workers.put_celsius, q, -40)
    assert q.get(timeout=LIMIT).degrees == -40
    child.result()


def test_methods_arrive(make):
    """A method arrives bound to a copy of its object; one of a class arrives as it is."""
    q = make()
    for method in (Fraction(31, 100).limit_denominator, [10].index, int.bit_length):
        q.put(method)
    assert q.get(timeout=LIMIT)(3) == Fraction(1, 3)
    assert q.get(timeout=LIMIT)(10) == 0
    assert q.get(timeout=LIMIT)(10) == 4


def test_connections_and_sockets_arrive(make, launch):
    """Connections and sockets can be sent to another process, and work there."""
    q = make()
    here, there = multiprocessing.Pipe()
    left, right = socket.socketpair()
    with here, there, left, right:
        child = launch(workers.talk, q)
        q.put((there, right))
        assert here.poll(LIMIT)
        assert here.recv() == "by connection"
        left.settimeout(LIMIT)
        assert left.recv(100) == b"by socket"
        child.result()
    resource_sharer.stop(timeout=LIMIT)


def test_get_raises_what_unpickling_raises(make):
    """The error is raised by get(), the item counts as taken, the queue goes on."""
    q = make(3)
    q.put("before")
    q.put(payloads.Pickled(payloads.fail, "cannot be rebuilt"))
    q.put("after")
    assert q.get(timeout=LIMIT) == "before"
    with pytest.raises(LookupError, match="cannot be rebuilt"):
        q.get(timeout=LIMIT)
    assert q.qsize() == 1
    assert q.get(timeout=LIMIT) == "after"
    assert (q.qsize(), q.full(), q.empty()) == (0, False, True)
    for i in range(3):
        q.put_nowait(i)
    assert [q.get(timeout=LIMIT) for _ in range(3)] == [0, 1, 2]


def test_item_that_cannot_be_unpickled_remains_a_task(impl):
    """task_done() is still owed for an item whose get() raised."""
    q = impl.JoinableQueue()
    q.put(payloads.Pickled(payloads.fail, "cannot be rebuilt"))
    with pytest.raises(LookupError):
        q.get(timeout=LIMIT)
    q.task_done()
    with pytest.raises(ValueError, match="too many times"):
        q.task_done()


def test_get_may_be_called_while_unpickling(make):
    """An item may take another item from the same queue while it is rebuilt."""
    for count in (1, 5):
        q = payloads.inner = make()
        for _ in range(count):
            q.put(payloads.Pickled(payloads.get_inner, "outer", b"x" * 100_000))
            q.put("inner")
        for _ in range(count):
            assert q.get(timeout=LIMIT) == ("outer", "inner", 100_000)
        assert q.empty()
