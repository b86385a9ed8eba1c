"""`multiprocessing.Pipe`: one writer, one reader, no locks; holds what fits into the pipe."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from typing import Any, Callable

from joinq._bench.contenders import ALONE, ARRAY, BYTES, OBJECT, ONE_BY_ONE, REPLACES, SLEEPS, Demand, Queue

label = "Pipe"
package = ""
can = frozenset({OBJECT, BYTES, ARRAY, ALONE, SLEEPS, REPLACES, ONE_BY_ONE})


class Pipe(Queue):
    """Both ends of a pipe; bytes go through as they are."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._reader, self._writer = multiprocessing.Pipe(duplex=False)

    def putter(self) -> Callable[[Any], object]:
        writer: Connection[Any, Any] = self._writer
        return writer.send_bytes if self._kind == BYTES else writer.send

    def getter(self) -> Callable[[], Any]:
        reader: Connection[Any, Any] = self._reader
        return reader.recv_bytes if self._kind == BYTES else reader.recv

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


def make(demand: Demand) -> Pipe:
    """Create a pipe."""
    return Pipe(demand.kind)
