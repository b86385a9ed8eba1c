"""What the stdlib's queues promise only "sooner or later", ours do at once, in every process."""

from __future__ import annotations

import queue

import payloads
import pytest
import workers

import joinq


@pytest.fixture(params=["JoinableQueue", "Queue"])
def make(request):
    return getattr(joinq, request.param)


def test_item_can_be_taken_as_soon_as_put_returns(make, launch):
    """After put() returns, empty() is False and get_nowait() succeeds, in every process."""
    q = make()
    other = launch(workers.puppet, q)
    for number in range(100):
        q.put(number)
        assert other.call("empty") is False
        assert other.call("get_nowait") == number
        assert q.empty() is True
        other.call("put", number)
        assert q.empty() is False
        assert q.get_nowait() == number
        assert other.call("empty") is True


def test_qsize_is_the_same_in_every_process(make, launch):
    """qsize(), full() and empty() agree everywhere, after every single step."""
    q = make(5)
    other = launch(workers.puppet, q)
    for step in "pppppgggppgggg":
        for _ in range(2):
            expected = q.qsize(), q.full(), q.empty()
            assert tuple(map(other.call, ("qsize", "full", "empty"))) == expected
        if step == "p":
            other.call("put_nowait", step)
            assert q.qsize() == expected[0] + 1
        else:
            assert q.get_nowait() == "p"
            assert other.call("qsize") == expected[0] - 1
    assert q.empty()


def test_bounded_queue_is_full_for_every_process_at_once(make, launch):
    """The maxsize-th put() makes the queue full, the next get() makes room, everywhere."""
    q = make(3)
    other = launch(workers.puppet, q)
    for _ in range(50):
        for number in range(3):
            if number % 2:
                other.call("put_nowait", number)
            else:
                q.put_nowait(number)
        with pytest.raises(queue.Full):
            q.put_nowait("too much")
        with pytest.raises(queue.Full):
            other.call("put_nowait", "too much")
        assert [q.get_nowait(), other.call("get_nowait"), q.get_nowait()] == [0, 1, 2]


def test_items_of_a_process_outlive_it(make, launch):
    """Nothing is left to be flushed when a process ends: all it put stays, unread."""
    q = make()
    producer = launch(workers.put_items, q, 1, 300)
    producer.result()
    assert q.qsize() == 300
    for number in range(300):
        assert payloads.check_item(q.get_nowait())[:2] == (1, number)


def test_queue_given_away_and_dropped_at_once_arrives(launch):
    """The creator may drop the queue before the child it was given to has unpacked it."""
    for number in range(3):
        q = joinq.JoinableQueue()
        q.put(number)
        child = launch(workers.get_one, q)
        del q
        assert child.result() == number


def test_order_of_puts_is_the_order_of_gets_across_processes(launch):
    """Items put one after another by different processes come out in exactly that order."""
    q = joinq.Queue()
    others = [launch(workers.puppet, q) for _ in range(2)]
    for number in range(60):
        if number % 3:
            others[number % 2].call("put", number)
        else:
            q.put(number)
    assert [q.get_nowait() for _ in range(60)] == list(range(60))
