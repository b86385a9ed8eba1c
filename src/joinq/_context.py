"""A multiprocessing context whose queues are ours."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext
from typing import Any

from joinq._queue import JoinableQueue, Queue, SimpleQueue, check_on_death

__all__ = ["get_context"]


class _Queues:
    """What the contexts of the stdlib are given instead of their own."""

    on_death: str
    max_deliveries: int

    def Queue(self, maxsize: int = 0) -> Queue:
        """A `joinq.Queue`."""
        return Queue(maxsize, ctx=self)

    def JoinableQueue(self, maxsize: int = 0) -> JoinableQueue:
        """A `joinq.JoinableQueue` with the context's on_death and max_deliveries."""
        return JoinableQueue(maxsize, on_death=self.on_death, max_deliveries=self.max_deliveries, ctx=self)

    def SimpleQueue(self) -> SimpleQueue:
        """A `joinq.SimpleQueue`."""
        return SimpleQueue(ctx=self)


def get_context(method: str | None = None, *, on_death: str = "raise", max_deliveries: int = 3) -> BaseContext:
    """Gives `multiprocessing.get_context(method)` with Queue, JoinableQueue and SimpleQueue of joinq.

    Args:
        method: "fork", "spawn", "forkserver"; None is the default method.
        on_death, max_deliveries: of the JoinableQueues that the context makes.

    Raises:
        ValueError: the system has no such start method, or an argument is not allowed.
        TypeError: max_deliveries is not an integer.
    """
    check_on_death(on_death, max_deliveries)
    kind: Any = type(multiprocessing.get_context(method))
    context: BaseContext = type(
        kind.__name__, (_Queues, kind), {"on_death": on_death, "max_deliveries": max_deliveries}
    )()
    return context
