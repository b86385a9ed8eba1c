"""What adapters of queues that carry bytes share: how items become bytes, how a full queue is waited for, and names."""

from __future__ import annotations

import itertools
import os
import pickle
import time
from typing import Any, Callable

from joinq._bench.contenders import ARRAY, OBJECT, Demand, Queue, installed

PREFIX = "joinq-bench-"
"""What names in shared memory begin with; the process group follows, by which the driver finds what is left."""

PULSE_S = 0.05
"""How long one call waits that has no way to wait for ever."""

_YIELDS, _PAUSE_S = 100, 50e-6
_numbers = itertools.count()


class ByteQueue(Queue):
    """A queue with a name, whose ends are opened by the processes that use them."""

    def __init__(self, demand: Demand) -> None:
        self.demand = demand
        self.name = f"{PREFIX}{os.getpgrp()}-{os.getpid()}-{next(_numbers)}"


def encoder(kind: str) -> Callable[[Any], Any]:
    """Return what makes an item one that can be read as bytes, without a copy where it already can."""
    return _dumps if kind == OBJECT else _as_it_is


def decoder(kind: str) -> Callable[[Any], Any]:
    """Return what makes an item of bytes: a view of them if it is an array."""
    if kind == ARRAY:
        frombuffer: Callable[[Any], Any] = installed("numpy").frombuffer
        return frombuffer
    return pickle.loads if kind == OBJECT else _as_it_is


def _dumps(item: Any) -> bytes:
    return pickle.dumps(item, pickle.HIGHEST_PROTOCOL)


def _as_it_is(item: Any) -> Any:
    return item


def until(attempt: Callable[[], Any]) -> Any:
    """Repeat an attempt until it is of use, first at once, then with pauses; return what it returned."""
    for _ in range(_YIELDS):
        result = attempt()
        if result:
            return result
        os.sched_yield()
    while not (result := attempt()):
        time.sleep(_PAUSE_S)
    return result
