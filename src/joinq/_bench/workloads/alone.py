"""One process does everything: the cycle of one item after the other, a backlog, queues made and thrown away."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from joinq._bench.contenders import Contender, Queue, Unavailable
from joinq._bench.scenario import Outcome, Scenario
from joinq._bench.workloads.team import WARM_UP, verify

WARM_UP_ARRAYS = 3


def cycle(contender: Contender, scenario: Scenario) -> Outcome:
    """Put, get and finish one int after the other; `n` items."""
    queue = contender.make(scenario.demand())
    get, put, task_done = queue.getter(), queue.putter(), queue.task_done()
    seconds = 0.0
    for count in (WARM_UP, scenario.n):
        total = 0
        start = time.perf_counter()
        for item in range(count):
            put(item)
            total += get()
            if task_done:
                task_done()
        _join(queue)
        seconds = time.perf_counter() - start
        verify(total, count * (count - 1) // 2)
    queue.close()
    return Outcome({"per item": seconds / scenario.n})


def hand_over(contender: Contender, scenario: Scenario) -> Outcome:
    """Make an array in the memory of the queue, put it and get it, `n` times; seconds for put() and get() together."""
    queue = contender.make(scenario.demand())
    get, place, task_done = queue.getter(), queue.placer(scenario.item_bytes // 8), queue.task_done()
    began, latencies = 0.0, []

    def write(array: Any) -> None:
        nonlocal began
        array[0], array[-1] = number, -number
        began = time.perf_counter()

    for number in range(scenario.n + WARM_UP_ARRAYS):
        place(write)
        array = get()
        latencies.append(time.perf_counter() - began)
        verify((array.nbytes, array[0], array[-1]), (scenario.item_bytes, number, -number))
        if task_done:
            task_done()
        del array
    queue.close()
    return Outcome({"p50": statistics.median(latencies[WARM_UP_ARRAYS:])})


def backlog(contender: Contender, scenario: Scenario) -> Outcome:
    """Put `n` ints with nobody reading, then drain them; seconds per item, and bytes per item of memory in use."""
    before, full, seconds = _memory_bytes(), 0, 0.0
    queue = contender.make(scenario.demand())
    get, put, task_done = queue.getter(), queue.putter(), queue.task_done()
    for count in (WARM_UP, scenario.n):
        total = 0
        start = time.perf_counter()
        for item in range(count):
            put(item)
        queue.flush()
        looked = time.perf_counter()
        full = _memory_bytes()
        start += time.perf_counter() - looked
        for _ in range(count):
            total += get()
            if task_done:
                task_done()
        _join(queue)
        seconds = time.perf_counter() - start
        verify(total, count * (count - 1) // 2)
    left = _memory_bytes()
    queue.close()
    per_item = {"per item": seconds, "memory while full": full - before, "memory after": left - before}
    return Outcome({name: max(0, figure) / scenario.n for name, figure in per_item.items()})


def creation(contender: Contender, scenario: Scenario) -> Outcome:
    """Create `n` queues, and open both ends, one after the other, and send the first item through each."""
    create, first = [], []
    for _ in range(1 + scenario.n):
        start = time.perf_counter()
        queue = contender.make(scenario.demand())
        get, put = queue.getter(), queue.putter()
        created = time.perf_counter()
        put(1)
        item = get()
        first.append(time.perf_counter() - created)
        create.append(created - start)
        verify(item, 1)
        if task_done := queue.task_done():
            task_done()
        queue.close()
        del queue, get, put, task_done  # its memory goes back outside the measured span
    return Outcome({"create": statistics.median(create[1:]), "first item": statistics.median(first[1:])})


def _join(queue: Queue) -> None:
    if queue.task_done():
        queue.join()


def _memory_bytes() -> int:
    """Return the memory of this process; of what it shares its part, so that nothing counts twice."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    raise Unavailable("the kernel does not tell how much memory is in use")
