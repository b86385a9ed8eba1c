"""
Nothing leaks: descriptors, mappings, threads, memory, names in /dev/shm, helper processes.

Most cases run in a fresh interpreter, which has nothing open but what it opens itself.
"""

from __future__ import annotations

import gc
import os

import probes
import pytest
import workers

import joinq

MIB = 2**20

START = """
import gc, os, sys
from pathlib import Path
import joinq, payloads, probes, workers

def use(q):
    q.put(1)
    q.put(b"x" * 100_000)
    assert q.get() == 1
    q.empty()

def holdings():
    gc.collect()
    maps = Path("/proc/self/maps").read_text().count("joinq")
    return len(probes.descriptors()), maps, len(os.listdir("/proc/self/task"))

KINDS = [joinq.JoinableQueue, joinq.Queue, joinq.SimpleQueue]
for kind in KINDS:
    use(kind())
"""


def run(script):
    """Run a script after START; it must end well and say nothing on stderr."""
    done = workers.run_script(START + script)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.mark.parametrize("last_act", ["pass", "q.close()", "q.get()", "q.myself = q"])
def test_queue_takes_one_descriptor_and_gives_it_back(last_act):
    """A queue has one descriptor and no thread, and nothing once it is dropped, used or not."""
    run(
        f"""
before = holdings()
for kind in KINDS:
    q = kind()
    use(q)
    now = holdings()
    assert now[0] == before[0] + 1, (before, now)
    assert now[2] == before[2], "a thread was started"
    assert len(probes.segments()) == 1
    {last_act}
    del q
    assert holdings() == before, (before, holdings())
    assert not probes.segments()
"""
    )


def test_2000_queues_one_after_another():
    """Queues made, used and dropped in a row do not add up to anything."""
    run(
        """
def some(count):
    for number in range(count):
        use(KINDS[number % 3]())

some(200)
before, resident = holdings(), probes.resident()
some(2000)
assert holdings() == before, (before, holdings())
grown = probes.resident() - resident
assert grown < 2**20, f"{grown} bytes more"
"""
    )


def test_300_queues_at_once():
    """Many queues exist side by side; each costs a descriptor, and all of them go."""
    run(
        """
before = holdings()
queues = [KINDS[number % 3]() for number in range(300)]
for number, q in enumerate(queues):
    q.put(number)
assert holdings()[0] == before[0] + 300
for number, q in enumerate(queues):
    assert q.get() == number
del queues, q
assert holdings() == before
"""
    )


@pytest.mark.parametrize(
    ("what", "prepare", "act"),
    {
        "get_nowait": ("joinq.Empty", "pass", "q.get_nowait()"),
        "get_timeout": ("joinq.Empty", "pass", "q.get(timeout=1e-6)"),
        "put_nowait": ("joinq.Full", "q.put(0)", "q.put_nowait(b'x' * 10_000)"),
        "join": ("joinq.JoinTimeout", "q.put(0)", "q.join(0)"),
        "task_done": ("ValueError", "pass", "q.task_done()"),
        "pickling": ("LookupError", "pass", "q.put([payloads.Pickling(payloads.fail, '')])"),
        "unpickling": (
            "LookupError",
            "pass",
            "(q.put(payloads.Pickled(payloads.fail, 'x' * 10_000)), q.get())",
        ),
    }.values(),
    ids=lambda value: value[:12],
)
def test_failing_calls_leave_nothing(what, prepare, act):
    """A call that raises, ten thousand times, keeps no memory and no descriptor."""
    run(
        f"""
q = joinq.JoinableQueue(1)
{prepare}

def some(count):
    for _ in range(count):
        try:
            {act}
        except {what}:
            pass
        else:
            sys.exit("no error")

some(1000)
before, resident = holdings(), probes.resident()
some(10_000)
assert holdings() == before
grown = probes.resident() - resident
assert grown < 2**19, f"{{grown}} bytes more"
"""
    )


def test_traffic_takes_no_private_memory():
    """Items that come and go leave nothing in the process's own memory."""
    run(
        """
q = joinq.JoinableQueue()

def some(count):
    for number in range(count):
        q.put(b"x" * (number * 100 % 50_000))
        q.put([number])
        q.get()
        q.get()
    q.task_done(2 * count)
    q.join()

some(3000)
resident = probes.resident()
some(30_000)
grown = probes.resident() - resident
assert grown < 2**20, f"{grown} bytes more"
"""
    )


def test_no_resource_tracker_and_no_name(tmp_path):
    """Queues with forked children need no tracker process, no semaphore and no name in /dev/shm."""
    shm = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    out = run(
        """
import multiprocessing
from multiprocessing import resource_tracker
ctx = multiprocessing.get_context("fork")
queues = [kind() for kind in KINDS]
for q in queues:
    child = ctx.Process(target=q.put, args=(1,))
    child.start()
    child.join()
    assert q.get() == 1
assert resource_tracker._resource_tracker._fd is None, "a resource tracker was started"
assert not multiprocessing.active_children()
locks = [thing for thing in gc.get_objects() if isinstance(thing, multiprocessing.synchronize.SemLock)]
assert not locks, "named semaphores were made"
print(*(os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []))
"""
    )
    new = set(out.split()) - shm
    assert not [name for name in new if "joinq" in name], new


def test_giving_a_queue_to_children_leaves_nothing_here(launch):
    """Starting children with a queue, whatever the start method, costs no descriptor for long."""
    q = joinq.JoinableQueue()
    launch(workers.put_value, q, 0).result()  # the start method's own descriptors
    before = holdings_by_kind()
    for number in range(1, 6):
        child = launch(workers.put_value, q, number)
        child.result()
        child.close()
    assert holdings_by_kind() == before
    assert [q.get_nowait() for _ in range(6)] == list(range(6))


def holdings_by_kind():
    gc.collect()
    links = probes.descriptors().values()
    return len(links), [link for link in links if link.startswith("/memfd:joinq")]


def test_child_holds_one_descriptor(ctx, launch):
    """A child has one descriptor per queue, however often the queue is in its arguments."""
    q = joinq.Queue()
    child = launch(workers.count_segments, [q, q], {"again": q})
    forked = ctx.get_start_method() == "fork"
    assert child.result() == (len(probes.segments()) if forked else 1)


def test_segment_is_gone_with_its_last_process(launch):
    """Children that were killed with queues in hand keep nothing alive."""
    others = probes.segments()
    q = joinq.JoinableQueue()
    q.put(b"x" * 50 * MIB)
    children = [launch(workers.puppet, q) for _ in range(2)]
    for child in children:
        child.begin_and_sleep("join")
    (segment,) = probes.segments() - others
    identity = os.stat(segment).st_ino
    for child in children:
        child.kill()
    del q
    gc.collect()
    assert probes.segments() == others
    for pid in filter(str.isdigit, os.listdir("/proc")):
        assert identity not in probes.segment_inodes(pid), f"process {pid} still has the segment"
