"""
`kickmsg`: publish and subscribe; a slow subscriber misses messages, and no call says so beforehand.

So one writer and one reader, with flow control that is ours: the reader counts in a shared word what it has taken, and
the writer stays less than one ring ahead. That word is all that this adds.
"""

from __future__ import annotations

import multiprocessing.sharedctypes
from typing import Any, Callable

from joinq._bench.contenders import (
    ALONE,
    ARRAY,
    BACKLOG,
    BYTES,
    IN_PLACE,
    OBJECT,
    ONE_BY_ONE,
    SLEEPS,
    Demand,
    installed,
)
from joinq._bench.contenders._bytes import PULSE_S, ByteQueue, decoder, encoder, until

module = installed("kickmsg")

label = "kickmsg"
package = "kickmsg"
can = frozenset({OBJECT, BYTES, ARRAY, IN_PLACE, ALONE, BACKLOG, SLEEPS, ONE_BY_ONE})

_SPARE = 4  # slots of the pool that are being written or read


class Kickmsg(ByteQueue):
    """A region of shared memory: a pool of slots, of which a ring per subscriber refers to the last ones."""

    def __init__(self, demand: Demand) -> None:
        super().__init__(demand)
        self._ring = 1 << (demand.room - 1).bit_length()
        config = module.Config()
        config.max_subscribers = 1
        config.sub_ring_capacity = self._ring
        config.pool_size = self._ring + _SPARE
        config.max_payload_size = demand.item_bytes
        self._region = module.SharedRegion.create(f"/{self.name}", module.ChannelType.PubSub, config)
        self._taken = multiprocessing.sharedctypes.RawArray("Q", 1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_region": None}

    def _open(self) -> Any:
        return module.SharedRegion.open(f"/{self.name}")

    def _room(self) -> Callable[[], None]:
        """Return what waits until there is room for one item more."""
        taken, sent, most = memoryview(self._taken).cast("B").cast("Q"), 0, self._ring - 1

        def wait() -> None:
            nonlocal sent
            if sent - taken[0] >= most:
                until(lambda: sent - taken[0] < most)
            sent += 1

        return wait

    def putter(self) -> Callable[[Any], object]:
        if self.demand.kind == ARRAY:
            place = self.placer(self.demand.item_bytes // 8)
            return lambda array: place(lambda target: target.__setitem__(slice(None), array))
        encode, wait, send = encoder(self.demand.kind), self._room(), module.Publisher(self._open()).send

        def put(item: Any) -> None:
            wait()
            send(encode(item))

        return put

    def getter(self) -> Callable[[], Any]:
        decode, subscriber = decoder(self.demand.kind), module.Subscriber(self._open())
        receive = subscriber.receive_view if self.demand.kind == ARRAY else subscriber.receive
        taken = memoryview(self._taken).cast("B").cast("Q")

        def get() -> Any:
            while (data := receive(PULSE_S)) is None:
                pass
            taken[0] += 1
            return decode(data)

        return get

    def placer(self, length: int) -> Callable[[Callable[[Any], object]], object]:
        frombuffer = installed("numpy").frombuffer
        wait, publisher = self._room(), module.Publisher(self._open())

        def place(write: Callable[[Any], object]) -> None:
            wait()
            slot = publisher.allocate()
            write(frombuffer(slot, count=length))
            slot.publish(8 * length)

        return place

    def close(self) -> None:
        self._region.unlink()


def make(demand: Demand) -> Kickmsg:
    """Create a region."""
    return Kickmsg(demand)
