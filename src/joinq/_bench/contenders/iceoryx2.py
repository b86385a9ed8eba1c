"""
`iceoryx2`: publish and subscribe with one of each, no message dropped; what arrives is a view of shared memory.

Its receive() does not wait. A reader here asks again and again without a pause, which is its fastest way.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from typing import Any, Callable

from joinq._bench.contenders import ALONE, ARRAY, BYTES, IN_PLACE, OBJECT, ONE_BY_ONE, REPLACES, Demand, installed
from joinq._bench.contenders._bytes import PREFIX, ByteQueue, decoder, encoder

module = installed("iceoryx2")

label = "iceoryx2"
package = "iceoryx2"
can = frozenset({OBJECT, BYTES, ARRAY, IN_PLACE, ALONE, REPLACES, ONE_BY_ONE})

_MOST = 1024  # items in a subscriber's buffer
_MOST_ENDS = 16  # those that were killed count until it notices


class Iceoryx2(ByteQueue):
    """The name of a service."""

    def _service(self) -> Any:
        self._room = min(self.demand.room, _MOST)
        module.set_log_level(module.LogLevel.Fatal)
        config = module.config.default()
        config.global_cfg.prefix = module.FileName.new(f"{PREFIX}{os.getpgrp()}-")
        config.global_cfg.root_path = module.Path.new(tempfile.gettempdir())
        node = module.NodeBuilder.new().config(config).create(module.ServiceType.Ipc)
        name = module.ServiceName.new(self.name)
        return (
            node.service_builder(name)
            .publish_subscribe(module.Slice[ctypes.c_uint8])
            .payload_alignment(module.Alignment.new(8))
            .enable_safe_overflow(False)
            .subscriber_max_buffer_size(self._room)
            .subscriber_max_borrowed_samples(2)
            .max_publishers(_MOST_ENDS)
            .max_subscribers(_MOST_ENDS)
            .open_or_create()
        )

    def _placer(self) -> Callable[[int, Callable[[int], object]], object]:
        """Return what loans memory of some size, has a function fill it, given the address, and sends it."""
        publisher = (
            self._service()
            .publisher_builder()
            .initial_max_slice_len(self.demand.item_bytes)
            .backpressure_strategy(module.BackpressureStrategy.RetryUntilDelivered)
            .create()
        )

        def place(size: int, fill: Callable[[int], object]) -> None:
            sample = publisher.loan_slice_uninit(size)
            fill(sample.payload_ptr)
            sample.assume_init().send()

        return place

    def putter(self) -> Callable[[Any], object]:
        place, move = self._placer(), ctypes.memmove
        if self.demand.kind == ARRAY:
            return lambda array: place(array.nbytes, lambda address: move(address, array.ctypes.data, array.nbytes))
        encode = encoder(self.demand.kind)

        def put(item: Any) -> None:
            data = encode(item)
            place(len(data), lambda address: move(address, data, len(data)))

        return put

    def getter(self) -> Callable[[], Any]:
        receive = self._service().subscriber_builder().buffer_size(self._room).create().receive
        if self.demand.kind == ARRAY:
            decode = decoder(ARRAY)

            def get_array() -> Any:
                sample = receive() or _spin(receive)
                payload = sample.payload()
                array = (ctypes.c_uint8 * payload.len()).from_address(payload.as_ptr())
                array.sample = sample  # as long as there is a view of it
                return decode(array)

            return get_array
        decode = decoder(self.demand.kind)

        def get() -> Any:
            sample = receive() or _spin(receive)
            payload = sample.payload()
            return decode(ctypes.string_at(payload.as_ptr(), payload.len()))

        return get

    def placer(self, length: int) -> Callable[[Callable[[Any], object]], object]:
        place, decode = self._placer(), decoder(ARRAY)
        kind = ctypes.c_double * length
        return lambda write: place(8 * length, lambda address: write(decode(kind.from_address(address))))


def _spin(attempt: Callable[[], Any]) -> Any:
    while not (result := attempt()):
        os.sched_yield()
    return result


def make(demand: Demand) -> Iceoryx2:
    """Choose a name."""
    return Iceoryx2(demand)
