"""The logger "joinq": deaths, and what becomes of the tasks of the dead.

A process tells of what it has noticed itself when it is next in Python with nothing taken and nothing locked: once a
second in a get() or put() that waits, when a get() has found nothing, and in join(), which tells also of what others
have noticed. There a signal handler could run, too, so a log handler may do what such a one may: use the queue, for
example.
"""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

from joinq._holders import deaths, tasks
from joinq._leases import dead_letters
from joinq._native import ffi, lib
from joinq._stats import traits_of

if TYPE_CHECKING:
    from joinq._jnq import CData

__all__ = ["tell", "tell_since"]

_logger = logging.getLogger("joinq")
_logger.addHandler(logging.NullHandler())


def tell(handle: CData, own: bool = True) -> None:
    """Logs what this process has noticed of the queue, or with own=False also what others have, and not yet told."""
    if not lib.jnq_untold(handle, own, ffi.NULL):
        return
    before = ffi.new("jnq_tidings *")
    if lib.jnq_untold(handle, own, before):
        tell_since(handle, before.deaths, before.redeliveries, before.letters)


def tell_since(handle: CData, known_deaths: int, known_redeliveries: int, known_letters: int) -> None:
    """Logs all but the first so many deaths, redeliveries and dead letters. An Exception of a handler ends that."""
    try:
        _tell(handle, known_deaths, known_redeliveries, known_letters)
    except Exception:
        if logging.raiseExceptions:  # as logging itself treats most of them
            traceback.print_exc()


def _tell(handle: CData, known_deaths: int, known_redeliveries: int, known_letters: int) -> None:
    counters, traits = ffi.new("jnq_counters *"), traits_of(handle)
    lib.jnq_glance(handle, counters)
    name = ffi.string(traits.name).decode("utf-8", "replace")
    for death in deaths(handle, known_deaths):
        had = traits.kind == lib.JNQ_JOINABLE and death.tasks
        level = logging.WARNING if had else logging.INFO
        _logger.log(level, "queue %r: %s%s", name, death, f" with {tasks(death.tasks)} in hand" if had else "")
    if again := counters.redeliveries - known_redeliveries:
        _logger.warning("queue %r: %s of dead processes went back to the queue", name, tasks(again))
    if counters.dead_letters > known_letters:
        for letter in dead_letters(handle, known_letters):
            pids = ", ".join(map(str, letter.pids))
            text = "queue %r: a task was given up after it had killed %d of the processes that took it (the last: %s)"
            _logger.error(text, name, letter.deaths, pids)
