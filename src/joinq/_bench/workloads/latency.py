"""How long one item takes, and what waiting for one costs."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from typing import Any

from joinq._bench.contenders import Contender, Queue
from joinq._bench.scenario import Outcome, Scenario
from joinq._bench.workloads.team import START_S, WARM_UP, Team, verify

ASLEEP_S = 0.05
"""How long a reader waits before it is woken."""


def _echo(ping: Queue, pong: Queue, barrier: Any) -> None:
    get, put = ping.getter(), pong.putter()
    barrier.wait(START_S)
    while (item := get()) is not None:
        put(item)


def round_trip(contender: Contender, scenario: Scenario) -> Outcome:
    """Send an int to another process and wait for its echo, `n` times without a pause."""
    ping, pong = contender.make(scenario.demand()), contender.make(scenario.demand())
    barrier = multiprocessing.Barrier(2)
    latencies = []
    with Team() as team:
        team.start(_echo, ping, pong, barrier)
        get, put = pong.getter(), ping.putter()
        barrier.wait(START_S)
        for item in range(WARM_UP + scenario.n):
            start = time.perf_counter()
            put(item)
            echo = get()
            latencies.append(time.perf_counter() - start)
            verify(echo, item)
        put(None)
    ping.close()
    pong.close()
    ordered = sorted(latencies[WARM_UP:])
    return Outcome({"p50": ordered[scenario.n // 2], "p99": ordered[scenario.n * 99 // 100]})


def _sleeper(queue: Queue, barrier: Any, reports: Any) -> None:
    get, now = queue.getter(), time.perf_counter
    barrier.wait(START_S)
    while get() is not None:
        reports.send(now())


def wake(contender: Contender, scenario: Scenario) -> Outcome:
    """Put an int when the reader has slept for 50 ms, `n` times; seconds from before put() until get() is back."""
    queue = contender.make(scenario.demand())
    barrier = multiprocessing.Barrier(2)
    reports, theirs = multiprocessing.Pipe(duplex=False)
    latencies = []
    with Team() as team:
        team.start(_sleeper, queue, barrier, theirs)
        put = queue.putter()
        barrier.wait(START_S)
        for item in range(1 + scenario.n):
            time.sleep(ASLEEP_S)
            start = time.perf_counter()  # one clock for all processes
            put(item)
            latencies.append(reports.recv() - start)
        put(None)
    queue.close()
    return Outcome({"p50": statistics.median(latencies[1:])})


def _idle_get(queue: Queue, barrier: Any, reports: Any) -> None:
    get, task_done = queue.getter(), queue.task_done()
    barrier.wait(START_S)
    for _ in range(WARM_UP):
        get()
        if task_done:
            task_done()
    barrier.wait(START_S)
    before = time.process_time()  # of all threads of this process
    get()
    reports.put(("get", time.process_time() - before))


def _idle_join(queue: Queue, barrier: Any, reports: Any) -> None:
    barrier.wait(START_S)
    barrier.wait(START_S)
    before = time.process_time()
    queue.join()
    reports.put(("join", time.process_time() - before))


def idle(contender: Contender, scenario: Scenario) -> Outcome:
    """
    Leave a process blocked in `get()`, another in `join()`, for `n` seconds; shares of one core.

    The reader comes from a busy stream, so a queue that spins before it sleeps has learnt to.
    """
    empty, unfinished = contender.make(scenario.demand()), contender.make(scenario.demand())
    task_done = unfinished.task_done()
    waiting = 2 if task_done else 1
    barrier = multiprocessing.Barrier(1 + waiting)
    reports: Any = multiprocessing.SimpleQueue()
    with Team() as team:
        team.start(_idle_get, empty, barrier, reports)
        if task_done:
            team.start(_idle_join, unfinished, barrier, reports)
            unfinished.putter()(1)
        put = empty.putter()
        barrier.wait(START_S)
        for item in range(WARM_UP):
            put(item)
        barrier.wait(START_S)
        time.sleep(scenario.n)
        put(1)
        if task_done:
            unfinished.getter()()
            task_done()
        used = dict(reports.get() for _ in range(waiting))
    empty.close()
    unfinished.close()
    return Outcome({name: seconds / scenario.n for name, seconds in used.items()})
