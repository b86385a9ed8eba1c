"""
What is measured: every scenario runs in a fresh process and returns figures per item.

All contenders run the same code here. Processes are started and warmed up first; the clock runs
from a barrier to the end of `join()`. What arrives is counted and summed up, so that nobody is
fast by losing items. The garbage collector stays on, as in the programs that people run.
"""

from __future__ import annotations

import itertools
import multiprocessing
import operator
import os
import signal
import statistics
import sys
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Callable

from contenders import Contender, Joinable

WARM_UP = 500
WARM_UP_BYTES = 64 << 20
"""
What passes at most before the clock starts: feeder threads run, pages are touched, spins learnt.
"""

START_S = 60.0
"""How long processes may take to reach a barrier."""


@dataclass(frozen=True)
class Metric:
    """
    One figure of a scenario, with the target that our queue has to reach.

    Attributes:
        name: Unique within the scenario.
        faster: How many times the stdlib's queue must be slower. 1: ours is not the slower one.
        at_most: An upper bound that stands in place of the ratio; the figure is then a share of
            one core. Otherwise it is in seconds.
    """

    name: str = "per item"
    faster: float = 1.0
    at_most: float | None = None


@dataclass(frozen=True)
class Scenario:
    """
    One workload.

    Attributes:
        name: What tables show and `--only` selects by.
        run: Measures one contender, in a process that did nothing else before.
        n: Items, round trips, queues or seconds; `run` says which.
        metrics: The figures that `run` returns, by name.
        producers: Processes that put; the measuring process is the first of them.
        consumers: Processes that get; 0: one process does both.
        payload_bytes: Size of each item; 0: the items are small ints.
        maxsize: Of the queue, in items.
        rounds: Fresh processes for each contender.
    """

    name: str
    run: Callable[[Contender, Scenario], dict[str, float]]
    n: int
    metrics: tuple[Metric, ...] = (Metric(),)
    producers: int = 1
    consumers: int = 1
    payload_bytes: int = 0
    maxsize: int = 0
    rounds: int = 5

    def quick(self) -> Scenario:
        """Return the same workload with a tenth of the items, for a first look."""
        return replace(self, n=max(1, self.n // 10), rounds=min(3, self.rounds))


class Team:
    """
    The worker processes of one measurement.

    A worker that fails would leave the others waiting for ever. So the first failure ends the
    measuring process, and the driver has all others print where they stand. On leaving, every
    worker must have ended well.
    """

    def __init__(self) -> None:
        self._workers: list[multiprocessing.Process] = []

    def __enter__(self) -> Team:
        signal.signal(signal.SIGCHLD, self._exit_if_one_failed)
        return self

    def start(self, target: Callable[..., None], *args: Any) -> None:
        """Start a worker by the default start method."""
        worker = multiprocessing.Process(target=target, args=args, daemon=True)
        worker.start()
        self._workers.append(worker)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            for worker in self._workers:
                worker.join()
            verify([worker.exitcode for worker in self._workers], [0] * len(self._workers))
        # From here on daemons are terminated, and that is no failure.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _exit_if_one_failed(self, *_: object) -> None:
        failed = [worker for worker in self._workers if worker.exitcode]
        if failed:
            print(f"failed: {failed}", file=sys.stderr, flush=True)
            os._exit(1)


def verify(found: object, expected: object) -> None:
    """Refuse a figure that was reached by losing or changing items."""
    if found != expected:
        raise RuntimeError(f"found {found}, expected {expected}")


def cycle(contender: Contender, scenario: Scenario) -> dict[str, float]:
    """Put, get and finish one int after the other in one process; `n` items."""
    queue = contender.make(scenario.maxsize)
    put, get, task_done = queue.put, queue.get, queue.task_done
    seconds = 0.0
    for count in (WARM_UP, scenario.n):
        total = 0
        start = time.perf_counter()
        for item in range(count):
            put(item)
            total += get()
            task_done()
        queue.join()
        seconds = time.perf_counter() - start
        verify(total, count * (count - 1) // 2)
    return {"per item": seconds / scenario.n}


def backlog(contender: Contender, scenario: Scenario) -> dict[str, float]:
    """Put `n` ints with nobody reading, then drain them in the same process."""
    queue = contender.make(scenario.maxsize)
    put, get, task_done = queue.put, queue.get, queue.task_done
    seconds = 0.0
    for count in (WARM_UP, scenario.n):
        total = 0
        start = time.perf_counter()
        for item in range(count):
            put(item)
        for _ in range(count):
            total += get()
            task_done()
        queue.join()
        seconds = time.perf_counter() - start
        verify(total, count * (count - 1) // 2)
    return {"per item": seconds / scenario.n}


def _weigh(payload: bytes) -> int:
    return len(payload) + payload[0] + payload[-1]


def _phases(scenario: Scenario) -> tuple[tuple[int, Callable[[Any], int]], ...]:
    """
    Return how many items the warm-up and the timed phase move, and how each item is summed up.

    The warm-up reads every byte of a payload. The timed phase must not: walking through 4 MiB
    costs as much as moving them.
    """
    if not scenario.payload_bytes:
        return (WARM_UP, operator.index), (scenario.n, operator.index)
    warm_up = min(WARM_UP, scenario.n, WARM_UP_BYTES // scenario.payload_bytes)
    return (warm_up, zlib.crc32), (scenario.n, _weigh)


def _items(scenario: Scenario, count: int, producer: int) -> Iterable[Any]:
    """Return the items that one of the producers sends when they send `count` together."""
    share = range(producer, count, scenario.producers)
    if not scenario.payload_bytes:
        return share
    # A few payloads, made beforehand: creating bytes is no part of a queue's work. First and
    # last byte tell them apart.
    filler = bytes(range(256)) * (scenario.payload_bytes // 256)
    pool = [bytes([i]) + filler[1:-1] + bytes([255 - 3 * i]) for i in range(4)]
    return list(itertools.islice(itertools.cycle(pool), len(share)))


def _produce(scenario: Scenario, producer: int, queue: Joinable, barrier: Any, sent: Any) -> None:
    put = queue.put
    for count, _ in _phases(scenario):
        items = _items(scenario, count, producer)
        barrier.wait(START_S)
        for item in items:
            put(item)
        sent.release()


def _consume(scenario: Scenario, queue: Joinable, barrier: Any, reports: Any) -> None:
    get, task_done = queue.get, queue.task_done
    for _, weigh in _phases(scenario):
        barrier.wait(START_S)
        count = total = 0
        while (item := get()) is not None:
            total += weigh(item)
            count += 1
            task_done()
        task_done()
        reports.put((count, total))


def stream(contender: Contender, scenario: Scenario) -> dict[str, float]:
    """Send `n` items from producers to consumers, until `join()` returns."""
    queue = contender.make(scenario.maxsize)
    barrier = multiprocessing.Barrier(scenario.producers + scenario.consumers)
    sent = multiprocessing.Semaphore(0)
    reports: Any = multiprocessing.SimpleQueue()
    put, seconds = queue.put, 0.0
    with Team() as team:
        for producer in range(1, scenario.producers):
            team.start(_produce, scenario, producer, queue, barrier, sent)
        for _ in range(scenario.consumers):
            team.start(_consume, scenario, queue, barrier, reports)
        for count, weigh in _phases(scenario):
            items = _items(scenario, count, 0)
            barrier.wait(START_S)
            start = time.perf_counter()
            for item in items:
                put(item)
            # Before the last put, join() could return because the consumers are the faster ones.
            for _ in range(1, scenario.producers):
                sent.acquire()
            queue.join()
            seconds = time.perf_counter() - start
            for _ in range(scenario.consumers):
                put(None)
            arrived = [reports.get() for _ in range(scenario.consumers)]
            shares = [_items(scenario, count, p) for p in range(scenario.producers)]
            expected = sum(weigh(item) for share in shares for item in share)
            verify(tuple(map(sum, zip(*arrived))), (count, expected))
    return {"per item": seconds / scenario.n}


def _echo(ping: Joinable, pong: Joinable) -> None:
    while (item := ping.get()) is not None:
        pong.put(item)


def round_trip(contender: Contender, scenario: Scenario) -> dict[str, float]:
    """Send an int to another process and wait for its echo, `n` times without a pause."""
    ping, pong = contender.make(scenario.maxsize), contender.make(scenario.maxsize)
    latencies = []
    with Team() as team:
        team.start(_echo, ping, pong)
        for item in range(WARM_UP + scenario.n):
            start = time.perf_counter()
            ping.put(item)
            echo = pong.get()
            latencies.append(time.perf_counter() - start)
            verify(echo, item)
        ping.put(None)
    percentiles = statistics.quantiles(latencies[WARM_UP:], n=100)
    return {"p50": percentiles[49], "p99": percentiles[98]}


def creation(contender: Contender, scenario: Scenario) -> dict[str, float]:
    """Create `n` queues one after the other and send the first item through each."""
    create, first = [], []
    for _ in range(1 + scenario.n):
        start = time.perf_counter()
        queue = contender.make(scenario.maxsize)
        created = time.perf_counter()
        queue.put(1)
        item = queue.get()
        first.append(time.perf_counter() - created)
        create.append(created - start)
        verify(item, 1)
        queue.task_done()
        contender.close(queue)
        del queue  # its memory goes back outside the measured span
    return {"create": statistics.median(create[1:]), "first item": statistics.median(first[1:])}


def _idle_get(queue: Joinable, barrier: Any, reports: Any) -> None:
    for _ in range(WARM_UP):
        queue.get()
        queue.task_done()
    barrier.wait(START_S)
    before = time.process_time()  # of all threads of this process
    queue.get()
    reports.put(("get", time.process_time() - before))


def _idle_join(queue: Joinable, barrier: Any, reports: Any) -> None:
    barrier.wait(START_S)
    before = time.process_time()
    queue.join()
    reports.put(("join", time.process_time() - before))


def idle(contender: Contender, scenario: Scenario) -> dict[str, float]:
    """
    Leave a process blocked in `get()`, another in `join()`, for `n` seconds.

    The reader comes from a busy stream, so a queue that spins before it sleeps has learnt to.
    """
    empty, unfinished = contender.make(scenario.maxsize), contender.make(scenario.maxsize)
    barrier = multiprocessing.Barrier(3)
    reports: Any = multiprocessing.SimpleQueue()
    with Team() as team:
        team.start(_idle_get, empty, barrier, reports)
        team.start(_idle_join, unfinished, barrier, reports)
        unfinished.put(1)
        for item in range(WARM_UP):
            empty.put(item)
        barrier.wait(START_S)
        time.sleep(scenario.n)
        empty.put(1)
        unfinished.get()
        unfinished.task_done()
        used = dict([reports.get(), reports.get()])
    return {name: seconds / scenario.n for name, seconds in used.items()}


def _payload(label: str, size: int, n: int, maxsize: int = 0) -> Scenario:
    return Scenario(f"bytes {label}", stream, n, payload_bytes=size, maxsize=maxsize)


SCENARIOS = (
    Scenario("put+get+task_done", cycle, 20_000, (Metric(faster=30),), consumers=0),
    Scenario("stream 1x1", stream, 200_000, (Metric(faster=6),)),
    Scenario("stream 2x2", stream, 200_000, producers=2, consumers=2),
    Scenario("stream 1x8", stream, 200_000, consumers=8),
    Scenario("round trip", round_trip, 5_000, (Metric("p50", faster=15), Metric("p99"))),
    _payload("1 KiB", 1 << 10, 100_000),
    _payload("64 KiB", 64 << 10, 10_000),
    _payload("4 MiB", 4 << 20, 200),
    _payload("4 MiB bounded", 4 << 20, 200, maxsize=4),
    Scenario("backlog", backlog, 1_000_000, consumers=0, rounds=3),
    Scenario("creation", creation, 200, (Metric("create"), Metric("first item")), consumers=0),
    Scenario("idle", idle, 10, (Metric("get", at_most=0.001), Metric("join", at_most=0.001)), rounds=2),
)
