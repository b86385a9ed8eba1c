"""Queues of other processes: found, read, never disturbed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile

import probes
import pytest
import workers
from probes import LIMIT

import joinq
from joinq import _native, _observe
from joinq._native import lib


def view(q):
    """What an outsider sees of a queue of this process."""
    return next(view for seen in _observe.find(os.getpid()) if (view := seen.look()).id == lib.jnq_id(q._handle))


def found(q):
    """Where a queue is found among those of all programs, of which some may be another build's, or about to end."""

    def is_it(seen):
        with contextlib.suppress(RuntimeError, OSError, EOFError):
            return seen.look().id == number
        return False

    number = q if isinstance(q, int) else lib.jnq_id(q._handle)
    return [seen for seen in _observe.find() if is_it(seen)]


@pytest.mark.parametrize("kind", ["JoinableQueue", "Queue", "SimpleQueue"])
def test_same_as_from_inside(kind):
    """A picture tells what the queue itself does."""
    q = getattr(joinq, kind)(name="resize")
    for number in range(100):
        q.put(number)
    q.get()
    seen = view(q)
    assert (seen.name, seen.kind, seen.maxsize, seen.is_shutdown) == ("resize", kind, 0, False)
    assert seen.stats == q.stats()
    [mine], [theirs] = q.holders(), seen.holders
    for name in ("pid", "name", "alive", "tasks", "puts", "gets", "waits"):
        assert getattr(mine, name) == getattr(theirs, name)


def test_what_a_queue_was_told():
    """Its options, and that it has ended."""
    q = joinq.JoinableQueue(7, on_death="redeliver", max_deliveries=5, name="x")
    q.shutdown()
    seen = view(q)
    assert (seen.maxsize, seen.on_death, seen.max_deliveries) == (7, "redeliver", 5)
    assert seen.is_shutdown
    assert seen.owners_known


PROGRAM = """
import sys, joinq
q = joinq.JoinableQueue(name="theirs")
for number in range(10):
    q.put(number)
q.get(), q.get(), q.task_done()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def program():
    """Another program, which has done something and waits."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], **pipes)
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.stdin.close()
    process.wait()
    process.stdout.close()


def test_exact_at_a_barrier(program):
    """Nobody is in a call: the counts are exact."""
    [seen] = _observe.find(program.pid)
    assert seen.pids == {program.pid}
    stats = seen.look().stats
    assert (stats.puts, stats.gets, stats.task_dones) == (10, 2, 1)
    assert (stats.queued, stats.in_flight, stats.unfinished) == (8, 1, 9)
    [holder] = seen.look().holders
    assert (holder.pid, holder.name, holder.tasks, holder.alive) == (program.pid, "MainProcess", 1, True)


def test_among_all_processes(program):
    """Without a pid."""
    assert any(program.pid in seen.pids for seen in _observe.find())


def test_the_program_is_not_disturbed(program):
    """It has no more descriptors, its queue no more processes, and who looks cannot put."""
    before = sorted(os.listdir(f"/proc/{program.pid}/fd"))
    [seen] = _observe.find(program.pid)
    assert seen.look().stats.processes == 1
    assert sorted(os.listdir(f"/proc/{program.pid}/fd")) == before
    assert not os.stat(f"/proc/self/fd/{seen._fd}", follow_symlinks=False).st_mode & 0o200


def test_of_a_dead_program(program):
    """What was found can be looked at, and tells what has happened."""
    [seen] = _observe.find(program.pid)
    program.kill()
    program.wait()
    [holder] = seen.look().holders
    assert (holder.alive, holder.tasks, holder.exitcode) == (False, 1, None)
    with pytest.raises(ProcessLookupError, match=f"there is no process {program.pid}"):
        _observe.find(program.pid)


def test_queue_is_found_once(launch):
    """In whichever of its processes."""
    q = joinq.JoinableQueue(name="one")
    child = launch(workers.puppet, q)
    child.call("qsize")
    ids = [seen.look().id for seen in _observe.find(child.pid)]
    assert ids.count(lib.jnq_id(q._handle)) == 1
    [everywhere] = found(q)
    assert {os.getpid(), child.pid} <= everywhere.pids


def test_observers_do_not_count():
    """A queue that is only looked at is nobody's any more."""
    q = joinq.Queue(name="x")
    number = lib.jnq_id(q._handle)
    [seen] = [seen for seen in _observe.find(os.getpid()) if seen.look().id == number]
    del q
    assert seen.look().id == number
    assert found(number) == []


def test_file_that_is_no_memfd(monkeypatch):
    """Where there is none, a queue is an unlinked file."""

    def file():
        with tempfile.TemporaryFile() as opened:
            return os.dup(opened.fileno())

    monkeypatch.setattr(_native, "_anonymous_file", file)
    q = joinq.Queue(name="unlinked")
    assert view(q).name == "unlinked"


def test_descriptor_was_closed(launch):
    """By a program that closes what it does not know: it has the queue mapped, and somebody else the descriptor."""
    q = joinq.Queue(name="hidden")
    child = launch(workers.hide_descriptor, q)
    assert child.receive() == "hidden"
    names = {seen.look().name for seen in _observe.find(child.pid)}
    child.send("end")
    assert "hidden" in names


def test_who_died(launch):
    """The last of them: how, and with how many tasks."""
    q = joinq.JoinableQueue(name="x")
    q.put(0)
    child = launch(workers.puppet, q)
    child.call("get")
    os.kill(child.pid, signal.SIGKILL)
    child.process.join()
    probes.reap(q)
    [death] = view(q).deaths
    assert (death.pid, death.name, death.exitcode, death.tasks) == (child.pid, child.process.name, -signal.SIGKILL, 1)
    assert str(death) == f"process {child.pid} ({child.process.name}) was killed by SIGKILL"


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
def test_only_the_last_of_the_dead_are_remembered(launch):
    """And all are counted."""
    q = joinq.Queue(name="x")
    pids = []
    for _ in range(10):
        child = launch(workers.puppet, q)
        child.call("put", 1)
        pids.append(child.pid)
        child.kill()
        probes.reap(q)
    seen = view(q)
    assert seen.stats.deaths == 10
    assert [death.pid for death in seen.deaths] == pids[-7:]


def test_who_ends_in_order_has_not_died(ctx):
    """Only its entry is freed."""
    q = joinq.Queue()
    process = ctx.Process(target=q.put, args=(1,))
    process.start()
    process.join()
    probes.reap(q)
    assert (q.stats().deaths, q.stats().processes) == (0, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_process_is_refused(program):
    """With the name of the user, and what would help."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            _observe.find(program.pid)
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with open(reader) as end:
        text = end.read()
    assert text == (f"PermissionError: process {program.pid} belongs to user root; look at it as that user, or as root")


def rewritten(q, offset, word):
    """A file as the queue's, but for one word."""
    fd = os.memfd_create("joinq")
    size = os.fstat(lib.jnq_fileno(q._handle)).st_size
    os.truncate(fd, size)
    os.pwrite(fd, os.pread(lib.jnq_fileno(q._handle), 1 << 20, 0), 0)
    os.pwrite(fd, word, offset)
    return fd


def test_another_version_is_refused():
    """It says what would help."""
    fd = rewritten(joinq.Queue(), 8, b"\xff")
    try:
        found = [seen for seen in _observe.find(os.getpid()) if os.path.sameopenfile(seen._fd, fd)]
        with pytest.raises(RuntimeError, match=f"queue of process {os.getpid()} .* same joinq in all processes"):
            found[0].look()
    finally:
        os.close(fd)


def test_garbage_harms_nobody():
    """Whatever is in the file, looking gives a picture, or an error of ours."""
    q = joinq.JoinableQueue(name="x")
    q.put(1)
    pictures = 0
    for offset in range(0, 8192, 8):
        for word in (b"\xff" * 8, b"\0" * 7 + b"\x80", b"\x01" * 8):
            fd = rewritten(q, offset, word)
            try:
                _observe.Seen({1}, fd).look()
                pictures += 1
            except (RuntimeError, EOFError):
                pass
    assert pictures > 1000


def test_short_files_are_no_queues():
    """Nor is what only begins as one."""
    for content in (b"", b"x", bytes(4096)):
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()
            assert _native.look(file.fileno()) is None
    with open(os.devnull) as file:
        assert _native.look(file.fileno()) is None


def test_sound_at_full_speed(launch):
    """While the queue runs the figures fit each other, nearly always those of one moment; at the end they are exact."""
    q = joinq.JoinableQueue(name="stream")
    n = 30_000
    children = [launch(workers.put_numbers, q, n), launch(workers.finish_numbers, q, n)]
    [seen] = [seen for seen in _observe.find(os.getpid()) if seen.look().name == "stream"]
    while True:
        stats = seen.look().stats
        assert stats.puts <= n
        assert stats.gets <= n
        if stats.task_dones == n:
            break
    for child in children:
        child.result()
    assert seen.look().stats == q.stats()


LOOKER = """
import sys
from joinq import _observe
[seen] = [seen for seen in _observe.find(int(sys.argv[1])) if seen.look().name == "victim"]
print("looking", flush=True)
while True:
    seen.look()
"""


def test_killing_who_looks_disturbs_nothing():
    """At any moment: it holds nothing."""
    q = joinq.JoinableQueue(name="victim")
    for _ in range(5):
        looker = subprocess.Popen([sys.executable, "-c", LOOKER, str(os.getpid())], stdout=subprocess.PIPE)
        assert looker.stdout.readline() == b"looking\n"
        for number in range(200):
            q.put(number)
            assert q.get(timeout=LIMIT) == number
            q.task_done()
        looker.send_signal(signal.SIGKILL)
        looker.wait()
        looker.stdout.close()
        q.join(LIMIT)
    probes.check_invariants(q)
    counters = probes.counters(q)
    assert (counters["processes"], counters["deaths"], counters["recoveries"]) == (1, 0, 0)
