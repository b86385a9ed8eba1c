"""SimpleQueue as the stdlib documents it: the same cases on its queue and on ours."""

from __future__ import annotations

import payloads
import pytest
import workers


def test_simple_queue_keeps_order_and_values(impl):
    """Items come out in the order they went in; empty() tells whether there are any."""
    q = impl.SimpleQueue()
    items = [None, 1, "two", b"3", [4, {"five": 6.0}], payloads.Point(7, 8)]
    assert q.empty() is True
    for item in items:
        assert q.put(item) is None
        assert q.empty() is False
    for item in items:
        assert q.get() == item
    assert q.empty() is True


def test_simple_queue_takes_no_limit_and_no_timeout(impl):
    """The constructor takes nothing, put() an item, get() nothing."""
    with pytest.raises(TypeError):
        impl.SimpleQueue(1)
    q = impl.SimpleQueue()
    q.put(1)
    for args, kwargs in [((False,), {}), ((), {"block": False}), ((), {"timeout": 1})]:
        with pytest.raises(TypeError):
            q.get(*args, **kwargs)
        with pytest.raises(TypeError):
            q.put(2, *args, **kwargs)
    assert q.get() == 1
    assert q.empty()


@pytest.mark.parametrize("name", ["qsize", "full", "put_nowait", "get_nowait", "join", "task_done", "join_thread"])
def test_simple_queue_is_simple(impl, name):
    """What the stdlib's SimpleQueue does not offer is not there."""
    assert not hasattr(impl.SimpleQueue(), name)


def test_simple_queue_class_can_be_subscripted(impl):
    """SimpleQueue[int] can be written in an annotation."""
    alias = type(impl.SimpleQueue())[int]
    assert alias.__args__ == (int,)


def test_simple_queue_raises_pickling_errors_in_put(impl):
    """put() raises what pickling raises, and leaves the queue as it was."""
    q = impl.SimpleQueue()
    q.put("before")
    with pytest.raises(Exception, match=r"pickle|local object"):
        q.put(lambda: None)
    with pytest.raises(LookupError, match="no way"):
        q.put(payloads.Pickling(payloads.fail, "no way"))
    q.put("after")
    assert [q.get(), q.get()] == ["before", "after"]
    assert q.empty()


def test_simple_queue_closed_raises_os_error(impl):
    """After close() everything but close() raises OSError."""
    q = impl.SimpleQueue()
    q.put(1)
    assert q.close() is None
    assert q.close() is None
    with pytest.raises(OSError, match="closed"):
        q.put(2)
    with pytest.raises(OSError, match="closed"):
        q.get()
    with pytest.raises(OSError, match="closed"):
        q.empty()


def test_simple_queue_get_blocks_until_another_process_puts(impl, launch):
    """A blocked get() returns what another process puts."""
    q = impl.SimpleQueue()
    other = launch(workers.puppet, q)
    other.begin_and_sleep("get")
    q.put("news")
    assert other.outcome() == "news"


def test_simple_queue_connects_processes(impl, launch):
    """Items arrive whole and in order, whatever their size, in both directions."""
    there, back = impl.SimpleQueue(), impl.SimpleQueue()
    other = launch(workers.echo, there, back)
    for number in range(12):
        item = payloads.make_item(0, number, (1, 100, 5000, 300_000))
        there.put(item)
        assert back.get() == item
    there.put(None)
    assert other.result() == 12


def test_simple_queue_closed_here_lives_on_elsewhere(impl, launch):
    """close() concerns this process only."""
    q = impl.SimpleQueue()
    other = launch(workers.puppet, q)
    q.put(1)
    assert other.call("get") == 1
    q.close()
    other.call("put", 2)
    assert other.call("get") == 2
