"""What joinq's queues can do beyond the stdlib's: join(timeout), unfinished_tasks, task_done(n)."""

from __future__ import annotations

import functools
import math
import queue
import time

import pytest
import workers
from probes import LIMIT

import joinq

TOO_MANY = r"^task_done\(\) called too many times$"


def test_exceptions_are_the_stdlibs():
    """Whoever catches queue.Empty, queue.Full, TimeoutError or queue.ShutDown catches ours."""
    assert joinq.Empty is queue.Empty
    assert joinq.Full is queue.Full
    assert issubclass(joinq.JoinTimeout, TimeoutError)
    assert joinq.ShutDown is getattr(queue, "ShutDown", joinq.ShutDown)
    assert issubclass(joinq.ShutDown, Exception)


@pytest.mark.parametrize("timeout", [0, -1, 0.0, -1e300, -math.inf])
def test_join_without_time_raises_at_once(timeout):
    """join(0), and less, only looks: JoinTimeout if a task is unfinished, else None."""
    q = joinq.JoinableQueue()
    assert q.join(timeout) is None
    q.put(1)
    with pytest.raises(joinq.JoinTimeout):
        q.join(timeout)
    with pytest.raises(joinq.JoinTimeout):
        q.join(timeout=timeout)
    q.task_done()
    assert q.join(timeout) is None


def test_join_waits_for_its_whole_timeout():
    """join(timeout) raises JoinTimeout, and not before the timeout is over."""
    q = joinq.JoinableQueue()
    q.put(1)
    start = time.monotonic()
    with pytest.raises(joinq.JoinTimeout, match="1 task"):
        q.join(0.1)
    assert time.monotonic() - start >= 0.1


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
@pytest.mark.parametrize("timeout", [None, LIMIT, 1e9, 1e300, math.inf])
def test_join_with_a_timeout_returns_when_done(launch, timeout):
    """A join() whose timeout is not over returns as soon as the tasks are finished."""
    q = joinq.JoinableQueue()
    q.put(1)
    joiner = launch(workers.puppet, q)
    joiner.begin_and_sleep("join", timeout)
    q.task_done()
    assert joiner.outcome() is None


def test_join_that_timed_out_changes_nothing():
    """After JoinTimeout the tasks are what they were, and join() can be called again."""
    q = joinq.JoinableQueue()
    q.put(1)
    for _ in range(3):
        with pytest.raises(joinq.JoinTimeout):
            q.join(0.001)
    assert (q.unfinished_tasks, q.qsize(), q.get_nowait()) == (1, 1, 1)
    q.task_done()
    q.join()


def test_unfinished_tasks_is_puts_less_task_dones(launch):
    """unfinished_tasks is the same exact number in every process, after every step."""
    q = joinq.JoinableQueue()
    other = launch(workers.puppet, q)
    expected = 0
    for method, args, change in [
        ("put", (1,), 1),
        ("put_nowait", (2,), 1),
        ("get", (), 0),
        ("task_done", (), -1),
        ("get_nowait", (), 0),
        ("put", (3,), 1),
        ("task_done", (2,), -2),
    ]:
        here, there = (q, other)
        assert here.unfinished_tasks == there.call("unfinished_tasks") == expected
        other.call(method, *args)
        expected += change
        assert here.unfinished_tasks == there.call("unfinished_tasks") == expected
    assert type(q.unfinished_tasks) is int
    with pytest.raises(AttributeError):
        q.unfinished_tasks = 1


@pytest.mark.parametrize("after_close", [False, True])
def test_unfinished_tasks_can_be_read_after_close(after_close):
    """close() does not hide the count, nor the time-limited join()."""
    q = joinq.JoinableQueue()
    q.put(1)
    if after_close:
        q.close()
    assert q.unfinished_tasks == 1
    with pytest.raises(joinq.JoinTimeout):
        q.join(0)


def test_task_done_takes_a_number():
    """task_done(n) reports n tasks done in one step."""
    q = joinq.JoinableQueue()
    for i in range(10):
        q.put(i)
    assert q.task_done(3) is None
    assert q.unfinished_tasks == 7
    q.task_done(n=6)
    assert q.unfinished_tasks == 1
    q.task_done()
    q.join()


@pytest.mark.parametrize("n", [3, 4, 2**31, 2**32, 2**63, 2**64, 2**65])
def test_task_done_of_more_than_there_are_changes_nothing(n):
    """task_done(n) beyond the unfinished tasks raises ValueError, and reports none of them."""
    q = joinq.JoinableQueue()
    q.put(1)
    q.put(2)
    with pytest.raises(ValueError, match=TOO_MANY):
        q.task_done(n)
    assert q.unfinished_tasks == 2
    q.task_done(2)
    q.join()


@pytest.mark.parametrize("n", [0, -1, -(2**64)])
def test_task_done_of_less_than_one_raises_value_error(n):
    """task_done(n) needs n >= 1."""
    q = joinq.JoinableQueue()
    q.put(1)
    with pytest.raises(ValueError, match="1 or more"):
        q.task_done(n)
    assert q.unfinished_tasks == 1


@pytest.mark.parametrize("n", ["1", 1.0, None, [1]], ids=repr)
def test_task_done_of_no_integer_raises_type_error(n):
    """task_done(n) needs an integer."""
    q = joinq.JoinableQueue()
    q.put(1)
    with pytest.raises(TypeError):
        q.task_done(n)
    assert q.unfinished_tasks == 1


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(math.nan, ValueError), ("1", TypeError), ([], TypeError), (1j, TypeError), (b"", TypeError)],
    ids=repr,
)
def test_senseless_timeout_raises_and_changes_nothing(timeout, error):
    """NaN is a ValueError and what is no number a TypeError, whether or not there is a wait."""
    q = joinq.JoinableQueue(1)
    for count in (0, 1):
        for call in (q.get, functools.partial(q.put, 1), q.join):
            with pytest.raises(error, match="timeout"):
                call(timeout=timeout)
        assert (q.qsize(), q.unfinished_tasks) == (count, count)
        if not count:
            q.put(1)


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
@pytest.mark.parametrize("timeout", [1e9, 1e18, 1e300, math.inf, 2**63, 2**1000])
def test_huge_timeouts_wait(launch, timeout):
    """However long the timeout, the call blocks until there is something to do."""
    q = joinq.Queue(1)
    other = launch(workers.puppet, q)
    other.begin_and_sleep("get", timeout=timeout)
    q.put(1)
    assert other.outcome() == 1
    q.put(2)
    other.begin_and_sleep("put", 3, timeout=timeout)
    assert q.get() == 2
    assert other.outcome() is None
    assert q.get() == 3


@pytest.mark.parametrize("maxsize", [2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 2**100])
def test_maxsize_has_no_limit_of_its_own(maxsize):
    """Any positive integer is a maxsize; what cannot be reached does not limit."""
    q = joinq.Queue(maxsize)
    q.put_nowait(1)
    assert not q.full()
    assert q.get_nowait() == 1


def test_queue_and_joinable_queue_can_be_subclassed(launch):
    """A subclass with a constructor and methods of its own works, and its methods do in a child."""
    q = workers.Named("inbox", maxsize=2)
    q.put(1)
    assert (q.name, q.qsize()) == ("inbox", 1)
    assert isinstance(q, joinq.JoinableQueue)
    other = launch(workers.puppet, q)
    assert other.call("shout") == "GOT 1"
    q.join()
