"""
The floors: what no queue of Python objects can go below on this machine.

They are rows beside the contenders, measured in the same run. Those in C need a compiler; without one they are
`Unavailable`, and the targets that refer to them are not checked.
"""

from __future__ import annotations

import pickle
import statistics
import time
from typing import Any

from joinq._bench.contenders import Unavailable
from joinq._bench.scenario import Outcome, Scenario

PICKLE, MEMCPY, PIPELINE, FRESH = "pickle", "memcpy", "pipeline", "fresh"
PING_PONG, WAKE = "ping_pong", "futex_wake"

LABELS = {
    PICKLE: "pickle alone",
    MEMCPY: "memcpy in + out",
    PIPELINE: "memcpy by two",
    FRESH: "memcpy out, fresh pages",
    PING_PONG: "ping-pong in C",
    WAKE: "futex wake in C",
}


def measure(name: str, scenario: Scenario) -> Outcome:
    """Measure a floor for a scenario; the name of the first metric stands for it."""
    metric = scenario.metrics[0].name
    if name == PICKLE:
        return Outcome({metric: _pickle_s(scenario)})
    floors = _floors()
    try:
        copying = {MEMCPY: floors.memcpy_s, PIPELINE: floors.memcpy_parallel_s, FRESH: floors.memcpy_fresh_s}
        if name in copying:
            return Outcome({metric: copying[name](scenario.item_bytes)})
        measured = floors.round_trip_s if name == PING_PONG else floors.wake_s
        return Outcome({metric: measured(scenario.n)})
    except floors.Unavailable as error:
        raise Unavailable(str(error)) from error


def _floors() -> Any:
    try:
        from joinq._bench import floors  # type: ignore[attr-defined,unused-ignore]
    except ImportError:
        raise Unavailable("the floors in C are not part of this installation") from None
    return floors


def _pickle_s(scenario: Scenario) -> float:
    """Return what it costs to make bytes of an int and an int of bytes; twice that for a round trip."""
    dumps, loads, protocol = pickle.dumps, pickle.loads, pickle.HIGHEST_PROTOCOL
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for item in range(scenario.n):
            loads(dumps(item, protocol))
        times.append(time.perf_counter() - start)
    return statistics.median(times) / scenario.n * max(1, 2 * scenario.consumers)
