"""No queue: the stdlib's semaphore, which wakes a process and brings nothing. What waking costs in Python at least."""

from __future__ import annotations

import multiprocessing
from multiprocessing.sharedctypes import RawValue
from typing import Any, Callable

from joinq._bench.contenders import OBJECT, SLEEPS, Demand, Queue

label = "Semaphore, no item"
package = ""
can = frozenset({OBJECT, SLEEPS})


class Semaphore(Queue):
    """Tells of items without bringing them: what is got is a number, or the None at the end."""

    def __init__(self) -> None:
        self._semaphore = multiprocessing.Semaphore(0)
        self._ended = RawValue("b", 0)

    def putter(self) -> Callable[[Any], object]:
        release = self._semaphore.release

        def put(item: Any) -> None:
            if item is None:
                self._ended.value = 1
            release()

        return put

    def getter(self) -> Callable[[], Any]:
        acquire = self._semaphore.acquire

        def get() -> int | None:
            acquire()
            return None if self._ended.value else 0

        return get


def make(demand: Demand) -> Semaphore:
    """Create one."""
    return Semaphore()
