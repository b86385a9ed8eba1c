"""task_done() and join() as the stdlib documents them: the same cases on its queue and on ours."""

from __future__ import annotations

import queue
import threading

import pytest
import workers
from probes import LIMIT

TOO_MANY = r"^task_done\(\) called too many times$"


def test_join_of_a_queue_without_tasks_returns(impl):
    """join() returns None at once when there is nothing to wait for."""
    q = impl.JoinableQueue()
    assert q.join() is None
    q.put(1)
    q.get(timeout=LIMIT)
    assert q.task_done() is None
    assert q.join() is None


def test_task_done_called_too_often_raises_value_error(impl):
    """task_done() beyond the number of puts raises ValueError, and changes nothing."""
    q = impl.JoinableQueue()
    with pytest.raises(ValueError, match=TOO_MANY):
        q.task_done()
    q.put(1)
    q.get(timeout=LIMIT)
    q.task_done()
    for _ in range(2):
        with pytest.raises(ValueError, match=TOO_MANY):
            q.task_done()
    q.put(2)
    q.get(timeout=LIMIT)
    q.task_done()
    q.join()


def test_task_done_counts_puts_and_not_gets(impl):
    """A task can be reported done before anybody takes it."""
    q = impl.JoinableQueue()
    q.put(1)
    q.task_done()
    q.join()
    assert q.get(timeout=LIMIT) == 1
    with pytest.raises(ValueError, match=TOO_MANY):
        q.task_done()


def test_failed_put_is_no_task(impl):
    """A put() that raises Full leaves nothing to wait for."""
    q = impl.JoinableQueue(1)
    q.put(1)
    with pytest.raises(queue.Full):
        q.put_nowait(2)
    q.task_done()
    q.join()
    assert q.get(timeout=LIMIT) == 1


def test_join_waits_for_the_last_task(impl, launch):
    """join() blocks until task_done() was called for every item, wherever it is called."""
    q = impl.JoinableQueue()
    for i in range(3):
        q.put(i)
    joiner, worker = launch(workers.puppet, q), launch(workers.puppet, q)
    joiner.begin_and_sleep("join")
    for _ in range(2):
        worker.call("get")
        worker.call("task_done")
    joiner.wait_asleep()
    worker.call("get")
    joiner.wait_asleep()
    worker.call("task_done")
    assert joiner.outcome() is None


def test_join_waits_for_tasks_put_while_it_waits(impl, launch):
    """An item put during a join() is waited for too, if the count has not been zero before."""
    q = impl.JoinableQueue()
    q.put(1)
    joiner = launch(workers.puppet, q)
    joiner.begin_and_sleep("join")
    q.put(2)
    q.task_done()
    joiner.wait_asleep()
    q.task_done()
    assert joiner.outcome() is None
    assert [q.get(timeout=LIMIT) for _ in range(2)] == [1, 2]


def test_join_returns_once_the_count_has_been_zero(impl, launch):
    """A joiner that was asleep when the count became zero returns, whatever is put since."""
    q = impl.JoinableQueue()
    q.put(1)
    joiner = launch(workers.puppet, q)
    for i in range(2, 10):
        joiner.begin_and_sleep("join")
        q.task_done()
        q.put(i)
        assert joiner.outcome() is None
    q.task_done()
    assert [q.get(timeout=LIMIT) for _ in range(9)] == list(range(1, 10))


def test_join_wakes_every_joiner(impl, launch):
    """All processes blocked in join() return when the count becomes zero."""
    q = impl.JoinableQueue()
    q.put(1)
    joiners = [launch(workers.puppet, q) for _ in range(3)]
    for joiner in joiners:
        joiner.begin_and_sleep("join")
    q.task_done()
    assert [joiner.outcome() for joiner in joiners] == [None] * 3
    q.join()


def test_join_wakes_every_thread(impl):
    """All threads blocked in join() return when the count becomes zero."""
    q = impl.JoinableQueue()
    q.put(1)
    joined = threading.Barrier(4)

    def join():
        q.join()
        joined.wait(LIMIT)

    calls = [(join,)] * 3

    def finish():
        q.get(timeout=LIMIT)
        q.task_done()
        joined.wait(LIMIT)

    workers.run_threads([*calls, (finish,)])


def test_task_done_in_another_process_counts(impl, launch):
    """The count is one for all processes: the sum of puts less the sum of task_dones."""
    q = impl.JoinableQueue()
    others = [launch(workers.puppet, q) for _ in range(2)]
    q.put(1)
    others[0].call("put", 2)
    others[1].call("task_done")
    q.task_done()
    for other in others:
        with pytest.raises(ValueError, match=TOO_MANY):
            other.call("task_done")
        assert other.call("join") is None
    q.join()


def test_join_after_each_of_many_rounds(impl, launch):
    """join() can be used again and again, with workers that never end."""
    q, results = impl.JoinableQueue(), impl.Queue()
    staff = [launch(workers.square, q, results) for _ in range(2)]
    for start in range(0, 100, 10):
        batch = range(start, start + 10)
        for number in batch:
            q.put(number)
        q.join()
        squares = sorted(results.get(timeout=LIMIT) for _ in batch)
        assert squares == [number * number for number in batch]
    for _ in staff:
        q.put(None)
    assert sum(worker.result() for worker in staff) == 100
    q.join()
