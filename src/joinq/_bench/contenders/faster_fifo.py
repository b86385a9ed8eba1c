"""`faster_fifo.Queue`: a ring of bytes with a mutex and two condition variables; pickles, and has its own batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from joinq._bench.contenders import EVERYTHING, Demand, Native, installed

module = installed("faster_fifo")

label = "faster-fifo"
package = "faster-fifo"
can = EVERYTHING

_FOREVER_S = 1e6  # its default is 10 s
_FRAME_BYTES = 64  # of each item: its length, and what pickling adds


class FasterFifo(Native):
    """A queue whose calls wait as long as the stdlib's do."""

    def putter(self) -> Callable[[Any], object]:
        put = self.inner.put
        return lambda item: put(item, True, _FOREVER_S)

    def getter(self) -> Callable[[], Any]:
        get = self.inner.get
        return lambda: get(True, _FOREVER_S)

    def many_putter(self) -> Callable[[Sequence[Any]], object]:
        put_many = self.inner.put_many
        return lambda items: put_many(items, True, _FOREVER_S)

    def many_getter(self, size: int) -> Callable[[], Sequence[Any]]:
        get_many = self.inner.get_many
        return lambda: get_many(True, _FOREVER_S, size)

    def close(self) -> None:
        self.inner.close()


def make(demand: Demand) -> FasterFifo:
    """Create a queue with room for so many bytes."""
    return FasterFifo(module.Queue(max(1 << 20, demand.room * (demand.item_bytes + _FRAME_BYTES))))
