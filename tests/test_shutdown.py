"""
shutdown(), as queue.Queue has it since Python 3.13, in every process.

The cases without processes run on the standard library's thread queue too, where it has one.
"""

from __future__ import annotations

import queue
import threading

import pytest
import workers
from probes import LIMIT

import joinq


def make_thread_queue(maxsize=0):
    if not hasattr(queue, "ShutDown"):
        pytest.skip("queue.Queue has no shutdown() before Python 3.13")
    return queue.Queue(maxsize)


@pytest.fixture(params=["queue.Queue", "JoinableQueue", "Queue"])
def make(request):
    """The constructor of a queue that can be shut down."""
    return getattr(joinq, request.param, make_thread_queue)


@pytest.fixture(params=["queue.Queue", "JoinableQueue"])
def make_joinable(request):
    """The constructor of a queue that can be shut down and joined."""
    return getattr(joinq, request.param, make_thread_queue)


@pytest.fixture(params=["JoinableQueue", "Queue"])
def make_shared(request):
    """The constructor of a queue that processes share."""
    return getattr(joinq, request.param)


WAYS = [(), (True, LIMIT), (False,), (True, 0)]


@pytest.mark.parametrize("immediate", [False, True])
def test_put_after_shutdown_raises_shut_down(make, immediate):
    """Every form of put() raises ShutDown, on a full queue too, and puts nothing."""
    q = make(1)
    for _ in range(2):
        assert q.shutdown(immediate) is None
        for args in WAYS:
            with pytest.raises(joinq.ShutDown):
                q.put("late", *args)
        with pytest.raises(joinq.ShutDown):
            q.put_nowait("late")
        assert q.qsize() == 0
    full = make(1)
    full.put(1)
    full.shutdown()
    for args in WAYS:
        with pytest.raises(joinq.ShutDown):
            full.put("late", *args)
    assert full.get() == 1


@pytest.mark.parametrize("how", [(), (False,)])
def test_get_after_shutdown_empties_the_queue(make, how):
    """What is in the queue can still be taken; then every form of get() raises ShutDown."""
    q = make()
    for number in range(4):
        q.put(number)
    q.shutdown(*how)
    assert q.qsize() == 4
    for number, args in enumerate(WAYS):
        assert q.get(*args) == number
    for args in WAYS:
        with pytest.raises(joinq.ShutDown):
            q.get(*args)
    with pytest.raises(joinq.ShutDown):
        q.get_nowait()


@pytest.mark.parametrize("before", [False, True])
def test_immediate_shutdown_discards_the_items(make, before):
    """shutdown(immediate=True) empties the queue, also if it was shut down before."""
    q = make(5)
    for number in range(5):
        q.put(b"x" * 5000 * number)
    if before:
        q.shutdown()
        assert q.get() == b""
    q.shutdown(immediate=True)
    assert (q.qsize(), q.empty(), q.full()) == (0, True, False)
    for args in WAYS:
        with pytest.raises(joinq.ShutDown):
            q.get(*args)


def test_shutdown_does_not_finish_tasks(make_joinable):
    """After shutdown() join() waits for what is in the queue, as before it."""
    q = make_joinable()
    q.put(1)
    q.put(2)
    q.shutdown()
    for number in (1, 2):
        assert q.unfinished_tasks == 3 - number
        assert q.get() == number
        q.task_done()
    q.join()
    with pytest.raises(ValueError, match="too many times"):
        q.task_done()


def test_immediate_shutdown_finishes_what_it_discards(make_joinable):
    """Discarded items count as done; those that somebody has taken remain unfinished."""
    q = make_joinable()
    for number in range(5):
        q.put(number)
    q.get()
    q.get()
    q.task_done()
    q.shutdown(immediate=True)
    assert q.unfinished_tasks == 1
    q.task_done()
    assert q.unfinished_tasks == 0
    q.join()
    with pytest.raises(ValueError, match="too many times"):
        q.task_done()


def test_immediate_shutdown_never_finishes_more_than_there_is(make_joinable):
    """Items reported done before they were taken are not counted twice when discarded."""
    q = make_joinable()
    for number in range(4):
        q.put(number)
    for _ in range(3):
        q.task_done()
    q.shutdown(immediate=True)
    assert q.unfinished_tasks == 0
    q.join()


@pytest.mark.parametrize("immediate", [False, True])
def test_shutdown_wakes_threads(make, immediate):
    """Threads blocked in put() and in get() raise ShutDown."""
    empty, full = make(), make(1)
    full.put(1)
    blocked = threading.Barrier(5)

    def must_raise(method, *args):
        blocked.wait(LIMIT)
        with pytest.raises(joinq.ShutDown):
            method(*args)

    def shutdown():
        blocked.wait(LIMIT)
        empty.shutdown(immediate)
        full.shutdown(immediate)

    waiters = [(must_raise, empty.get), (must_raise, empty.get, True, LIMIT)]
    waiters += [(must_raise, full.put, 2), (must_raise, full.put, 2, True, LIMIT)]
    workers.run_threads([*waiters, (shutdown,)])


def test_shutdown_after_close_is_possible(make_shared):
    """close() ends put() and get() in this process; the queue can still be shut down from it."""
    q = make_shared()
    q.close()
    q.shutdown()
    with pytest.raises(ValueError, match="closed"):
        q.put(1)


@pytest.mark.parametrize("immediate", [False, True])
def test_shutdown_wakes_every_process(make_shared, launch, immediate):
    """Processes blocked in get() on an empty queue, or in put() on a full one, raise ShutDown."""
    empty, full = make_shared(), make_shared(1)
    full.put(1)
    calls = [(empty, "get", ()), (empty, "get", (True, LIMIT)), (full, "put", (2,))]
    others = []
    for q, method, args in calls:
        others.append(launch(workers.puppet, q))
        others[-1].begin_and_sleep(method, *args)
    empty.shutdown(immediate)
    full.shutdown(immediate)
    for other in others:
        with pytest.raises(joinq.ShutDown):
            other.outcome()
    assert full.qsize() == (0 if immediate else 1)


def test_shutdown_holds_in_every_process(make_shared, launch):
    """One process shuts the queue down; the others see it in their next call, new ones too."""
    q = make_shared()
    q.put("left")
    q.put("over")
    one = launch(workers.puppet, q)
    assert not q.is_shutdown
    one.call("shutdown")
    assert q.is_shutdown
    two = launch(workers.puppet, q)
    with pytest.raises(joinq.ShutDown):
        q.put(1)
    with pytest.raises(joinq.ShutDown):
        two.call("put", 1)
    assert two.call("get") == "left"
    assert q.get() == "over"
    for call in (q.get_nowait, lambda: one.call("get"), lambda: two.call("get")):
        with pytest.raises(joinq.ShutDown):
            call()


def test_immediate_shutdown_lets_joiners_return(launch):
    """A process in join() returns when the discarded items were the last unfinished ones."""
    q = joinq.JoinableQueue()
    q.put(1)
    q.put(2)
    joiner = launch(workers.puppet, q)
    joiner.begin_and_sleep("join")
    q.shutdown()
    joiner.wait_asleep()
    q.shutdown(immediate=True)
    assert joiner.outcome() is None


def test_immediate_shutdown_leaves_joiners_to_held_tasks(launch):
    """A process in join() goes on waiting for tasks that were taken before the shutdown."""
    q = joinq.JoinableQueue()
    for number in range(3):
        q.put(number)
    worker, joiner = launch(workers.puppet, q), launch(workers.puppet, q)
    assert worker.call("get") == 0
    joiner.begin_and_sleep("join")
    q.shutdown(immediate=True)
    joiner.wait_asleep()
    assert q.unfinished_tasks == 1
    worker.call("task_done")
    assert joiner.outcome() is None


def test_shutdown_ends_a_team_of_consumers(launch):
    """Consumers that work until ShutDown do every task once, and all of them end."""
    q, results = joinq.JoinableQueue(8), joinq.Queue()
    team = [launch(workers.square_until_shut_down, q, results) for _ in range(3)]
    for number in range(200):
        q.put(number)
    q.shutdown()
    assert sum(member.result() for member in team) == 200
    assert sorted(results.get_nowait() for _ in range(200)) == [i * i for i in range(200)]
    q.join()
