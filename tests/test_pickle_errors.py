"""Errors while an item is pickled: joinq raises them in put(), where the stdlib's queue cannot."""

from __future__ import annotations

import pickle
import threading

import payloads
import pytest
from probes import LIMIT

import joinq


@pytest.fixture(params=["JoinableQueue", "Queue"])
def q(request):
    """A queue with two items in it and room for one."""
    q = getattr(joinq, request.param)(3)
    q.put("first")
    q.put("second")
    yield q
    assert [q.get_nowait(), q.get_nowait()] == ["first", "second"]
    assert q.empty()
    for number in range(3):
        q.put_nowait(number)
    assert [q.get_nowait() for _ in range(3)] == [0, 1, 2]


UNPICKLABLE = {
    "lambda": lambda: None,
    "lock": threading.Lock(),
    "generator": (i for i in ()),
    "deep_inside": [b"x" * 100_000, {"key": (1, 2, lambda: None)}],
    "own_error": payloads.Pickling(payloads.fail, "own error"),
}


@pytest.mark.parametrize("value", UNPICKLABLE.values(), ids=UNPICKLABLE.keys())
def test_put_raises_what_pickling_raises(q, value):
    """An object that cannot be pickled raises in put() and leaves the queue untouched."""
    for _ in range(3):
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError, LookupError)):
            q.put(value)
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError, LookupError)):
            q.put_nowait(value)
    assert q.qsize() == 2
    if hasattr(q, "unfinished_tasks"):
        assert q.unfinished_tasks == 2
        q.task_done(2)
        q.join()


def test_put_raises_keyboard_interrupt_from_pickling(q):
    """Also an exception that is no Exception leaves the queue untouched."""
    with pytest.raises(KeyboardInterrupt):
        q.put(payloads.Pickling(payloads.interrupt))


def test_put_pickles_before_it_looks_for_room(q):
    """On a full queue the error in the object is raised, not Full."""
    q.put("third")
    with pytest.raises(LookupError, match="own error"):
        q.put(UNPICKLABLE["own_error"], timeout=0.01)
    assert q.qsize() == 3
    q.get(), q.get(), q.get()
    q.put("first"), q.put("second")


def test_put_takes_the_object_as_it_is_now():
    """What happens to the object after put() does not change the item; no item sees another."""
    q = joinq.Queue()
    thing = [0]
    for number in range(1, 100):
        q.put(thing)
        q.put({"thing": thing, "again": thing})
        thing.append(number)
    for number in range(1, 100):
        assert q.get_nowait() == list(range(number))
        got = q.get_nowait()
        assert got == {"thing": list(range(number)), "again": list(range(number))}
        assert got["thing"] is got["again"]


def test_put_may_be_called_while_pickling():
    """An object may put others into the same queue, or fail to, while it is pickled."""
    q = joinq.JoinableQueue()
    q.put(["outer", payloads.Pickling(q.put, ["inner", payloads.Pickling(q.put, [1])]), "end"])
    with pytest.raises(LookupError):
        q.put(["outer", payloads.Pickling(q.put, ["inner", UNPICKLABLE["own_error"]])])
    q.put(["last"])
    got = [q.get_nowait() for _ in range(4)]
    assert got == [[1], ["inner", None], ["outer", None, "end"], ["last"]]
    assert (q.qsize(), q.unfinished_tasks) == (0, 4)


def test_get_of_the_own_queue_while_pickling():
    """An object may take from the same queue while it is pickled."""
    q = joinq.Queue()
    q.put("first")
    q.put([payloads.Pickling(q.get)])
    assert q.get(timeout=LIMIT) == ["first"]


def test_errors_while_unpickling_lose_nothing_else():
    """Items that cannot be rebuilt, large and small, cost themselves and nothing else."""
    q = joinq.JoinableQueue()
    for number in range(50):
        q.put(number)
        q.put([b"x" * (number * 4096), payloads.Pickled(payloads.fail, "cannot be rebuilt")])
    for number in range(50):
        assert q.get_nowait() == number
        with pytest.raises(LookupError, match="cannot be rebuilt"):
            q.get_nowait()
    assert (q.qsize(), q.unfinished_tasks) == (0, 100)
    q.task_done(100)
    q.join()


class Handling(joinq.Queue):
    """A subclass with its own way with what cannot be pickled."""

    def _on_queue_feeder_error(self, e, obj):
        self.refused = (e, obj)


def test_handler_of_a_subclass_is_called():
    """As the stdlib's: then put() does not raise, and nothing is put."""
    q = Handling()
    obj = payloads.Pickling(payloads.fail, "own error")
    q.put(obj)
    assert q.refused[1] is obj
    assert isinstance(q.refused[0], LookupError)
    assert q.empty()
    q.put("an item")
    assert q.get() == "an item"


class Shrinks:
    """Makes a bytearray shorter when it is pickled, as another thread could."""

    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        del self.array[10:]
        return (int, ("1",))


def test_bytearray_that_changes_its_size_while_it_is_pickled():
    """It is an error of put(), and no item that nobody can unpickle."""
    q = joinq.Queue()
    array = bytearray(200_000)
    with pytest.raises(RuntimeError, match="changed size"):
        q.put([array, Shrinks(array)])
    q.put([array, bytearray(b"x" * 200_000)])
    assert q.get(timeout=LIMIT) == [bytes(10), b"x" * 200_000]
