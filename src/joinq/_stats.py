"""What q.stats() tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from joinq._native import ffi, lib

if TYPE_CHECKING:
    from joinq._jnq import CData

__all__ = ["Stats", "stats_of", "traits_of"]


@dataclass(frozen=True)
class Stats:
    """The figures of a queue, over all processes, the dead ones included.

    `queued` to `discarded` are those of one moment, and exact when nobody is in the middle of a call. Only where the
    queue never stands still for some nanoseconds (from outside: a microsecond) they may be of several moments.

    Attributes:
        queued: items in the queue.
        in_flight: tasks that were taken and not reported done; 0 in a queue without task_done().
        unfinished: both together.
        puts: items that were put.
        gets: items that were taken. One that went back to the queue (from a dead process, or because an exception ended
            its get()) counts when it is taken again; so this is at most `puts`.
        task_dones: tasks that were reported done.
        discarded: items that shutdown(immediate=True) threw away.
        redeliveries: how often a task of a dead process went back to the queue.
        dead_letters: tasks that were given up.
        deaths: processes that were killed, or failed, while they used the queue, and that was noticed.
        processes: processes that use it.
        bytes: memory that its items, and arrays of received ones, take, in whole pages, and of small items in whole
            blocks of 64 KiB. After a death it may be wrong until that was noticed.
        peak_bytes: the most that it ever was.
        readers_blocked, writers_blocked, joiners_blocked: threads that sleep in get(), put(), join().
        get_seconds, put_seconds, join_seconds: how long threads have waited there, all together. A wait that goes on is
            counted once a second.
        wakeups: how often one that slept was woken.
    """

    queued: int
    in_flight: int
    unfinished: int
    puts: int
    gets: int
    task_dones: int
    discarded: int
    redeliveries: int
    dead_letters: int
    deaths: int
    processes: int
    bytes: int
    peak_bytes: int
    readers_blocked: int
    writers_blocked: int
    joiners_blocked: int
    get_seconds: float
    put_seconds: float
    join_seconds: float
    wakeups: int


def traits_of(handle: CData) -> CData:
    """A jnq_traits: what does not change, and whether the queue has ended."""
    traits = ffi.new("jnq_traits *")
    lib.jnq_read_traits(handle, traits)
    return traits


def stats_of(handle: CData) -> Stats:
    """The figures of a queue, or of a picture of one."""
    out = ffi.new("jnq_counters *")
    lib.jnq_glance(handle, out)
    joinable = traits_of(handle).kind not in (lib.JNQ_QUEUE, lib.JNQ_SIMPLE)
    return Stats(
        queued=out.queued,
        in_flight=max(out.unfinished - out.queued, 0) if joinable else 0,
        unfinished=out.unfinished if joinable else out.queued,
        puts=out.puts,
        gets=out.gets,
        task_dones=out.dones,
        discarded=out.discarded,
        redeliveries=out.redeliveries,
        dead_letters=out.dead_letters,
        deaths=out.deaths,
        processes=out.processes,
        bytes=out.used_bytes,
        peak_bytes=out.peak_bytes,
        readers_blocked=out.waiting[lib.JNQ_IN_GET],
        writers_blocked=out.waiting[lib.JNQ_IN_PUT],
        joiners_blocked=out.waiting[lib.JNQ_IN_JOIN],
        get_seconds=out.blocked_ns[lib.JNQ_IN_GET] / 1e9,
        put_seconds=out.blocked_ns[lib.JNQ_IN_PUT] / 1e9,
        join_seconds=out.blocked_ns[lib.JNQ_IN_JOIN] / 1e9,
        wakeups=out.wakes,
    )
