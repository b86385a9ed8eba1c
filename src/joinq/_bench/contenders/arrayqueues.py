"""`arrayqueues.ArrayQueue`: a ring of arrays of one shape, and two `multiprocessing.Queue`s beside it."""

from __future__ import annotations

from queue import Full
from typing import Any, Callable

from joinq._bench.contenders import ALONE, ARRAY, ONE_BY_ONE, SLEEPS, Demand, Native, installed
from joinq._bench.contenders._bytes import until

numpy = installed("numpy")
module = installed("arrayqueues.shared_arrays")

label = "arrayqueues"
package = "arrayqueues"
can = frozenset({ARRAY, ALONE, SLEEPS, ONE_BY_ONE})

if not hasattr(numpy, "product"):
    numpy.product = numpy.prod  # it was written for NumPy 1


class Arrayqueues(Native):
    """A queue whose put() waits for room."""

    def putter(self) -> Callable[[Any], object]:
        put = self.inner.put

        def attempt(array: Any) -> bool:
            try:
                put(array)
            except Full:
                return False
            return True

        return lambda array: attempt(array) or until(lambda: attempt(array))


def make(demand: Demand) -> Arrayqueues:
    """Create a queue of so many megabytes, one array more than it has to hold."""
    return Arrayqueues(module.ArrayQueue((demand.room + 1) * demand.item_bytes / 1e6))
