"""Memory of the queue in the hands of Python: blanks, and the buffers of items that were taken."""

from __future__ import annotations

import os
import signal
import threading

import probes
import pytest
import workers
from probes import LIMIT

import joinq
from joinq._native import ffi, lib

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


class Pair:
    """A sequence by no other sign than that it can be asked."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return (3, 4)[index]


SHAPES = [0, 5, (), (5,), (2, 3), [2, 3], (0, 3), range(2, 4), np.int64(4), np.array([2, 3]), np.array(3), Pair()]
IMPOSSIBLE = [-1, (2, -3), True, 2.0, (2, 1.5), 2**62, 2**63, (2**40, 2**40), (1,) * 70]


@pytest.mark.parametrize("shape", SHAPES)
def test_empty_takes_the_shapes_that_numpy_takes(q, shape):
    """The array is as NumPy's."""
    got, expected = joinq.empty(shape, "i2", q), np.empty(shape, "i2")
    assert (got.shape, got.dtype, got.strides) == (expected.shape, expected.dtype, expected.strides)


@pytest.mark.parametrize("shape", IMPOSSIBLE)
def test_empty_refuses_the_shapes_that_numpy_refuses(q, shape):
    """With the same exception."""
    with pytest.raises((TypeError, ValueError)) as refused:
        np.empty(shape, "i2")
    with pytest.raises(refused.type):
        joinq.empty(shape, "i2", q)


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


def apart(*arrays):
    """Whether the arrays do not lie in the same memory."""
    starts = sorted(array.ctypes.data for array in arrays)
    return all(b - a >= MANY * 8 for a, b in zip(starts, starts[1:]))


def test_a_blank_is_given_once_although_a_handler_puts_it_meanwhile():
    """A put() that waits has claimed the blank; what a signal handler puts is a copy."""
    q = joinq.JoinableQueue(1)
    q.put(None)
    array = blank(q, 1)
    got = []

    def handler(signum, frame):
        assert q.get(timeout=LIMIT) is None
        q.put(array)
        got.append(q.get(timeout=LIMIT))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        thread = threading.Thread(target=interrupt_when_waiting, args=(q,))
        thread.start()
        q.put(array)
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    got.append(q.get(timeout=LIMIT))
    assert apart(*got)
    assert all(holds(array, 1) for array in got)
    probes.check_invariants(q)


def interrupt_when_waiting(q):
    """Send SIGUSR1 to this process as soon as somebody waits in put()."""
    wait_for_waiter(q)
    os.kill(os.getpid(), signal.SIGUSR1)


def wait_for_waiter(q, number=1):
    """Until so many threads wait in put()."""
    out = ffi.new("jnq_holder *")

    def waits():
        return not lib.jnq_read_holder(q._handle, 1, out) and out.waiting[lib.JNQ_IN_PUT] >= number

    probes.wait_until(waits, "a waiter in put()")


def test_a_blank_is_given_once_by_a_batch_and_another_thread():
    """A put_many() has claimed the blank while it waits for room for what comes before it."""
    q = joinq.JoinableQueue(1)
    q.put(None)
    array = blank(q, 1)
    threads = [
        threading.Thread(target=q.put_many, args=([None, array],)),
        threading.Thread(target=q.put, args=(array,)),
    ]
    for number, thread in enumerate(threads, 1):
        thread.start()
        wait_for_waiter(q, number)
    got = [item for item in (q.get(timeout=LIMIT) for _ in range(4)) if item is not None]
    for thread in threads:
        thread.join()
    assert len(got) == 2
    assert apart(*got)
    probes.check_invariants(q)


def test_a_blank_that_was_not_put_is_one_again():
    """Full: the next put() gives it, without a copy."""
    q = joinq.JoinableQueue(1)
    q.put(None)
    array = blank(q, 1)
    with pytest.raises(joinq.Full):
        q.put(array, False)
    q.get()
    q.put(array)
    got = q.get(timeout=LIMIT)
    array[:] = 2
    assert holds(got, 2)


def test_a_child_buries_the_parent_that_it_has_copies_of():
    """The parent is killed with tasks in hand; its child uses another mapping, and its first call finds the dead."""
    q = joinq.JoinableQueue(on_death="redeliver")
    q.put("task")
    told, tell = os.pipe()

    def parent():
        q.get(timeout=LIMIT)
        array = blank(q, 1)
        q.shutdown(immediate=True)
        me = os.getpid()
        if not os.fork():
            workers.wait_dead(me)
            with pytest.raises(joinq.ShutDown):
                q.get(timeout=LIMIT)
            q.join(LIMIT)
            os.write(tell, b"%d" % holds(array, 1))
            os._exit(0)
        os.kill(me, signal.SIGKILL)

    pid = workers.fork(parent)
    os.close(tell)
    assert os.read(told, 1) == b"1"
    os.close(told)
    os.waitpid(pid, 0)
    probes.check_invariants(q)


def test_a_child_of_a_handler_gives_no_blank_of_its_parent():
    """A handler forks while put() waits: the put() of each ends, and puts what its own process has."""
    q = joinq.JoinableQueue(1, on_death="ignore")
    q.put(None)
    array = blank(q, 1)
    pids, got = [], []

    def handler(signum, frame):
        pids.append(os.fork())
        if not pids[0]:
            signal.alarm(int(LIMIT))
            array[:] = 2

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        threading.Thread(target=interrupt_when_waiting, args=(q,)).start()
        threading.Thread(target=take_all, args=(q, pids, got)).start()
        q.put(array)
        if not pids[0]:
            os._exit(0)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert workers.wait_for(pids[0]) == 0
    probes.wait_until(lambda: len(got) == 2, "both items")
    assert apart(*got)
    assert sorted(int(array[0]) for array in got) == [1, 2]
    assert all(holds(array, array[0]) for array in got)
    probes.check_invariants(q)


def take_all(q, pids, got):
    """Take two arrays, and what is before them, once there is a child."""
    probes.wait_until(lambda: pids, "a child")
    while len(got) < 2:
        item = q.get(timeout=LIMIT)
        if item is not None:
            got.append(item)
