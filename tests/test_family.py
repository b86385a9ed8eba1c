"""joinq.processes(): children, parent, siblings."""

from __future__ import annotations

import os
import signal
import sys

import probes
import pytest
import workers

import joinq


def of(pid, infos=None):
    return next(info for info in (joinq.processes() if infos is None else infos) if info.pid == pid)


def test_children(launch, ctx):
    """Their names, queues and tasks, with every start method."""
    tasks, results = joinq.JoinableQueue(name="tasks"), joinq.Queue(name="results")
    tasks.put_many(range(3))
    child, other = launch(workers.puppet, tasks), launch(workers.puppet, results)
    for _ in range(2):
        child.call("get")
    other.call("qsize"), other.call("put", 1)
    info = of(child.pid)
    assert (info.name, info.relation, info.alive) == (child.process.name, "child", True)
    assert (info.exitcode, info.signal, info.fate) == (None, None, "is alive")
    assert (info.start_method, info.queues, info.tasks) == (ctx.get_start_method(), ("tasks",), 2)
    assert info.cpu_seconds >= 0
    assert info.resident_bytes > 1e6
    info = of(other.pid)
    assert (info.queues, info.tasks) == (("results",), 0)


def test_queue_that_only_the_child_has(launch):
    """It is found from outside."""
    tasks = joinq.JoinableQueue(name="tasks")
    tasks.put(0)
    child = launch(workers.wait_for_a_queue_of_its_own, tasks)
    assert child.receive() == "taken"
    probes.wait_until(lambda: of(child.pid).queues == ("inner", "tasks"), "it waits")
    assert of(child.pid).tasks == 1
    child.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_dead_child(launch, number):
    """As long as its Process object is there: how it died, and with what."""
    tasks = joinq.JoinableQueue(name="tasks")
    tasks.put(0)
    child = launch(workers.puppet, tasks)
    child.call("get")
    os.kill(child.pid, number)
    child.process.join()
    info = of(child.pid)
    assert (info.alive, info.exitcode, info.signal) == (False, -number, number.name)
    assert info.fate == f"was killed by {number.name}"
    assert (info.queues, info.tasks) == (("tasks",), 1)
    assert (info.cpu_seconds, info.resident_bytes) == (None, None)
    pid = child.pid
    child.close()
    assert pid not in [info.pid for info in joinq.processes()]


def test_exit_code(ctx):
    """Of one that has just ended, and is not joined."""
    child = ctx.Process(target=sys.exit, args=(3,))
    child.start()
    probes.wait_until(lambda: not of(child.pid).alive, "it has ended")
    info = of(child.pid)
    assert (info.exitcode, info.signal, info.fate) == (3, None, "ended with exit code 3")
    child.join()


def test_from_a_child(launch):
    """Its parent, and siblings that share a queue."""
    q, unrelated = joinq.JoinableQueue(name="tasks"), joinq.Queue()
    q.put(0)
    sibling, stranger = launch(workers.puppet, q), launch(workers.puppet, unrelated)
    child = launch(workers.tell_of_processes, q)
    sibling.call("get")
    stranger.call("qsize")
    child.send("now")
    infos = child.result()
    parent = of(os.getpid(), infos)
    assert (parent.relation, parent.name, parent.alive) == ("parent", joinq.current_process().name, True)
    assert "tasks" in parent.queues
    found = of(sibling.pid, infos)
    assert (found.relation, found.name, found.tasks) == ("sibling", sibling.process.name, 1)
    assert {info.pid for info in infos} == {os.getpid(), sibling.pid}


def test_child_that_multiprocessing_has_not_started():
    """If it uses a queue of ours; and what it sees."""
    q = joinq.JoinableQueue(name="tasks")
    q.put(0), q.put(1)
    q.get()
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            q.get()
            told = of(os.getppid())
            os.write(writer, f"{told.relation} {told.tasks}\n".encode())
            signal.pause()
        finally:
            os._exit(0)
    with open(reader) as told:
        assert told.readline() == "parent 1\n"
    info = of(pid)
    assert (info.relation, info.start_method, info.tasks) == ("child", None, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(writer)


def test_without_psutil(launch, monkeypatch):
    """The facts that need it are None."""
    monkeypatch.setitem(sys.modules, "psutil", None)
    child = launch(workers.puppet, joinq.Queue())
    info = of(child.pid)
    assert (info.alive, info.cpu_seconds, info.resident_bytes) == (True, None, None)
