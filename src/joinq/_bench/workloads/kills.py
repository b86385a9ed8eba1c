"""
Workers are killed while they put or get, and replaced; how often does the queue survive that?

For every kill: a victim does nothing but put (or get), a partner that lives on does the opposite, and after a few
milliseconds SIGKILL hits the victim wherever it is. Then a new process takes its place, and within a time limit
something it puts must reach the partner (something that the partner puts must reach it), whole and in order. What a
killed process had taken may be missing; nothing else may be damaged, doubled, or out of order.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.connection import Connection, wait
from typing import Any, Callable

from joinq._bench.contenders import Contender, Queue
from joinq._bench.scenario import Outcome, Scenario

PATIENCE_S = 5.0
"""After so long a queue hangs. Everything that has to happen takes some milliseconds."""

LIMIT_S = 60.0
"""For all kills at one end: after that, the number so far is what there is."""

_SIZES = (16, 20_000)  # some fit into one write to a pipe, some do not
ITEM_BYTES = max(_SIZES) + 200
_LAST = -1
_RUNNING = "running"

Pipe = Any  # Connection, which takes parameters only in some versions


def _item(owner: int, number: int) -> tuple[int, int, bytes]:
    return owner, number, bytes([number % 256]) * _SIZES[number % len(_SIZES)]


class Damage(Exception):
    """Something arrived that was not put, or not then."""


class _Order:
    """Checks what one process gets."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}

    def check(self, item: Any) -> tuple[int, int]:
        """Return owner and number of an item that is as it was put, and follows what its owner had put before."""
        if not (isinstance(item, tuple) and len(item) == 3):
            raise Damage("an item is not what was put")
        owner, number, _ = item
        if number == _LAST:
            return owner, number
        if item != _item(owner, number):
            raise Damage("an item is not what was put")
        if number <= self._last.get(owner, -1):
            raise Damage("an item arrived twice, or too late")
        self._last[owner] = number
        return owner, number


def _put_forever(queue: Queue, owner: int, channel: Pipe) -> None:
    """Put; until killed, or, once something comes from the channel, only a last item with that owner."""
    put, number = queue.putter(), 0
    channel.send(_RUNNING)
    while True:
        while not channel.poll():
            put(_item(owner, number))
            number += 1
        put((channel.recv(), _LAST, b""))


def _get_forever(queue: Queue, _: int, channel: Pipe) -> None:
    """Get; tell the channel of every last item."""
    get, order = queue.getter(), _Order()
    channel.send(_RUNNING)
    try:
        while True:
            owner, number = order.check(get())
            if number == _LAST:
                channel.send(owner)
    except Exception as error:  # whatever a damaged queue makes it raise
        channel.send(f"{type(error).__name__}: {error}")


class _Worker:
    """A process and the channel to it."""

    def __init__(self, target: Callable[..., None], queue: Queue, owner: int) -> None:
        self.channel, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=target, args=(queue, owner, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def hears(self, deadline: float) -> Any:
        """Return the next message, or why there is none."""
        channel: Connection[Any, Any] = self.channel
        wait([channel, self.process.sentinel], max(0.0, deadline - time.monotonic()))
        if channel.poll():
            try:
                return channel.recv()
            except (EOFError, ConnectionResetError):
                pass
        return "a process fails" if self.process.exitcode else "hangs"

    def kill(self) -> None:
        os.kill(self.process.pid or 0, signal.SIGKILL)
        self.process.join()
        self.channel.close()


def _rounds(queue: Queue, victim_puts: bool, kills: int) -> tuple[int, str]:
    """Return the number of kills that the queue has survived, and what the next one did to it."""
    role, opposite = (_put_forever, _get_forever) if victim_puts else (_get_forever, _put_forever)
    chance, end = random.Random(5), time.monotonic() + LIMIT_S
    partner, victim = _Worker(opposite, queue, 0), _Worker(role, queue, 1)
    deadline = time.monotonic() + PATIENCE_S
    trouble = partner.hears(deadline)
    if trouble == _RUNNING:
        trouble = victim.hears(deadline)
    survived = 0
    while trouble == _RUNNING and survived < kills and time.monotonic() < end:
        time.sleep(chance.uniform(0.001, 0.01))
        victim.kill()
        victim = _Worker(role, queue, survived + 2)
        deadline = time.monotonic() + PATIENCE_S
        trouble = victim.hears(deadline)
        if trouble == _RUNNING:
            putter, getter = (victim, partner) if victim_puts else (partner, victim)
            putter.channel.send(survived)
            answer = getter.hears(deadline)
            if answer != survived:
                trouble = str(answer)
            else:
                survived += 1
    victim.kill()
    partner.kill()
    return survived, "" if trouble == _RUNNING else trouble


def kills(contender: Contender, scenario: Scenario) -> Outcome:
    """Kill up to `n` workers in put(), then up to `n` in get(); the numbers after which the queue is still of use."""
    figures, notes = {}, {}
    for metric, victim_puts in (("in put", True), ("in get", False)):
        queue = contender.make(scenario.demand())
        survived, trouble = _rounds(queue, victim_puts, scenario.n)
        figures[metric], notes[metric] = float(survived), trouble
    return Outcome(figures, notes)
