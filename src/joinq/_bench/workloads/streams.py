"""
Items flow from producers to consumers, one by one or in batches.

The processes are started and warmed up first; the clock runs from a barrier until everything has been finished: until
`join()` returns, or, where a queue has none, until each consumer has reported on a pipe, once, that it has all of its
items. What arrives is counted and summed up. The garbage collector stays on, as in the programs that people run.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import operator
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable

from joinq._bench.contenders import ARRAY, OBJECT, Contender, Queue, installed
from joinq._bench.scenario import Outcome, Scenario
from joinq._bench.workloads.team import START_S, WARM_UP, Team, company, verify

WARM_UP_BYTES = 64 << 20
WARM_UP_IN_PLACE = 40
_FEW_BYTES = 8 << 20

Weigh = Callable[[Any], float]


def _ends(payload: bytes) -> int:
    return len(payload) + payload[0] + payload[-1]


def _array_ends(array: Any) -> float:
    return float(array.nbytes + array[0] + array[-1])


def _array_sum(array: Any) -> float:
    return float(array.sum())


def _phases(scenario: Scenario) -> tuple[tuple[int, Weigh], ...]:
    """
    Return how many items the warm-up and the timed phase move, and how each item is summed up.

    The warm-up fills a queue with a limit some times, so that all of its memory has been touched, and reads every byte
    of a payload. The timed phase must not, unless that is the scenario: walking through 4 MiB costs as much as moving
    them. Of an array that is made in place both phases touch both ends: nobody has written what lies between.
    """
    if scenario.kind == OBJECT:
        weigh: Weigh = sum if scenario.batch else operator.index
        return (max(WARM_UP, 2 * scenario.batch), weigh), (scenario.n, weigh)
    if scenario.in_place:
        return (WARM_UP_IN_PLACE, _array_ends), (scenario.n, _array_ends)
    warm_up = max(1, min(WARM_UP, scenario.n, max(WARM_UP_BYTES // scenario.item_bytes, 3 * scenario.maxsize)))
    if scenario.kind == ARRAY:
        return (warm_up, _array_sum), (scenario.n, _array_sum if scenario.reads else _array_ends)
    return (warm_up, zlib.crc32), (scenario.n, _ends)


@functools.cache
def _payloads(kind: str, size: int) -> list[Any]:
    """Return a few payloads to send in turn: making them is no part of a queue's work. Both ends tell them apart."""
    number = 4 if size <= _FEW_BYTES else 2
    if kind == ARRAY:
        numpy = installed("numpy")
        arrays = [numpy.arange(size // 8, dtype=float) for _ in range(number)]
        for i, array in enumerate(arrays):
            array[0], array[-1] = i, 255 - 3 * i
        return arrays
    filler = bytes(range(256)) * (size // 256)
    return [bytes([i]) + filler[1:-1] + bytes([255 - 3 * i]) for i in range(number)]


def _items(scenario: Scenario, count: int, producer: int) -> Iterable[Any]:
    """Return what one of the producers puts when they send `count` items together: items, or batches of them."""
    share = range(producer, count, scenario.producers)
    if scenario.batch:
        numbers = list(share)
        return [numbers[i : i + scenario.batch] for i in range(0, len(numbers), scenario.batch)]
    if scenario.kind == OBJECT:
        return share
    return list(itertools.islice(itertools.cycle(_payloads(scenario.kind, scenario.item_bytes)), len(share)))


def _putter(scenario: Scenario, queue: Queue) -> Callable[[Any], object]:
    if scenario.batch:
        return queue.many_putter()
    if not scenario.in_place:
        return queue.putter()
    place = queue.placer(scenario.item_bytes // 8)

    def put(array: Any) -> None:
        def write(target: Any) -> None:
            target[0], target[-1] = first, last

        first, last = array[0], array[-1]
        place(write)

    return put


def _put_all(scenario: Scenario, items: Iterable[Any], put: Callable[[Any], object], queue: Queue) -> None:
    for item in items:
        put(item)
    if scenario.consumers > 1:  # one None for each: every consumer takes as many as there are producers
        for _ in range(scenario.consumers):
            put(None)
            queue.flush()
    queue.flush()


def _produce(scenario: Scenario, producer: int, queue: Queue, barrier: Any, sent: Any) -> None:
    put = _putter(scenario, queue)
    for count, _ in _phases(scenario):
        items = _items(scenario, count, producer)
        with company(scenario.computing):
            barrier.wait(START_S)
            _put_all(scenario, items, put, queue)
            sent.release()


def _arrivals(scenario: Scenario, get: Callable[[], Any], count: int) -> Iterator[Any]:
    """Return an iterator over what one consumer gets: up to the number known, or up to a None of each producer."""
    if scenario.consumers == 1:
        return itertools.starmap(get, itertools.repeat((), count))
    return itertools.chain.from_iterable(iter(get, None) for _ in range(scenario.producers))


def _consume(scenario: Scenario, queue: Queue, barrier: Any, reports: Any) -> None:
    if scenario.batch:
        return _consume_batches(scenario, queue, barrier, reports)
    get, task_done = queue.getter(), queue.task_done()
    for sent, weigh in _phases(scenario):
        with company(scenario.computing):
            barrier.wait(START_S)
            count, total = 0, 0.0
            for item in _arrivals(scenario, get, sent):
                total += weigh(item)
                count += 1
                if task_done:
                    task_done()
            item = None
            if task_done and scenario.consumers > 1:
                for _ in range(scenario.producers):  # the Nones
                    task_done()
            reports.put((count, total))
    return None


def _consume_batches(scenario: Scenario, queue: Queue, barrier: Any, reports: Any) -> None:
    get, done = queue.many_getter(scenario.batch), queue.many_done()
    for sent, weigh in _phases(scenario):
        barrier.wait(START_S)
        count, total = 0, 0.0
        while count < sent:
            batch: Sequence[Any] = get()
            total += weigh(batch)
            count += len(batch)
            if done:
                done(len(batch))
        reports.put((count, total))


def stream(contender: Contender, scenario: Scenario) -> Outcome:
    """Send `n` items from producers to consumers, until they are finished; seconds per item."""
    queue = contender.make(scenario.demand())
    barrier = multiprocessing.Barrier(scenario.producers + scenario.consumers)
    sent = multiprocessing.Semaphore(0)
    reports: Any = multiprocessing.SimpleQueue()
    seconds = 0.0
    with Team() as team:
        for producer in range(1, scenario.producers):
            team.start(_produce, scenario, producer, queue, barrier, sent)
        for _ in range(scenario.consumers):
            team.start(_consume, scenario, queue, barrier, reports)
        put, joins = _putter(scenario, queue), queue.task_done() is not None
        for count, weigh in _phases(scenario):
            items = _items(scenario, count, 0)
            with company(scenario.computing):
                barrier.wait(START_S)
                start = time.perf_counter()
                _put_all(scenario, items, put, queue)
                # Before the last put, join() could return because the consumers are the faster ones.
                for _ in range(1, scenario.producers):
                    sent.acquire()
                if joins:
                    queue.join()
                    seconds = time.perf_counter() - start
                arrived = [reports.get() for _ in range(scenario.consumers)]
                if not joins:
                    seconds = time.perf_counter() - start
            _check(scenario, count, weigh, arrived)
    queue.close()
    return Outcome({"per item": seconds / scenario.n})


def _check(scenario: Scenario, count: int, weigh: Weigh, arrived: list[tuple[int, float]]) -> None:
    shares = [_items(scenario, count, producer) for producer in range(scenario.producers)]
    expected = sum(weigh(item) for share in shares for item in share)
    verify(tuple(map(sum, zip(*arrived))), (count, expected))
