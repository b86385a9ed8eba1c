"""
Queues at the limits of the system: descriptors, address space, memory, file systems, namespaces, many processes.

Each call works or raises an error that says why, and what others do with the queue goes on.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import random
import resource
import signal
import tempfile
import threading
import time
from functools import partial
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import payloads
import probes
import pytest
import workers
from probes import LIMIT

import joinq
from joinq._native import ffi, lib

MIB = 2**20
NEW_NAMESPACE = {"pid": 0x20000000, "time": 0x80, "mount": 0x00020000}
SKIPPED = 77
"""The exit status of a child that is not permitted to make its preparations."""

libc = ctypes.CDLL(None, use_errno=True)


def in_child(function, *args):
    """Run a function in a forked child, whose limits are its own; it must end well."""
    status = workers.wait_for(workers.fork(lambda: function(*args)))
    if status == SKIPPED:
        pytest.skip("not permitted here")
    assert status == 0


def permitted(answer):
    """End the child unless the system call succeeded."""
    if answer:
        os._exit(SKIPPED)


def is_whole(queue):
    """Fail unless the queue is in order and usable."""
    probes.check_invariants(queue)
    queue.put("last")
    assert queue.get(timeout=LIMIT) == "last"


# Descriptors ------------------------------------------------------------------------------


def exhaust_descriptors(spare):
    """Leave this process so many more descriptors."""
    fd = os.open("/", os.O_RDONLY)
    os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (fd + spare, fd + spare))


def test_no_descriptor_is_left():
    """Without a descriptor no queue is made, and one that exists works on."""
    q = joinq.JoinableQueue()

    def use():
        exhaust_descriptors(0)
        q.put(b"x" * MIB)
        assert len(q.get(timeout=1)) == MIB
        q.task_done()
        q.join(1)
        with pytest.raises(OSError, match="Too many open files"):
            joinq.Queue()

    in_child(use)
    is_whole(q)


def test_one_descriptor_is_left():
    """A queue needs one descriptor, to be made and to be attached to."""
    q = joinq.Queue()

    def use():
        exhaust_descriptors(1)
        made = joinq.Queue()
        made.put(1)
        assert made.get() == 1
        del made
        gc.collect()
        attached = joinq.Queue.__new__(joinq.Queue)
        attached._use(probes.attach_anew(os.dup(lib.jnq_fileno(q._handle))))
        attached._reset_state(0, os.getpid())
        attached.put("from there")

    in_child(use)
    assert q.get_nowait() == "from there"


def test_all_descriptors_were_closed():
    """put() and get() need none, and a queue that cannot travel any more says so; what has its number is left alone."""
    q = joinq.JoinableQueue()

    def use():
        fd = lib.jnq_fileno(q._handle)
        os.closerange(3, 1000)
        other = os.open("/", os.O_RDONLY)
        os.dup2(other, fd)
        for item in (1, b"x" * 100, b"x" * MIB):
            q.put(item)
            assert q.get(timeout=1) == item
            q.task_done()
        q.join(1)
        assert workers.wait_for(workers.fork(lambda: q.put("grandchild"))) == 0
        multiprocessing.context.set_spawning_popen(object())  # as in the start of a child
        with pytest.raises(OSError, match="closed the file descriptor"):
            ForkingPickler.dumps(q)
        q.__dict__.clear()
        gc.collect()
        os.fstat(fd)

    in_child(use)
    assert q.get(timeout=LIMIT) == "grandchild"
    is_whole(q)


# Address space and memory -----------------------------------------------------------------


@pytest.mark.parametrize("spare", [MIB, 8 * MIB, 64 * MIB, 1024 * MIB])
def test_address_space_is_limited(spare):
    """With little address space a queue is small, or is not made; a large one cannot be attached to."""
    q = joinq.Queue()
    q.put("before")

    def use():
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + spare, size + spare))
        with contextlib.suppress(MemoryError):
            made = joinq.Queue()
            made.put(1)
            with contextlib.suppress(MemoryError):
                while True:
                    made.put(bytes(100_000))
            assert made.get() == 1
        with pytest.raises(MemoryError):
            probes.attach_anew(os.dup(lib.jnq_fileno(q._handle)))
        assert q.get(timeout=1) == "before"  # what is mapped stays mapped

    in_child(use)
    is_whole(q)


ITEMS = {
    "small": [1000, (1, 2), "x", b"y", (3,)],
    "large": [("x" * 100_000, number) for number in range(3)],
    "mixed": [1000, (1, 2), "z" * 3000, b"q" * 100_000, (3,)],
}


@pytest.mark.parametrize("items", ITEMS.values(), ids=ITEMS)
@pytest.mark.parametrize(("on_death", "take"), [("ignore", "get"), ("ignore", "get_many"), ("redeliver", "get")])
def test_any_allocation_may_fail_in_a_get(on_death, take, items):
    """Whichever of the allocations of the interpreter fails, what was taken comes back, in order."""
    testcapi = pytest.importorskip("_testcapi")

    def use():
        for number in range(80):
            q = joinq.JoinableQueue(on_death=on_death)
            q.put_many(items)
            got, call = [], q.get_nowait if take == "get" else partial(q.get_many, 10, False)
            testcapi.set_nomemory(number, number + 1)
            try:
                outcome = call()
            except MemoryError:
                testcapi.remove_mem_hooks()
            else:
                testcapi.remove_mem_hooks()
                got += [outcome] if take == "get" else outcome
            while q.qsize():
                got.append(q.get(False))
            assert got == items, number
            is_whole(q)

    in_child(use)


def test_file_system_is_full(tmp_path):
    """Where queues lie in files of a full file system put() raises MemoryError, and what was put is whole."""

    def use():
        permitted(libc.unshare(NEW_NAMESPACE["mount"]))
        private = 1 << 18 | 1 << 14  # MS_PRIVATE, MS_REC
        permitted(libc.mount(b"none", b"/", None, private, None))
        permitted(libc.mount(b"none", os.fsencode(tmp_path), b"tmpfs", 0, b"size=1M"))
        tempfile.tempdir = str(tmp_path)
        del os.memfd_create  # as on a system without
        memfds = probes.segments()
        for size in (10, 5000, 100_000):
            q = joinq.JoinableQueue()
            assert probes.segments() <= memfds
            count = 0
            with pytest.raises(MemoryError):
                while True:
                    q.put(payloads.make_item(0, count, (size,)))
                    count += 1
            assert q.qsize() == count > 0
            for number in range(count):
                assert payloads.check_item(q.get(timeout=1)).number == number
            with pytest.raises(MemoryError):
                others = []
                while True:
                    others.append(joinq.Queue())
                    others[-1].put(bytes(100_000))
            del others
            is_whole(q)
            del q
            gc.collect()

    in_child(use)


@contextlib.contextmanager
def memory_group(limit):
    """A control group below ours with so much memory: the file to write a pid to."""
    groups = [line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    ours = [Path("/sys/fs/cgroup/memory") / path.lstrip("/") for names, path in groups if names == "memory"]
    ours += [Path("/sys/fs/cgroup") / path.lstrip("/") for names, path in groups if not names]
    for parent in ours:
        group = parent / f"joinq-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            for name in ("memory.limit_in_bytes", "memory.max"):
                if (group / name).exists():
                    (group / name).write_text(str(limit))
                    yield group / "cgroup.procs"
                    return
        except OSError:
            continue
        finally:
            group.rmdir()
    pytest.skip("no control group of our own can be made here")


def test_memory_of_the_control_group_is_used_up():
    """Who fills his group gets MemoryError or is killed; what he had put is there, and the others go on."""
    q = joinq.JoinableQueue()
    count = multiprocessing.RawValue(ctypes.c_long)

    def fill():
        procs.write_text(str(os.getpid()))
        with contextlib.suppress(MemoryError):
            for number in range(1000):
                q.put(payloads.make_item(0, number, (100_000,)))
                count.value = number + 1

    with memory_group(16 * MIB) as procs:
        ending = workers.wait_for(workers.fork(fill))
    assert ending in (0, -signal.SIGKILL)
    assert 0 < count.value < 1000
    lib.jnq_reap(q._handle)
    probes.check_invariants(q)
    assert q.qsize() - count.value in (0, 1)  # it may have been killed before it had counted
    for number in range(q.qsize()):
        assert payloads.check_item(q.get_nowait()).number == number
    is_whole(q)


# Namespaces -------------------------------------------------------------------------------


def in_namespace(kind, function):
    """Run a function in a child in a new namespace."""

    def enter():
        permitted(libc.unshare(NEW_NAMESPACE[kind]))  # for children
        os._exit(workers.wait_for(workers.fork(function)))

    in_child(enter)


@pytest.mark.parametrize("kind", ["pid", "time"])
def test_other_namespaces_are_refused(kind):
    """Where pids or start times mean something else, whoever comes is told so, and harms nobody."""
    q = joinq.JoinableQueue()
    q.put("before")

    def use():
        for call in (lambda: q.put(1), q.get, q.get_nowait, q.shutdown):
            with pytest.raises(RuntimeError, match="namespace"):
                call()
        with pytest.raises(RuntimeError, match="namespace"):
            probes.attach_anew(os.dup(lib.jnq_fileno(q._handle)))
        assert lib.jnq_reap(q._handle) == lib.jnq_check(q._handle) == lib.JNQ_NAMESPACE
        assert q.qsize() == q.unfinished_tasks == 1
        with pytest.raises(joinq.JoinTimeout):
            q.join(1.5)  # long enough to look for the dead, of whom there are none
        is_whole(joinq.Queue())

    in_namespace(kind, use)
    counters = ffi.new("jnq_counters *")
    lib.jnq_count(q._handle, counters)
    assert (counters.processes, counters.deaths, counters.recoveries) == (1, 0, 0)
    assert q.get_nowait() == "before"
    is_whole(q)


# Many processes ---------------------------------------------------------------------------


def test_300_processes_share_a_queue():
    """Of 300 processes some are killed; every task of the others is accounted for."""
    rounds, crowd = 20, 300
    q = joinq.JoinableQueue()
    taken = multiprocessing.RawArray(ctypes.c_long, crowd)
    (ready, say_ready), (go, say_go) = os.pipe(), os.pipe()

    def work(who, doomed):
        os.close(say_go)
        os.write(say_ready, b".")
        os.read(go, 1)  # until everybody has closed the other end
        for number in range(rounds):
            q.put(payloads.make_item(who, number, (10, 9000)))
            if not doomed:
                payloads.check_item(q.get(timeout=LIMIT))
                taken[who] += 1
                q.task_done()
        if doomed:
            time.sleep(LIMIT)

    doomed = range(0, crowd, 10)
    children = [workers.fork(lambda who=who: work(who, who in doomed)) for who in range(crowd)]
    for _ in children:
        os.read(ready, 1)
    os.close(say_go)
    chance = random.Random(1)
    for who in doomed:
        time.sleep(chance.random() / 100)
        os.kill(children[who], signal.SIGKILL)
    for fd in (ready, say_ready, go):
        os.close(fd)
    endings = [workers.wait_for(pid) for pid in children]
    assert [who for who in range(crowd) if endings[who]] == [*doomed]
    assert sum(taken) == rounds * (crowd - len(doomed))
    assert lib.jnq_reap(q._handle) == 0
    probes.check_invariants(q)
    assert q.unfinished_tasks == q.qsize() <= rounds * len(doomed)
    while not q.empty():
        payloads.check_item(q.get_nowait())
        q.task_done()
    q.join(1)
    counters = ffi.new("jnq_counters *")
    lib.jnq_count(q._handle, counters)
    assert counters.processes == 1
    is_whole(q)


def test_forks_in_the_middle_of_other_threads_operations():
    """Whatever other threads were doing when a child was forked, it can do everything; every count is exact."""
    q = joinq.JoinableQueue()
    puts = multiprocessing.RawArray(ctypes.c_long, 4)
    stop = threading.Event()
    errors = []

    def use(who, until):
        box = ffi.new("jnq_box *")
        number = 0
        while not until(number):
            for size in (10, 5000, 40_000):
                q.put(payloads.make_item(who, number, (size,)))
                puts[who] += 1
                payloads.check_item(q.get(timeout=LIMIT))
                q.task_done()
            if lib.jnq_get(q._handle, box, 0) >= lib.JNQ_LARGE:
                assert lib.jnq_unget(q._handle, box) == 0
            number += 1

    def run(who):
        try:
            use(who, lambda number: stop.is_set())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(who,), daemon=True) for who in range(3)]
    for thread in threads:
        thread.start()
    chance = random.Random(1)
    for _ in range(300):
        time.sleep(chance.random() / 1000)
        assert workers.wait_for(workers.fork(lambda: use(3, lambda number: number == 2))) == 0
    stop.set()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()
    assert not errors
    q.join(LIMIT)
    counters = ffi.new("jnq_counters *")
    lib.jnq_count(q._handle, counters)
    assert puts[3] == 300 * 6
    assert counters.puts == counters.dones == sum(puts)
    assert counters.queued == counters.recoveries == 0
    is_whole(q)
