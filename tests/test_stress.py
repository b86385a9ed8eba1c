"""Eight producers and eight consumers at full speed: every item arrives once, whole, in order."""

from __future__ import annotations

import payloads
import probes
import pytest
import workers
from probes import LIMIT

import joinq

PRODUCERS = CONSUMERS = 8


@pytest.mark.parametrize("maxsize", [0, 16])
def test_eight_producers_and_eight_consumers(launch, maxsize):
    """Nothing is lost, doubled, torn or out of order, and join() returns when all is done."""
    stress(launch, joinq.JoinableQueue(maxsize), 200)


@pytest.mark.slow
@pytest.mark.parametrize("maxsize", [0, 1, 16])
def test_eight_producers_and_eight_consumers_for_long(launch, maxsize):
    """The same with many more items."""
    stress(launch, joinq.JoinableQueue(maxsize), 3000)


def stress(launch, q, count):
    """Each process is one producer, or one consumer."""
    consumers = [launch(workers.consume, q) for _ in range(CONSUMERS)]
    producers = [launch(workers.put_items, q, who, count) for who in range(PRODUCERS)]
    finish(q, producers, consumers, count)


@pytest.mark.parametrize("maxsize", [0, 16])
def test_four_threads_in_each_of_four_processes(launch, maxsize):
    """The same with threads: two processes of four producers, two of four consumers."""
    stress_with_threads(launch, joinq.JoinableQueue(maxsize), 200)


@pytest.mark.slow
@pytest.mark.parametrize("maxsize", [0, 16])
def test_four_threads_in_each_of_four_processes_for_long(launch, maxsize):
    """The same with many more items."""
    stress_with_threads(launch, joinq.JoinableQueue(maxsize), 3000)


def stress_with_threads(launch, q, count):
    consumers = [launch(workers.consume, q, 4) for _ in range(2)]
    producers = [launch(workers.produce, q, range(first, first + 4), count) for first in (0, 4)]
    finish(q, producers, consumers, count)


def finish(q, producers, consumers, count):
    """Wait for the producers, join, end the consumers, compare what they took."""
    for producer in producers:
        producer.result()
    q.join(LIMIT)
    assert (q.qsize(), q.unfinished_tasks) == (0, 0)
    for _ in range(CONSUMERS):
        q.put(None)
    taken = [numbers for consumer in consumers for numbers in consumer.result()]
    assert len(taken) == CONSUMERS
    payloads.check_every_item_once(taken, PRODUCERS, count)
    q.join(LIMIT)
    assert (q.qsize(), q.unfinished_tasks) == (0, 0)
    probes.check_invariants(q)


def test_everybody_puts_gets_and_joins(launch):
    """Processes that are producer, consumer and joiner at once all end, and the count is zero."""
    q = joinq.JoinableQueue(8)
    team = [launch(workers.put_get_join, q, who, 100) for who in range(4)]
    taken = [member.result() for member in team]
    payloads.check_every_item_once(taken, 4, 100)
    q.join(LIMIT)
    assert (q.qsize(), q.unfinished_tasks) == (0, 0)
