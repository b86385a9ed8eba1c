"""Why a join() waits: who has the tasks, and where he is himself blocked."""

from __future__ import annotations

import os
import re
import signal

import probes
import pytest
import workers

import joinq
from joinq import _observe, _why
from joinq._native import lib


def seen(q, pid):
    """The queue, as an outsider sees it in that process."""
    views = [seen.look() for seen in _observe.find(pid)]
    return next(view for view in views if view.id == lib.jnq_id(q._handle))


def why(q):
    """What the text of JoinTimeout says, line by line, without figures that change."""
    with pytest.raises(joinq.JoinTimeout) as caught:
        q.join(0)
    return untimed(str(caught.value).split("\n  "))


def untimed(lines):
    return [re.sub(r"\d+\.\d s", "N s", line) for line in lines]


def test_stopped_killed_and_blocked_elsewhere(launch):
    """Three workers, each with a task in hand: one is stopped, one was killed, one waits for room in the results."""
    tasks, results = joinq.JoinableQueue(name="tasks"), joinq.Queue(1, name="results")
    results.put("full")
    for number in range(4):
        tasks.put(number)
    stopped, killed = launch(workers.puppet, tasks), launch(workers.puppet, tasks)
    for child in (stopped, killed):
        child.call("get")
    os.kill(stopped.pid, signal.SIGSTOP)
    os.kill(killed.pid, signal.SIGKILL)
    killed.process.join()
    probes.wait_until(lambda: probes.state(stopped.pid) == "T", "it is stopped")
    blocked = launch(workers.echo, tasks, results)
    probes.wait_until(lambda: results.stats().writers_blocked, "it waits for room")
    told = [
        "4 tasks unfinished after 0 seconds: 1 of them in the queue, 3 taken",
        f"process {stopped.pid} ({stopped.process.name}) is stopped, has 1 task in hand, the oldest for N s",
        f"process {killed.pid} ({killed.process.name}) was killed by SIGKILL, had 1 task in hand, the oldest for N s",
        f"process {blocked.pid} ({blocked.process.name}) is alive, has 1 task in hand, the oldest for N s, waits "
        "for N s in put() of queue 'results', which is full (1 item)",
    ]
    assert sorted(why(tasks)) == sorted(told)
    outside = untimed(_why.explain(seen(tasks, blocked.pid), when="after 0 seconds"))
    how_not_known = [re.sub(f"({killed.pid} .*) was killed by SIGKILL", r"\1 died", line) for line in told]
    assert sorted(outside) in (sorted(told), sorted(how_not_known))
    os.kill(stopped.pid, signal.SIGCONT)
    results.get(), results.get()
    tasks.put(None), results.get()
    blocked.result()


def test_queue_that_this_process_does_not_have(launch):
    """It is looked up in the process that waits for it."""
    tasks = joinq.JoinableQueue(name="tasks")
    tasks.put(0)
    child = launch(workers.wait_for_a_queue_of_its_own, tasks)
    assert child.receive() == "taken"
    mine = lambda: _observe.find(child.pid)  # noqa: E731
    probes.wait_until(lambda: any(s.look().stats.readers_blocked for s in mine()), "it waits")
    assert "in get() of queue 'inner', which is empty" in why(tasks)[1]
    child.kill()


def test_who_cannot_be_looked_at(launch, monkeypatch):
    """Another user's process, say: what its own queue shows is told all the same."""
    tasks = joinq.JoinableQueue(name="tasks")
    tasks.put(0)
    child = launch(workers.wait_for_a_queue_of_its_own, tasks)
    assert child.receive() == "taken"

    def refuse(pid):
        raise PermissionError(pid)

    monkeypatch.setattr(_observe, "find", refuse)
    assert why(tasks)[1].endswith("is alive, has 1 task in hand, the oldest for N s")
    child.kill()


def test_join_elsewhere(launch):
    """A worker that waits in the join() of a queue of subtasks."""
    tasks, subtasks = joinq.JoinableQueue(name="tasks"), joinq.JoinableQueue(name="subtasks")
    tasks.put(0)
    subtasks.put(0), subtasks.put(1)
    child = launch(workers.take_and_join, tasks, subtasks)
    probes.wait_until(lambda: subtasks.stats().joiners_blocked, "it waits")
    assert "in join() of queue 'subtasks', which has 2 tasks unfinished" in why(tasks)[1]
    child.kill()


def test_queue_without_tasks():
    """There is nothing but its items to tell of, and who waits."""
    q = joinq.Queue(name="results")
    q.put(0)
    assert _why.explain(seen(q, os.getpid())) == ["1 item in the queue"]
