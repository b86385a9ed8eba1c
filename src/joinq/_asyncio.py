"""aget(), aput() and ajoin(): an event loop waits for the queue's descriptor, without a thread."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import TYPE_CHECKING, Any, Callable

from joinq._native import lib, pollable

if TYPE_CHECKING:
    from joinq._jnq import CData
    from joinq._queue import _Shared

__all__ = ["until"]

LOOK_AGAIN = 1.0  # seconds until what no descriptor tells is noticed: that all writers are gone, that tasks are lost

_Lines = dict[tuple[asyncio.AbstractEventLoop, int], "_Line"]


class _Place:
    """Where a coroutine stands."""

    def __init__(self, turn: asyncio.Future[None]) -> None:
        self.turn = turn
        self.leaving: asyncio.Handle | None = None


class _Line:
    """The coroutines of one event loop that wait for one state of one queue, in the order of their arrival.

    Only the first waits for the descriptor and tries; when it leaves, for whatever reason, the next one tries. So no
    wake-up is lost with a coroutine that was cancelled, and an item does not wake them all. The descriptor is a copy
    of the queue's, because a loop knows one callback for each, and that one is the program's.
    """

    def __init__(self, lines: _Lines, loop: asyncio.AbstractEventLoop, handle: CData, what: int) -> None:
        self._lines = lines  # of the queue: it is one of them as long as somebody stands in it
        self._loop = loop
        self._handle = handle
        self._what = what
        self._places: deque[_Place] = deque()
        self._fd = -1  # -1: the loop does not watch it
        self._timer: asyncio.TimerHandle | None = None
        self._pid = os.getpid()

    def enter(self) -> _Place:
        """A place at the end of the line."""
        place = _Place(self._loop.create_future())
        self._places.append(place)
        return place

    async def turn(self, place: _Place) -> None:
        """Waits until this place is the first, and the state may have changed since its last turn."""
        if place.turn.done():
            place.turn = self._loop.create_future()
        if self._places[0] is place:
            self._watch()
        await place.turn

    def leave_soon(self, place: _Place) -> None:
        """Has the loop leave for the coroutine, once that waits again or has ended; stay() undoes it."""
        place.leaving = self._loop.call_soon(self.leave, place)

    def stay(self, place: _Place) -> None:
        if place.leaving is not None:
            place.leaving.cancel()
            place.leaving = None

    def is_left(self) -> bool:
        """Whether nobody stands here any more; whoever was about to leave has."""
        if self._places and self._places[0].leaving is not None:
            self.leave(self._places[0])
        return not self._places

    def leave(self, place: _Place) -> None:
        """Lets the next one try; does nothing for who has left."""
        if place not in self._places:
            return
        if self._places[0] is not place:
            self._places.remove(place)
            return
        self._unwatch()
        self._places.popleft()
        if self._places:
            self._call_first()
        elif self._lines.get((self._loop, self._what)) is self:
            del self._lines[self._loop, self._what]

    def _watch(self) -> None:
        self._fd = os.dup(pollable(self._handle, self._what))
        if self._what == lib.JNQ_IN_PUT:
            self._loop.add_writer(self._fd, self._ready)
        else:
            self._loop.add_reader(self._fd, self._ready)
        self._timer = self._loop.call_later(LOOK_AGAIN, self._ready)

    def _unwatch(self) -> None:
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if self._pid == os.getpid() and not self._loop.is_closed():  # in the child of a fork it is the parent's loop
            if self._what == lib.JNQ_IN_PUT:
                self._loop.remove_writer(fd)
            else:
                self._loop.remove_reader(fd)
        if self._timer is not None:
            self._timer.cancel()
        os.close(fd)

    def _ready(self) -> None:
        self._unwatch()
        self._call_first()

    def _call_first(self) -> None:
        future = self._places[0].turn
        if not future.done() and not self._loop.is_closed():
            future.set_result(None)


async def until(queue: _Shared, what: int, call: Callable[[], Any], not_yet: type[Exception]) -> Any:
    """Gives the result of call(), which is made again whenever it may succeed as long as it raises not_yet.

    Nothing is awaited after a call that succeeded, so that a cancellation cannot lose what it took; and nothing is
    called, so that neither can a signal handler's exception.
    """
    loop = asyncio.get_running_loop()
    lines: _Lines = queue._lines
    line = lines.get((loop, what))
    if line is None or line.is_left():
        try:
            return call()
        except not_yet:
            line = lines[loop, what] = _Line(lines, loop, queue._handle, what)
    place = line.enter()
    try:
        while True:
            await line.turn(place)
            line.leave_soon(place)
            try:
                return call()
            except not_yet:
                line.stay(place)
    except BaseException:
        line.leave(place)
        raise
