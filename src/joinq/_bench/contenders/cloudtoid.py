"""`cloudtoid_interprocess`: a ring of bytes in a file; a full one is refused, and tried again here."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any, Callable

from joinq._bench.contenders import (
    ALONE,
    ARRAY,
    BACKLOG,
    BATCHES,
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
from joinq._bench.contenders._bytes import ByteQueue, decoder, encoder, until

module = installed("cloudtoid_interprocess")

label = "cloudtoid"
package = "cloudtoid-interprocess"
can = frozenset(
    {OBJECT, BYTES, ARRAY, WRITERS, READERS, ALONE, BACKLOG, BATCHES, SLEEPS, REPLACES, ONE_BY_ONE},
)

_FRAME_BYTES = 64


class Cloudtoid(ByteQueue):
    """A name, and a directory for the file, in memory if there is such a one."""

    def __init__(self, demand: Demand) -> None:
        super().__init__(demand)
        memory = "/dev/shm"
        self._directory = tempfile.mkdtemp(prefix=f"{self.name}-", dir=memory if os.path.isdir(memory) else None)
        # Room for a power of two of bytes; and one end open as long as the queue is to last.
        size = 1 << (demand.room * (demand.item_bytes + _FRAME_BYTES)).bit_length()
        self._where = self.name, max(size, 1 << 16), self._directory
        self._anchor = module.Publisher(*self._where)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_anchor": None}

    def putter(self) -> Callable[[Any], object]:
        encode, try_send = encoder(self.demand.kind), module.Publisher(*self._where).try_send

        def put(item: Any) -> None:
            data = encode(item)
            if not try_send(data):
                until(lambda: try_send(data))

        return put

    def getter(self) -> Callable[[], Any]:
        decode, receive = decoder(self.demand.kind), module.Subscriber(*self._where).receive
        return lambda: decode(receive())

    def many_putter(self) -> Callable[[Sequence[Any]], object]:
        encode, send = encoder(self.demand.kind), module.Publisher(*self._where).try_send_batch

        def put_many(items: Sequence[Any]) -> None:
            batch = [encode(item) for item in items]
            while batch:
                del batch[: until(lambda: send(batch))]

        return put_many

    def many_getter(self, size: int) -> Callable[[], Sequence[Any]]:
        """Take what is there: it has no call for that, so one by one."""
        subscriber = module.Subscriber(*self._where)
        decode, receive, try_receive = decoder(self.demand.kind), subscriber.receive, subscriber.try_receive

        def get_many() -> list[Any]:
            batch = [decode(receive())]
            while len(batch) < size and (data := try_receive()) is not None:
                batch.append(decode(data))
            return batch

        return get_many

    def close(self) -> None:
        self._anchor.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def make(demand: Demand) -> Cloudtoid:
    """Create a queue."""
    return Cloudtoid(demand)
