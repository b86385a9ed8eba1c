"""Memory of the queue in the hands of Python: blanks, and the buffers of items that were taken."""

from __future__ import annotations

import os
import pickle

import probes
import pytest
import workers
from probes import LIMIT

import joinq

np = pytest.importorskip("numpy")

MANY = 100_000


@pytest.fixture
def q():
    """A queue; in order afterwards."""
    queue = joinq.JoinableQueue(on_death="ignore")
    yield queue
    probes.check_invariants(queue)


def blank(q, value):
    """An array in the queue's memory that holds only this value."""
    array = joinq.empty(MANY, "i8", q)
    array[:] = value
    return array


def holds(array, value):
    """Whether it has no other value."""
    return bool((array == value).all())


def in_child(function):
    """Run a function in the child of a fork; it must end well, and tell so by its result."""
    assert workers.wait_for(workers.fork(lambda: os._exit(function() is False))) == 0


def test_a_child_gives_a_copy_of_an_inherited_blank(q):
    """The blank is the parent's to give; what the child puts is what the child has written."""
    array = blank(q, 1)

    def child():
        array[:] = 2
        q.put(array)

    in_child(child)
    array[:] = 3
    got = q.get(timeout=LIMIT)
    assert holds(got, 2)
    q.put(array)
    assert holds(q.get(timeout=LIMIT), 3)
    assert holds(got, 2)


@pytest.mark.parametrize("first", ["given", "taken"])
def test_a_child_lets_go_of_what_its_parent_has_given_and_taken(q, first):
    """Both arrays are one run, and so one copy in the child, which stays until it has let go of both."""
    arrays = {"given": blank(q, 1)}
    q.put(arrays["given"])
    arrays["taken"] = q.get(timeout=LIMIT)

    def child():
        del arrays[first]
        (other,) = arrays.values()
        return holds(other, 1)

    in_child(child)


def test_a_child_has_its_own_although_there_is_an_empty_blank(q):
    """An empty blank has no pages to be copied, and keeps nobody from copying the others."""
    empty = q.buffer(0)
    array = blank(q, 1)

    def child():
        array[:] = 2

    in_child(child)
    assert holds(array, 1)
    assert not empty.nbytes
