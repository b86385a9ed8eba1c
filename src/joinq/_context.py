"""A multiprocessing context whose queues are ours."""

from __future__ import annotations

import functools
import multiprocessing
import operator
from multiprocessing.context import BaseContext
from typing import Any

from joinq._queue import JoinableQueue, Queue, SimpleQueue, check_on_death

__all__ = ["get_context"]


class _Queues:
    """What the contexts of the stdlib are given instead of their own."""

    _name: str
    on_death: str
    max_deliveries: int

    def get_context(self, method: str | None = None) -> BaseContext:
        """Another context of the same kind; this one without a method."""
        return _context(method or self._name, self.on_death, self.max_deliveries)

    def __reduce__(self) -> Any:
        return _context, (self._name, self.on_death, self.max_deliveries)

    def Queue(self, maxsize: int = 0, *, name: str | None = None) -> Queue:
        """A `joinq.Queue`."""
        return Queue(maxsize, name=name, ctx=self)

    def JoinableQueue(self, maxsize: int = 0, *, name: str | None = None) -> JoinableQueue:
        """A `joinq.JoinableQueue` with the context's on_death and max_deliveries."""
        return JoinableQueue(maxsize, on_death=self.on_death, max_deliveries=self.max_deliveries, name=name, ctx=self)

    def SimpleQueue(self, *, name: str | None = None) -> SimpleQueue:
        """A `joinq.SimpleQueue`."""
        return SimpleQueue(name=name, ctx=self)


def get_context(method: str | None = None, *, on_death: str = "raise", max_deliveries: int = 3) -> BaseContext:
    """Gives `multiprocessing.get_context(method)` with Queue, JoinableQueue and SimpleQueue of joinq.

    The rest, such as Process, Pool, Manager and Lock, is the stdlib's. Like the stdlib's contexts it is a
    `multiprocessing.context.BaseContext`, can be pickled, and is the same object at each call.

    Args:
        method: "fork", "spawn", "forkserver"; None is the default method, as it is now.
        on_death, max_deliveries: of the JoinableQueues that the context makes.

    Raises:
        ValueError: the system has no such start method, or an argument is not allowed.
        TypeError: max_deliveries is not an integer.
    """
    check_on_death(on_death, max_deliveries)
    return _context(multiprocessing.get_context(method).get_start_method(), on_death, operator.index(max_deliveries))


@functools.cache
def _context(method: str, on_death: str, max_deliveries: int) -> BaseContext:
    kind: Any = type(multiprocessing.get_context(method))
    options = {"on_death": on_death, "max_deliveries": max_deliveries}
    context: BaseContext = type(kind.__name__, (_Queues, kind), options)()
    return context
