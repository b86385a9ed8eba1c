"""
Tell what this machine offers, what joinq makes of it, and whether it works here.

Exit code: 0; 1 if a part of the self-test fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import multiprocessing
import os
import platform
import resource
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Any, Callable, NamedTuple

import joinq
from joinq import _processes
from joinq._native import ffi, lib
from joinq._observe import find

_PATIENCE = 30.0  # Seconds for any one step of the self-test.
_SPINNERS = 8  # Never more at once: SPIN_SLOTS in layout.h.
_YAMA = "/proc/sys/kernel/yama/ptrace_scope"


class Fact(NamedTuple):
    """Something that is so, and what follows from it, if it is not obvious."""

    value: Any
    remark: str = ""


class Trial(NamedTuple):
    """A part of the self-test."""

    passed: bool
    seconds: float
    remark: str


# What there is ----------------------------------------------------------------------------


def machine() -> dict[str, Fact]:
    """Return what the machine, the system and the limits of this process are like."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "kernel": Fact(f"{platform.system()} {platform.release()} {platform.machine()}"),
        "C library": Fact(" ".join(platform.libc_ver()).strip() or "unknown"),
        "CPUs": Fact(joinq.cpu_count()),
        "CPUs of this process": Fact(joinq.process_cpu_count()),
        "CPUs within cgroup limits": Fact(joinq.available_cpu_count()),
        "memory": Fact(memory),
        "cgroup memory limit": Fact(_memory_limit(memory)),
        "memfd": Fact(_has_memfd()),
        "robust locks": Fact(_has_robust_locks()),
        "/dev/shm": Fact(_shm(), "joinq does not use it; semaphores of multiprocessing, and torch, do"),
        "RLIMIT_AS": Fact(_limit(resource.RLIMIT_AS), "address space: a queue reserves an eighth at most"),
        "RLIMIT_FSIZE": Fact(_limit(resource.RLIMIT_FSIZE), "no queue can hold more"),
        "RLIMIT_NOFILE": Fact(_limit(resource.RLIMIT_NOFILE), "each queue takes one descriptor"),
        "/proc": Fact(os.path.exists("/proc/self/fd"), "`top` and `why` find queues there, and receivers of sent ones"),
        "/proc hidepid": Fact(_hidepid(), "other than 0: other users' processes are hidden"),
        "Yama ptrace_scope": Fact(
            _processes._read(_YAMA).strip() or None, "does not matter: `top` and `why` only read"
        ),
    }


def uses() -> dict[str, Fact]:
    """Return what joinq does with that."""
    try:
        queue = joinq.Queue(name="doctor")
    except Exception as error:  # Why, is what people have come for.
        return {"shared memory": Fact(None, f"no queue can be made: {type(error).__name__}: {error}")}
    counters = ffi.new("jnq_counters *")
    lib.jnq_count(queue._handle, counters)
    path = os.readlink(f"/proc/self/fd/{lib.jnq_fileno(queue._handle)}") if os.path.exists("/proc/self/fd") else ""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    spinners = min(cpus - 1, _SPINNERS)
    return {
        "shared memory": Fact("memfd" if path.startswith("/memfd:") else "an unlinked file"),
        "bytes reserved by a queue": Fact(counters.segment_bytes, "of address space, not of memory"),
        "a waiter sleeps by": Fact(ffi.string(lib.jnq_door()).decode()),
        "waiters that spin first": Fact(spinners, "at most so many at once" if spinners else "there is only one CPU"),
    }


def _memory_limit(memory: int) -> int | None:
    """Return the smallest limit of the control groups around this process, None if there is none below the memory."""
    texts = (
        _processes._read(f"{path}/{name}")
        for path in _processes._cgroups("memory")
        for name in ("memory.max", "memory.limit_in_bytes")
    )
    limits = [int(text) for text in texts if text.strip().isdecimal()]
    return min((limit for limit in limits if limit < memory), default=None)


def _limit(which: int) -> int | None:
    soft = resource.getrlimit(which)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _has_memfd() -> bool:
    try:
        os.close(os.memfd_create("joinq"))
    except (AttributeError, OSError):
        return False
    return True


def _has_robust_locks() -> bool:
    """Return whether a lock tells that its owner has died holding it."""
    libc = ctypes.CDLL(None, use_errno=True)
    shared = mmap.mmap(-1, 4096)
    lock = ctypes.c_char.from_buffer(shared)
    attributes = ctypes.create_string_buffer(64)
    shares = 1  # PTHREAD_PROCESS_SHARED, and PTHREAD_MUTEX_ROBUST, of all C libraries of Linux
    try:
        libc.pthread_mutexattr_init(attributes)
        libc.pthread_mutexattr_setpshared(attributes, shares)
        if libc.pthread_mutexattr_setrobust(attributes, shares):
            return False
        libc.pthread_mutex_init(ctypes.byref(lock), attributes)
    except AttributeError:
        return False
    pid = os.fork()
    if not pid:
        libc.pthread_mutex_lock(ctypes.byref(lock))
        os._exit(0)
    os.waitpid(pid, 0)
    told: bool = libc.pthread_mutex_trylock(ctypes.byref(lock)) == errno.EOWNERDEAD
    if told:
        libc.pthread_mutex_unlock(ctypes.byref(lock))  # Its memory is about to go.
    return told


def _shm() -> int | None:
    try:
        status = os.statvfs("/dev/shm")
    except OSError:
        return None
    return status.f_frsize * status.f_blocks


def _hidepid() -> str:
    for line in _processes._read("/proc/self/mountinfo").splitlines():
        mount, _, kind = line.partition(" - ")
        if mount.split(" ")[4:5] == ["/proc"]:
            for option in kind.split(" ")[-1].split(","):
                if option.startswith("hidepid="):
                    return option[8:]
    return "0"


# Whether it works -------------------------------------------------------------------------


def square(tasks: joinq.JoinableQueue, results: joinq.Queue) -> None:
    """Be a worker: square numbers until there is a None."""
    for number in iter(tasks.get, None):
        results.put(number * number)
        tasks.task_done()


def take_and_hang(tasks: joinq.JoinableQueue) -> None:
    """Take a task, and never finish it."""
    tasks.get()
    threading.Event().wait()


def echo(questions: joinq.Queue, answers: joinq.Queue) -> None:
    """Send everything back until there is a None."""
    for item in iter(questions.get, None):
        answers.put(item)


@contextlib.contextmanager
def _child(method: str, target: Callable[..., None], *args: Any) -> Iterator[Any]:
    """Yield a process that runs a function; it does not outlive the block."""
    process = multiprocessing.get_context(method).Process(target=target, args=args, daemon=True)  # type: ignore[attr-defined]
    process.start()
    try:
        yield process
        process.join(_PATIENCE)
    finally:
        process.kill()
        process.join()


def _check(condition: object, what: str) -> None:
    if not condition:
        raise RuntimeError(what)


def _until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        _check(time.monotonic() < deadline, f"waited for {_PATIENCE:g} s until {what}")
        time.sleep(0.001)


def _work(method: str) -> str:
    tasks, results = joinq.JoinableQueue(), joinq.Queue()
    with _child(method, square, tasks, results):
        for number in range(1000):
            tasks.put(number)
        tasks.join(_PATIENCE)
        tasks.put(None)
        found = [results.get(timeout=_PATIENCE) for _ in range(1000)]
    _check(found == [number * number for number in range(1000)], "the results are wrong")
    return "1000 tasks"


def _redelivered() -> str:
    tasks = joinq.JoinableQueue(on_death="redeliver")
    tasks.put("task")
    with _child("fork", take_and_hang, tasks) as worker:
        _until(lambda: tasks.stats().in_flight, "a worker has taken the task")
        worker.kill()
        began = time.monotonic()
        _check(tasks.get(timeout=_PATIENCE) == "task", "another task came back")
        seconds = time.monotonic() - began
        tasks.task_done()
        tasks.join(_PATIENCE)
    return f"the task was back after {seconds * 1e3:.0f} ms"


def _told() -> str:
    tasks = joinq.JoinableQueue()
    tasks.put("task")
    with _child("fork", take_and_hang, tasks) as worker:
        _until(lambda: tasks.stats().in_flight, "a worker has taken the task")
        worker.kill()
        try:
            tasks.join(_PATIENCE)
        except joinq.LostTasks as lost:
            return f"join() says: {lost.processes[0].name} had {lost.processes[0].tasks}, exit code {-signal.SIGKILL}"
    raise RuntimeError("join() returned, but the task is lost")


def _woken() -> str:
    questions, answers = joinq.Queue(), joinq.Queue()
    seconds = []
    with _child("fork", echo, questions, answers):
        for number in range(20):
            _until(lambda: questions.stats().readers_blocked, "the reader sleeps")
            time.sleep(0.01)  # So does its CPU.
            began = time.perf_counter()
            questions.put(number)
            _check(answers.get(timeout=_PATIENCE) == number, "another item came back")
            seconds.append(time.perf_counter() - began)
        _check(questions.stats().wakeups, "the reader was never woken, it looked by itself")
        questions.put(None)
    return f"there and back in {statistics.median(seconds) * 1e6:.0f} us (median of {len(seconds)})"


def _seen() -> str:
    tasks = joinq.JoinableQueue(name="doctor")
    tasks.put("task")
    with _child("fork", take_and_hang, tasks) as worker:
        _until(lambda: tasks.stats().in_flight, "a worker has taken the task")
        views = [seen.look() for seen in find(worker.pid)]
        held = [holder.tasks for view in views if view.name == "doctor" for holder in view.holders]
        _check(sorted(held) == [0, 1], f"processes hold {held} tasks, not 0 and 1")
        worker.kill()
    return "its queues and tasks"


def trials() -> dict[str, Callable[[], str]]:
    """Return the parts of the self-test; each gives a remark, or raises."""
    methods = multiprocessing.get_all_start_methods()
    return {
        **{f"work in a process ({method})": lambda method=method: _work(method) for method in methods},  # type: ignore[misc]
        "killed with a task in hand: told": _told,
        "killed with a task in hand: redelivered": _redelivered,
        "wake-up of a sleeper": _woken,
        "another process seen from outside": _seen,
    }


def attempt(trial: Callable[[], str]) -> Trial:
    """Return how a part of the self-test went."""
    began = time.monotonic()
    try:
        passed, remark = True, trial()
    except Exception as error:  # Whatever it is, it is the finding.
        passed, remark = False, f"{type(error).__name__}: {error}"
    return Trial(passed, time.monotonic() - began, remark)


# The command ------------------------------------------------------------------------------


def doctor(as_json: bool) -> int:
    """Print all of it; return the exit code."""
    versions = {"joinq": Fact(metadata.version("joinq")), "Python": Fact(sys.version.split()[0])}
    facts = {"versions": versions, "machine": machine(), "joinq uses": uses()}
    results = {}
    if not as_json:
        for title, section in facts.items():
            print(title)
            for name, fact in section.items():
                remark = f"  ({fact.remark})" if fact.remark else ""
                print(f"  {name:28}{_text(fact.value)}{remark}")
        print("self-test")
    for name, trial in trials().items():
        result = results[name] = attempt(trial)
        if not as_json:
            print(f"  {name:42}{'pass' if result.passed else 'FAIL'}  {result.remark}", flush=True)
    passed = all(result.passed for result in results.values())
    if as_json:
        values = {title: {name: fact.value for name, fact in section.items()} for title, section in facts.items()}
        tests = {name: result._asdict() for name, result in results.items()}
        print(json.dumps({**values, "self-test": tests, "passed": passed}, indent=2))
    return 0 if passed else 1


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, int) and value >= 1 << 20:
        return f"{value / (1 << 30):.1f} GiB" if value >= 1 << 30 else f"{value / (1 << 20):.0f} MiB"
    return str(value)
