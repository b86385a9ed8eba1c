"""on_death="redeliver": the tasks that a thread has taken and not finished, and those that were given up."""

from __future__ import annotations

import operator
import os
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from joinq._native import EMPTY, INTERRUPTED, NOT_OURS, ON_DEATH, error, ffi, lib, load
from joinq._payload import assemble, loads
from joinq._transit import held_arrivals, say_arrived

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from joinq._jnq import CData, Loan, Port
    from joinq._transit import Ticket

__all__ = ["DeadLetter", "Lease", "Leases", "dead_letters", "give_back_lease", "give_back_leases", "leases_of"]


Lease = tuple[int, int]
"""A task in hand, as the core names it: lease, number."""


class Leases(threading.local):
    """What each thread has taken, oldest first."""

    def __init__(self) -> None:
        self.mine: deque[Lease] = deque()
        self._under_way: dict[Lease, list[Ticket]] = {}

    def load(self, port: Port, loan: Loan, batch: Sequence[Loan]) -> Any:
        """Unpickles a task that comes after those of the batch.

        Queues in it stay under way until it is finished: it may have to be delivered again.
        """
        lease = loan.lease
        with held_arrivals() as tickets:
            item = port.load(loan)
        if tickets:
            held = {*self.mine, *(other.lease for other in batch)}
            self._under_way = {mine: under_way for mine, under_way in list(self._under_way.items()) if mine in held}
            self._under_way[lease] = tickets
        return item

    def finish_oldest(self, handle: CData, n: int) -> None:
        """Reports the calling thread's n oldest tasks done.

        Raises:
            ValueError: it has not so many.
            TypeError: n is not an integer.
        """
        n = operator.index(n)
        while n and len(self.mine) >= n:
            n -= self._finish(handle, self.mine[0])
        if n:
            raise ValueError(
                "task_done() called too many times: with on_death='redeliver' a thread can only finish tasks that it "
                "has taken itself"
            )

    def finish(self, handle: CData, lease: Lease) -> None:
        """Reports that task done.

        Raises:
            ValueError: it was reported before.
        """
        self.finished(handle, lease, INTERRUPTED)

    def finished(self, handle: CData, lease: Lease, rc: int) -> None:
        """The same, after the core was told and gave this answer."""
        if not self._finish(handle, lease, rc):
            raise ValueError("task_done() called too many times: the task was already reported done")

    def _finish(self, handle: CData, lease: Lease, rc: int = INTERRUPTED) -> bool:
        while rc == INTERRUPTED:
            rc = lib.jnq_finish(handle, *lease)
        if rc and rc != NOT_OURS:
            raise error(rc)
        if lease in self.mine:
            self.mine.remove(lease)
        for ticket in self._under_way.pop(lease, ()) if not rc else ():
            say_arrived(ticket)
        return not rc


# By handle: all objects of one queue in this process share them.
_leases: weakref.WeakKeyDictionary[CData, Leases] = weakref.WeakKeyDictionary()


def leases_of(handle: CData) -> Leases | None:
    """The leases of this process, or None if the queue does not redeliver."""
    if lib.jnq_on_death(handle) != ON_DEATH["redeliver"]:
        return None
    return _leases.setdefault(handle, Leases())


def give_back_lease(handle: CData, lease: Lease) -> None:
    """Puts a task in hand back in front of its queue, unless it is finished."""
    while lib.jnq_unlease(handle, *lease) == INTERRUPTED:
        pass


def give_back_leases() -> None:
    """Puts all that the calling thread has in hand back, whatever the queue."""
    for ref in _leases.keyrefs():  # a list: other threads make queues meanwhile
        handle = ref()
        if handle is None:
            continue
        leases = _leases.get(handle)
        while leases and leases.mine:
            give_back_lease(handle, leases.mine.pop())


def _forget() -> None:
    """In the child of a fork: the parent's tasks are not ours, and may be taken by us under the same names."""
    for leases in list(_leases.values()):
        leases.mine.clear()


os.register_at_fork(after_in_child=_forget)


class DeadLetter:
    """A task that was given up because the processes that took it died.

    Attributes:
        pids: of the last of these processes, at most three, oldest first.
        times: when they were found dead, in seconds since the epoch.
        deaths: how many there were.
    """

    def __init__(self, form: int, payload: bytes, pids: tuple[int, ...], times: tuple[float, ...], deaths: int) -> None:
        self._form = form
        self._payload = payload
        self.pids = pids
        self.times = times
        self.deaths = deaths

    @property
    def item(self) -> Any:
        """The item; unpickled each time it is asked for, because that may be what kills."""
        with held_arrivals():  # it stays here, and can be asked for again
            return load(loads, assemble, self._form, self._payload)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.item, self.pids, self.times))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} after {self.deaths} deaths, pids {self.pids}>"


def dead_letters(handle: CData, known: int = 0) -> list[DeadLetter]:
    """All dead letters but the first `known`, oldest first."""
    cursor = ffi.new("uint64_t *")
    letter = ffi.new("jnq_letter *")
    letters: list[DeadLetter] = []
    while (rc := lib.jnq_read_letter(handle, cursor, letter)) != EMPTY:
        if rc:
            raise error(rc)
        data = ffi.buffer(letter.payload, letter.bytes)[:]
        pids = [pid for pid in letter.pid if pid]
        times = [ms / 1000 for ms in letter.time_ms][: len(pids)]
        letters.append(DeadLetter(letter.form, data, tuple(pids), tuple(times), letter.deaths))
    return letters[::-1][known:]
