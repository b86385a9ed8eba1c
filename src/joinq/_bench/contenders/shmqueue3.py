"""`shmqueue3`: a pool of C structures in shared memory; arrays are copied into one and read where they lie."""

from __future__ import annotations

from typing import Any, Callable

from joinq._bench.contenders import ALONE, ARRAY, IN_PLACE, ONE_BY_ONE, SLEEPS, Demand, Queue, installed

module = installed("shmqueue3")

label = "shmqueue3"
package = "shmqueue3"
can = frozenset({ARRAY, IN_PLACE, ALONE, SLEEPS, ONE_BY_ONE})


class Shmqueue3(Queue):
    """A pool with two elements more than the queue holds: one for each end to work on."""

    def __init__(self, demand: Demand) -> None:
        self._pool = module.ShmPool(elem_size=demand.item_bytes, size=demand.room + 2)
        self._queue = module.ShmQueue(self._pool, demand.room)

    def putter(self) -> Callable[[Any], object]:
        place = self.placer(0)
        return lambda array: place(lambda target: target.__setitem__(slice(None), array))

    def getter(self) -> Callable[[], Any]:
        frombuffer, take, element = installed("numpy").frombuffer, self._queue.take, module.ShmElem()

        def get() -> Any:
            element.free_if_valid()  # the one before
            return frombuffer(take(element).contents())

        return get

    def placer(self, length: int) -> Callable[[Callable[[Any], object]], object]:
        frombuffer, allocate, put = installed("numpy").frombuffer, self._pool.allocate, self._queue.put

        def place(write: Callable[[Any], object]) -> None:
            element = allocate()
            write(frombuffer(element.contents()))
            put(element)

        return place


def make(demand: Demand) -> Shmqueue3:
    """Create a pool and a queue."""
    return Shmqueue3(demand)
