"""
`py_sharedmemory`: a block of named shared memory per message, used again when its reader has acknowledged it.

For large messages, as it says itself; so it takes no part in what passes ints.
"""

from __future__ import annotations

from typing import Any, Callable

from joinq._bench.contenders import ARRAY, BYTES, ONE_BY_ONE, Demand, Queue, installed

module = installed("py_sharedmemory")

label = "py-sharedmemory"
package = "py-sharedmemory"
can = frozenset({BYTES, ARRAY, ONE_BY_ONE})


class PySharedmemory(Queue):
    """A sender and a receiver."""

    def __init__(self, demand: Demand) -> None:
        self._sender, self._receiver = module.create_shared_memory_pair(capacity=demand.room)

    def putter(self) -> Callable[[Any], object]:
        return self._sender.put  # type: ignore[no-any-return]

    def getter(self) -> Callable[[], Any]:
        return self._receiver.get  # type: ignore[no-any-return]


def make(demand: Demand) -> PySharedmemory:
    """Create a pair."""
    return PySharedmemory(demand)
