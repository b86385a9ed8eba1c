"""close() and what is left to do after it: the same cases on the stdlib's queues and on ours."""

from __future__ import annotations

import re

import pytest
import workers
from probes import LIMIT


@pytest.mark.parametrize(("method", "args"), [("put", (1,)), ("put_nowait", (1,)), ("get", ()), ("get_nowait", ())])
def test_use_after_close_raises_value_error(make, method, args):
    """put() and get() in every form raise ValueError once this process has called close()."""
    q = make()
    q.put("left behind")
    q.close()
    with pytest.raises(ValueError, match=f"^Queue {re.escape(repr(q))} is closed$"):
        getattr(q, method)(*args)
    q.cancel_join_thread()


def test_close_may_be_repeated(make):
    """close() returns None, as often as it is called."""
    q = make()
    q.put(1)
    assert q.get(timeout=LIMIT) == 1
    assert q.close() is None
    assert q.close() is None


def test_join_thread_before_close_is_an_assertion_error(make):
    """join_thread() asserts that close() was called."""
    q = make()
    with pytest.raises(AssertionError, match="not closed"):
        q.join_thread()
    q.put(1)
    with pytest.raises(AssertionError, match="not closed"):
        q.join_thread()
    assert q.get(timeout=LIMIT) == 1


def test_join_thread_after_close_returns(make):
    """join_thread() and cancel_join_thread() return None, in any order, repeatedly."""
    q = make()
    q.put(1)
    assert q.get(timeout=LIMIT) == 1
    assert q.cancel_join_thread() is None
    q.close()
    assert q.join_thread() is None
    assert q.cancel_join_thread() is None
    assert q.join_thread() is None


def test_counts_are_readable_after_close(make):
    """qsize() and full() still answer after close()."""
    q = make(2)
    q.put(1)
    q.close()
    q.join_thread()
    assert (q.qsize(), q.full()) == (1, False)


def test_tasks_can_be_finished_after_close(impl):
    """task_done() and join() still work after close()."""
    q = impl.JoinableQueue()
    q.put(1)
    q.get(timeout=LIMIT)
    q.close()
    assert q.task_done() is None
    assert q.join() is None
    with pytest.raises(ValueError, match="too many times"):
        q.task_done()


def test_close_of_an_unused_queue(make):
    """A queue that nobody used can be closed, joined and dropped."""
    q = make()
    q.close()
    q.join_thread()


def test_close_concerns_this_process_only(make, launch):
    """After close() here, the others get what was put before it and go on using the queue."""
    q = make()
    one, two = launch(workers.puppet, q), launch(workers.puppet, q)
    q.put("farewell")
    q.close()
    q.join_thread()
    assert one.call("get", timeout=LIMIT) == "farewell"
    two.call("put", "still here")
    assert one.call("get", timeout=LIMIT) == "still here"
    one.call("close")
    with pytest.raises(ValueError, match="closed"):
        one.call("get")
    two.call("put", "alone")
    assert two.call("get", timeout=LIMIT) == "alone"


def test_child_of_a_process_that_closed_inherits_an_open_queue(make, launch):
    """A queue given to a child is open there, even if the parent has closed it."""
    q = make()
    q.close()
    child = launch(workers.puppet, q)
    child.call("put", 1)
    assert child.call("get", timeout=LIMIT) == 1
