"""`quick_queue.QQueue`: a `multiprocessing.Queue` of lists, which put() fills and get() empties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from joinq._bench.contenders import BACKLOG, BATCHES, OBJECT, READERS, SLEEPS, WRITERS, Demand, Queue, installed

module = installed("quick_queue")

label = "quick-queue (lists)"
package = "quick-queue"
can = frozenset({OBJECT, WRITERS, READERS, BACKLOG, BATCHES, SLEEPS})

_BUCKET = 1000
"""Items per list. Its documentation says to try: the sensor that is its default was slower."""


class QuickQueue(Queue):
    """The queue, and the list that it is filling."""

    def __init__(self, demand: Demand) -> None:
        self._options = {"maxsize": 0 if demand.backlog else 1000, "size_bucket_list": _BUCKET}
        self._prompt = demand.prompt
        self._inner = module.QQueue(**self._options)

    def putter(self) -> Callable[[Any], object]:
        self._inner.init(**self._options)  # in each process that puts
        put, flush = self._inner.put, self._inner.put_remain
        if not self._prompt:
            return put  # type: ignore[no-any-return]

        def put_at_once(item: Any) -> None:
            put(item)
            flush()

        return put_at_once

    def getter(self) -> Callable[[], Any]:
        return self._inner.get  # type: ignore[no-any-return]

    def flush(self) -> None:
        self._inner.put_remain()

    def many_putter(self) -> Callable[[Sequence[Any]], object]:
        return self._inner.put_bucket  # type: ignore[no-any-return]

    def many_getter(self, size: int) -> Callable[[], Sequence[Any]]:
        return self._inner.get_bucket  # type: ignore[no-any-return]

    def close(self) -> None:
        self._inner.close()
        self._inner.join_thread()


def make(demand: Demand) -> QuickQueue:
    """Create a queue."""
    return QuickQueue(demand)
