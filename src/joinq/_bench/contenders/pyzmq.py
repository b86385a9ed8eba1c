"""pyzmq: PUSH and PULL over `ipc://`, a Unix socket; the writer binds, so that one of them may have several readers."""

from __future__ import annotations

import os
import tempfile
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
    Demand,
    installed,
)
from joinq._bench.contenders._bytes import ByteQueue, decoder, encoder

zmq = installed("zmq")

label = "pyzmq"
package = "pyzmq"
can = frozenset({OBJECT, BYTES, ARRAY, READERS, ALONE, BACKLOG, SLEEPS, REPLACES, ONE_BY_ONE})

_PATIENCE_MS = 1000


class Pyzmq(ByteQueue):
    """An address; a limit is applied at both ends, none is zmq's own way to say so."""

    def __init__(self, demand: Demand) -> None:
        super().__init__(demand)
        self._address = f"ipc://{os.path.join(tempfile.gettempdir(), self.name)}"
        self._sockets: list[Any] = []

    def _socket(self, kind: int) -> Any:
        socket = zmq.Context.instance().socket(kind)
        socket.set_hwm(self.demand.maxsize and max(1, self.demand.maxsize // 2))
        socket.linger, socket.reconnect_ivl = _PATIENCE_MS, 1
        self._sockets.append(socket)
        return socket

    def _bind(self, socket: Any) -> None:
        """Wait for all readers, too: before that, zmq would give everything to the first."""
        monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        socket.bind(self._address)
        for _ in range(self.demand.readers):
            monitor.recv_multipart()
        socket.disable_monitor()

    def putter(self) -> Callable[[Any], object]:
        socket = self._socket(zmq.PUSH)
        self._bind(socket)
        encode, send = encoder(self.demand.kind), socket.send
        if self.demand.kind == ARRAY:
            return lambda array: send(array, copy=False)
        return lambda item: send(encode(item))

    def getter(self) -> Callable[[], Any]:
        socket = self._socket(zmq.PULL)
        socket.connect(self._address)
        decode, receive = decoder(self.demand.kind), socket.recv
        if self.demand.kind == ARRAY:
            return lambda: decode(receive(copy=False))
        return lambda: decode(receive())

    def close(self) -> None:
        for socket in self._sockets:
            socket.close()


def make(demand: Demand) -> Pyzmq:
    """Choose an address."""
    return Pyzmq(demand)
