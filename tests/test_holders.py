"""q.holders(): who has what, since when, waits where, and how it died."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import probes
import pytest
import workers

import joinq


def of(q, pid):
    """What is told of one process."""
    return next(holder for holder in q.holders() if holder.pid == pid)


def test_this_process():
    """The one that made the queue is the first."""
    q = joinq.JoinableQueue()
    for number in range(3):
        q.put(number)
    q.get()
    [me] = q.holders()
    assert (me.pid, me.name) == (os.getpid(), multiprocessing.current_process().name)
    assert (me.alive, me.state, me.fate, me.exitcode) == (True, "runs", "is alive", None)
    assert (me.puts, me.gets, me.tasks, me.waits) == (3, 1, 1, ())
    assert me.oldest >= 0
    q.task_done()
    [me] = q.holders()
    assert (me.tasks, me.oldest) == (0, None)


@pytest.mark.parametrize("on_death", ["raise", "redeliver"])
def test_children_have_their_names_and_tasks(launch, on_death):
    """With every start method."""
    q = joinq.JoinableQueue(on_death=on_death)
    for number in range(5):
        q.put(number)
    children = [launch(workers.puppet, q) for _ in range(2)]
    for child in children:
        child.call("get")
    children[0].call("get")
    children[0].call("put", 5)
    time.sleep(0.01)
    for child, tasks, puts in zip(children, (2, 1), (1, 0)):
        holder = of(q, child.pid)
        assert (holder.name, holder.tasks, holder.gets, holder.puts) == (child.process.name, tasks, tasks, puts)
        assert holder.oldest > 0
    children[1].call("task_done")
    assert of(q, children[1].pid).tasks == 0


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
def test_child_that_was_forked_has_its_own_name(ctx):
    """Not its parent's, though it has its memory."""
    q = joinq.JoinableQueue()
    q.put(1)
    process = ctx.Process(target=q.get, name="resizer")
    process.start()
    process.join()
    assert [holder.name for holder in q.holders() if holder.pid == process.pid] in ([], ["resizer"])


WAITS = {"get": (), "put": (1,), "join": ()}


@pytest.mark.parametrize("call", WAITS)
def test_blocked_calls(launch, call):
    """Which, in how many threads, and for how long."""
    q = joinq.JoinableQueue(1)
    if call != "get":
        q.put(0)
    child = launch(workers.puppet, q)
    child.begin_and_sleep(call, *WAITS[call])
    probes.wait_until(lambda: of(q, child.pid).waits, "it waits")
    [wait] = of(q, child.pid).waits
    assert (wait.call, wait.threads) == (f"{call}()", 1)
    probes.wait_until(lambda: of(q, child.pid).waits[0].seconds > wait.seconds, "the time goes on")
    assert of(q, child.pid).state == "sleeps"
    child.kill()


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
def test_stopped_process(launch):
    """It is alive, and has its task."""
    q = joinq.JoinableQueue()
    q.put(0)
    child = launch(workers.puppet, q)
    child.call("get")
    os.kill(child.pid, signal.SIGSTOP)
    probes.wait_until(lambda: probes.state(child.pid) == "T", "it is stopped")
    holder = of(q, child.pid)
    assert (holder.alive, holder.state, holder.fate, holder.tasks) == (True, "is stopped", "is stopped", 1)
    with pytest.raises(joinq.JoinTimeout, match=f"process {child.pid} .* is stopped, has 1 task in hand"):
        q.join(0)
    os.kill(child.pid, signal.SIGCONT)


def test_how_it_died(launch):
    """The parent knows the signal."""
    q = joinq.JoinableQueue()
    q.put(0)
    child = launch(workers.puppet, q)
    child.call("get")
    os.kill(child.pid, signal.SIGKILL)
    child.process.join()
    holder = of(q, child.pid)
    assert (holder.alive, holder.exitcode, holder.tasks) == (False, -signal.SIGKILL, 1)
    assert holder.fate == "was killed by SIGKILL"


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
def test_sibling_may_know_how_it_died(launch):
    """From the zombie, if it finds that before the parent takes it away."""
    q = joinq.JoinableQueue()
    q.put(0)
    witness, victim = launch(workers.puppet, q), launch(workers.puppet, q)
    victim.call("get")
    os.kill(victim.pid, signal.SIGKILL)
    probes.wait_until(lambda: probes.state(victim.pid) == "Z", "it is a zombie")
    found = next(holder for holder in witness.call("holders") if holder.pid == victim.pid)
    assert (found.alive, found.exitcode) == (False, -signal.SIGKILL)
    with pytest.raises(joinq.LostTasks):
        witness.call("join", 60)  # it buries the dead, and so remembers it
    pid = victim.pid
    victim.kill()
    found = next(holder for holder in witness.call("holders") if holder.pid == pid)
    assert found.exitcode == -signal.SIGKILL


def test_with_ignore_tasks_in_hand_are_not_known(launch):
    """But items are counted."""
    q = joinq.JoinableQueue(on_death="ignore")
    q.put(0)
    child = launch(workers.puppet, q)
    child.call("get")
    assert (of(q, child.pid).gets, of(q, child.pid).tasks, of(q, child.pid).oldest) == (1, 0, None)


def test_activity():
    """Of the last wait, take, or 16th put."""
    q = joinq.Queue()
    with pytest.raises(joinq.Empty):
        q.get(timeout=0.01)
    before = q.holders()[0].idle
    for number in range(16):
        q.put(number)
    probes.wait_until(lambda: q.holders()[0].idle > before, "time goes on")
    for number in range(16):
        q.put(number)
    assert q.holders()[0].idle <= before + 1
