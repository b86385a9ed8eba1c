"""q.stats(): exact whenever nobody is in the middle of a call, and nothing is lost with a process that dies."""

from __future__ import annotations

import dataclasses

import probes
import pytest
import workers
from probes import LIMIT

import joinq

KINDS = [joinq.JoinableQueue, joinq.Queue, joinq.SimpleQueue]
COUNTS = ("queued", "in_flight", "unfinished", "puts", "gets", "task_dones", "discarded")


def counts(q):
    stats = q.stats()
    return tuple(getattr(stats, name) for name in COUNTS)


def test_it_is_a_frozen_dataclass():
    """Of plain numbers."""
    stats = joinq.Queue().stats()
    assert isinstance(stats, joinq.Stats)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.puts = 1
    assert {type(value) for value in dataclasses.asdict(stats).values()} == {int, float}


@pytest.mark.parametrize("on_death", ["raise", "ignore", "redeliver"])
def test_life_of_tasks(on_death):
    """Each step shows in the counts."""
    q = joinq.JoinableQueue(on_death=on_death)
    assert counts(q) == (0, 0, 0, 0, 0, 0, 0)
    for number in range(5):
        q.put(number)
    assert counts(q) == (5, 0, 5, 5, 0, 0, 0)
    q.get()
    q.get()
    assert counts(q) == (3, 2, 5, 5, 2, 0, 0)
    q.task_done()
    assert counts(q) == (3, 1, 4, 5, 2, 1, 0)
    q.shutdown(immediate=True)
    assert counts(q) == (0, 1, 1, 5, 2, 1, 3)
    q.task_done()
    assert counts(q) == (0, 0, 0, 5, 2, 2, 3)
    q.join(0)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_without_task_done_nothing_is_in_flight(kind):
    """What was taken is finished."""
    q = kind()
    for number in range(3):
        q.put(number)
    q.get()
    assert counts(q) == (2, 0, 2, 3, 1, 0, 0)


def test_item_that_goes_back_is_not_taken():
    """A get() that a signal handler's exception ends gives its item back."""
    q = joinq.JoinableQueue()
    q.put(workers.InterruptOnce())
    q.put(1)
    with pytest.raises(KeyboardInterrupt):
        q.get()
    assert counts(q) == (2, 0, 2, 2, 0, 0, 0)


def test_memory():
    """Its peak stays when the memory is given back."""
    q = joinq.Queue()
    idle = q.stats()
    q.put(bytes(10_000_000))
    full = q.stats()
    assert full.bytes - idle.bytes >= 10_000_000
    del full
    q.get()
    now = q.stats()
    assert now.bytes == idle.bytes
    assert now.peak_bytes - idle.bytes >= 10_000_000


BLOCKED = {
    "get": ("readers_blocked", "get_seconds", lambda q: q.put(1)),
    "put": ("writers_blocked", "put_seconds", lambda q: q.get()),
    "join": ("joiners_blocked", "join_seconds", lambda q: q.task_done()),
}


@pytest.mark.parametrize("call", BLOCKED)
def test_who_is_blocked(launch, call):
    """Now, for how long in all, and how often one was woken; also when that process is gone."""
    blocked, seconds, end = BLOCKED[call]
    q = joinq.JoinableQueue(1)
    if call != "get":
        q.put(0)
    child = launch(workers.puppet, q)
    child.begin_and_sleep(call, *([1] if call == "put" else []))
    probes.wait_until(lambda: getattr(q.stats(), blocked) == 1, "it is seen")
    end(q)
    child.outcome()
    before = q.stats()
    assert getattr(before, blocked) == 0
    assert getattr(before, seconds) > 0
    assert before.wakeups >= 1
    child.kill()
    probes.reap(q)
    after = q.stats()
    assert getattr(after, seconds) >= getattr(before, seconds)
    assert after.wakeups >= before.wakeups
    assert (after.deaths, after.processes) == (before.deaths + 1, before.processes - 1)


def test_who_was_killed_asleep_is_not_blocked(launch):
    """Though it could not say so."""
    q = joinq.Queue()
    child = launch(workers.puppet, q)
    child.begin_and_sleep("get")
    probes.wait_until(lambda: q.stats().readers_blocked == 1, "it is seen")
    child.kill()
    assert q.stats().readers_blocked == 0


def test_redeliveries_and_dead_letters(launch):
    """A task of a dead process counts as taken when it is taken again."""
    q = joinq.JoinableQueue(on_death="redeliver", max_deliveries=2)
    q.put(0)
    for deaths in (1, 2):
        child = launch(workers.puppet, q)
        assert child.call("get") == 0
        assert counts(q) == (0, 1, 1, 1, 1, 0, 0)
        child.kill()
        probes.reap(q)
        stats = q.stats()
        assert stats.deaths == deaths
    assert (stats.redeliveries, stats.dead_letters, stats.gets) == (1, 1, 1)
    assert stats.unfinished == stats.queued == 0
    with pytest.warns(joinq.DeadLetterWarning):
        q.join(LIMIT)


def test_exact_in_full_run(launch):
    """At every moment the counts fit each other; at the end they are exact."""
    q = joinq.JoinableQueue()
    n = 20_000
    children = [launch(workers.put_numbers, q, n), launch(workers.finish_numbers, q, n)]
    while True:
        stats = q.stats()
        assert stats.puts >= stats.gets >= stats.task_dones
        assert stats.queued + stats.gets == stats.puts
        assert stats.in_flight + stats.task_dones == stats.gets
        if stats.task_dones == n:
            break
    for child in children:
        child.result()
    assert counts(q) == (0, 0, 0, n, n, n, 0)


def test_after_close():
    """It can be asked for whatever has become of the queue here."""
    q = joinq.Queue()
    q.put(1)
    q.close()
    assert q.stats().queued == 1
