"""`zeroq.Queue`: slots of one fixed size; shorter items are padded here, which pickle does not mind."""

from __future__ import annotations

from typing import Any, Callable

from joinq._bench.contenders import (
    ALONE,
    ARRAY,
    BACKLOG,
    BYTES,
    OBJECT,
    ONE_BY_ONE,
    READERS,
    REPLACES,
    SLEEPS,
    WRITERS,
    Demand,
    installed,
)
from joinq._bench.contenders._bytes import ByteQueue, decoder, encoder

module = installed("zeroq")

label = "zeroq"
package = "zeroq"
can = frozenset({OBJECT, BYTES, ARRAY, WRITERS, READERS, ALONE, BACKLOG, SLEEPS, REPLACES, ONE_BY_ONE})


class Zeroq(ByteQueue):
    """A segment of shared memory with a power of two of slots."""

    def __init__(self, demand: Demand) -> None:
        super().__init__(demand)
        self._anchor = module.Queue(self.name, demand.item_bytes, 1 << (demand.room - 1).bit_length())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_anchor": None}

    def putter(self) -> Callable[[Any], object]:
        put = module.Queue(self.name, create=False).put
        size, kind = self.demand.item_bytes, self.demand.kind
        if kind == ARRAY:
            return lambda array: put(array.tobytes())  # it takes bytes only
        encode = encoder(kind)
        return lambda item: put(encode(item).ljust(size))

    def getter(self) -> Callable[[], Any]:
        decode, get = decoder(self.demand.kind), module.Queue(self.name, create=False).get
        return lambda: decode(get())

    def close(self) -> None:
        self._anchor.close()


def make(demand: Demand) -> Zeroq:
    """Create a queue."""
    return Zeroq(demand)
