"""Signals while a process is blocked: the same cases on the stdlib's queues and on ours, then more."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from typing import Any, Callable, NamedTuple

import payloads
import probes
import pytest
import workers
from probes import LIMIT

import joinq


@pytest.fixture
def ctx():
    """How a process was started makes no difference to the signals it gets."""
    return multiprocessing.get_context("fork")


class Blocked(NamedTuple):
    """A call that blocks on a JoinableQueue(1), and what lets it return."""

    prepare: Callable[[Any], Any]
    call: tuple
    release: tuple
    outcome: Any
    timed_out: type[Exception]


BLOCKED = {
    "get": Blocked(lambda q: None, ("get",), ("put", "item"), "item", queue.Empty),
    "put": Blocked(lambda q: q.put(0), ("put", 1), ("get",), None, queue.Full),
    "join": Blocked(lambda q: q.put(0), ("join",), ("task_done",), None, joinq.JoinTimeout),
}
each_blocked = pytest.mark.parametrize("blocked", BLOCKED.values(), ids=BLOCKED.keys())


def call(q, name, *args):
    return getattr(q, name)(*args)


@each_blocked
def test_handler_runs_while_the_call_is_blocked(impl, launch, blocked):
    """A signal handler runs at once, and the call goes on waiting until it may return."""
    q = impl.JoinableQueue(1)
    blocked.prepare(q)
    victim = launch(workers.puppet_that_reports_signals, q)
    victim.begin_and_sleep(*blocked.call)
    for _ in range(3):
        os.kill(victim.pid, signal.SIGUSR2)
        assert victim.receive() == "handled"
        victim.wait_asleep()
    call(q, *blocked.release)
    assert victim.outcome() == blocked.outcome


@each_blocked
def test_interrupted_call_leaves_everything_as_it_was(impl, launch, blocked):
    """KeyboardInterrupt ends a blocked call; no item is lost, none is added, no task forgotten."""
    q = impl.JoinableQueue(1)
    blocked.prepare(q)
    victim = launch(workers.puppet, q)
    before = q.qsize(), q.full()
    for _ in range(20):
        victim.begin_and_sleep(*blocked.call)
        os.kill(victim.pid, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            victim.outcome()
        assert (q.qsize(), q.full()) == before
    victim.begin_and_sleep(*blocked.call)
    call(q, *blocked.release)
    assert victim.outcome() == blocked.outcome


@each_blocked
def test_stopped_process_goes_on_waiting_when_continued(impl, launch, blocked):
    """A blocked call survives SIGSTOP and SIGCONT."""
    q = impl.JoinableQueue(1)
    blocked.prepare(q)
    victim = launch(workers.puppet, q)
    victim.begin_and_sleep(*blocked.call)
    for _ in range(3):
        os.kill(victim.pid, signal.SIGSTOP)
        probes.wait_until(lambda: probes.state(victim.pid) == "T", "the process has stopped")
        os.kill(victim.pid, signal.SIGCONT)
        victim.wait_asleep()
    call(q, *blocked.release)
    assert victim.outcome() == blocked.outcome


def test_item_put_while_the_getter_is_stopped_waits_for_it(impl, launch):
    """A process stopped in get() receives, when continued, what was put meanwhile."""
    q = impl.JoinableQueue(1)
    victim = launch(workers.puppet, q)
    victim.begin_and_sleep("get")
    os.kill(victim.pid, signal.SIGSTOP)
    probes.wait_until(lambda: probes.state(victim.pid) == "T", "the process has stopped")
    q.put("item")
    os.kill(victim.pid, signal.SIGCONT)
    assert victim.outcome() == "item"


@pytest.mark.parametrize("name", ["get", "put"])
def test_timeout_holds_in_a_storm_of_signals(impl, launch, name):
    """Handlers that run while a call waits neither end it early nor keep it from ending."""
    check_timeout_in_a_storm(impl.JoinableQueue(1), launch, BLOCKED[name])


def test_timeout_of_join_holds_in_a_storm_of_signals(launch):
    """The same for join(), which has a timeout only in joinq."""
    check_timeout_in_a_storm(joinq.JoinableQueue(1), launch, BLOCKED["join"])


def check_timeout_in_a_storm(q, launch, blocked):
    blocked.prepare(q)
    timeout = 0.3
    storm = launch(workers.time_in_a_storm, q, timeout, *blocked.call)
    error, elapsed, signals = storm.result()
    assert error == blocked.timed_out.__name__
    assert elapsed >= timeout - 0.01
    assert signals > 1


@each_blocked
def test_handler_may_use_the_queue_it_interrupts(launch, blocked):
    """A handler may make the very call that lets the blocked one return."""
    q = joinq.JoinableQueue(1)
    blocked.prepare(q)
    victim = launch(workers.puppet_with_handler, q, *blocked.release)
    victim.begin_and_sleep(*blocked.call)
    os.kill(victim.pid, signal.SIGUSR2)
    assert victim.outcome() == blocked.outcome


@each_blocked
def test_signal_that_hits_another_thread_is_handled_too(launch, blocked):
    """Handlers run in the blocked main thread, whichever thread of the process got the signal."""
    q = joinq.JoinableQueue(1)
    blocked.prepare(q)
    victim = launch(workers.signal_a_thread_while_blocked, q, blocked.call, blocked.release)
    assert victim.result() == blocked.outcome


def test_exception_of_a_handler_during_unpickling_gives_the_item_back():
    """An item whose unpickling a signal handler interrupts is again the first in the queue."""
    for padding in (0, 100_000):
        q = joinq.JoinableQueue()
        q.put(payloads.Pickled(payloads.interrupt_once, "one", b"x" * padding))
        q.put("two")
        payloads.interruptions[:] = [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            q.get(timeout=LIMIT)
        assert q.qsize() == 2
        assert [q.get_nowait(), q.get_nowait()] == ["one", "two"]
        assert (q.qsize(), q.unfinished_tasks) == (0, 2)
