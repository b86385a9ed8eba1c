"""`joinq.JoinableQueue`: as the stdlib's is used, with only the import changed; batches and arrays by its own API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import joinq
from joinq._bench.contenders import EVERYTHING, IN_PLACE, Demand, Native, Unavailable

label = "joinq"
package = "joinq"
can = EVERYTHING | {IN_PLACE}


class Joinq(Native):
    """A queue that serves processes of every start method."""

    def many_putter(self) -> Callable[[Sequence[Any]], object]:
        put_many: Callable[[Sequence[Any]], object] = _own(self.inner, "put_many")
        return put_many

    def many_getter(self, size: int) -> Callable[[], Sequence[Any]]:
        get_many = _own(self.inner, "get_many")
        return lambda: get_many(size)

    def many_done(self) -> Callable[[int], object]:
        task_done: Callable[[int], object] = self.inner.task_done
        return task_done

    def placer(self, length: int) -> Callable[[Callable[[Any], object]], object]:
        empty, put, queue = _own(joinq, "empty"), self.inner.put, self.inner

        def place(write: Callable[[Any], object]) -> None:
            array = empty(length, queue=queue)
            write(array)
            put(array)

        return place

    def close(self) -> None:
        """Detach this process, as a drop-in for the stdlib's queue is detached."""
        self.inner.close()
        self.inner.join_thread()


def _own(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        raise Unavailable(f"this version of joinq has no {name}()") from None


def make(demand: Demand) -> Joinq:
    """Create a queue."""
    return Joinq(joinq.JoinableQueue(demand.maxsize))
