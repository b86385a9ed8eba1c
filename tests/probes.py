"""
How the tests look at processes, at memory and into queues.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from joinq import _native
from joinq._native import ffi, lib

LIMIT = 60.0
"""Seconds any single step of any test may take before it counts as hung."""


def wait_until(condition, what):
    """Wait for something nobody announces; fail if it does not come."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"after {LIMIT:g} s still not true: {what}"
        time.sleep(0.001)


def counters(queue):
    """The core's figures."""
    out = ffi.new("jnq_counters *")
    lib.jnq_count(queue._handle, out)
    return {name: getattr(out, name) for name, _ in ffi.typeof("jnq_counters").fields}


def attach_anew(fd):
    """Attach to a queue that this process may have already: to another handle."""
    _native._handles.clear()
    return _native.attach(fd)


def reap(queue):
    """Look for dead processes now."""
    assert lib.jnq_reap(queue._handle) == 0


def check_invariants(queue):
    """Fail unless the queue's memory is in order, and show its figures."""
    broken = lib.jnq_check(queue._handle)
    assert not broken, f"invariant {broken} does not hold: {counters(queue)}"


def state(pid):
    """What the main thread of a process does: R is running, S sleeping, T stopped, Z dead, X dead and gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def runs(pid):
    """Whether the main thread of a process wants the CPU: it is neither asleep nor dead."""
    return state(pid) not in "SZX"


def thread_state(thread):
    """What a thread of this process does."""
    return state(f"self/task/{thread.native_id}")


def thread_sleeps(thread):
    """Whether a thread of this process sleeps, and not only for want of the GIL."""
    for _ in range(10):
        if thread_state(thread) != "S":
            return False
        time.sleep(0.001)
    return True


def descriptors(pid="self"):
    """What every open file descriptor of a process refers to, as far as we may see."""
    links = {}
    with contextlib.suppress(OSError):  # it has ended, or is not ours
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # closed since, as the one that listed the directory
                links[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
    return links


def segments():
    """The descriptors of joinq's segments in this process."""
    return {fd for fd, link in descriptors().items() if link.startswith("/memfd:joinq")}


def segment_inodes(pid):
    """The segments that a process has open, as far as we may see."""
    inodes = []
    for fd, link in descriptors(pid).items():
        if link.startswith("/memfd:joinq"):
            with contextlib.suppress(OSError):
                inodes.append(os.stat(f"/proc/{pid}/fd/{fd}").st_ino)
    return inodes


def keeper_of(address):
    """The pid of the keeper with this address, or None."""
    name = "@" + address[1:].decode()
    for line in Path("/proc/net/unix").read_text().splitlines():
        fields = line.split()
        if fields[-1] == name and int(fields[3], 16) & 0x10000:  # it listens
            for pid in filter(str.isdigit, os.listdir("/proc")):
                if f"socket:[{fields[6]}]" in descriptors(pid).values():
                    return int(pid)
    return None


def memory_of(fds):
    """Bytes of memory behind some segments."""
    return sum(os.stat(fd).st_blocks * 512 for fd in fds)


def read_field(path, name):
    """The first number after ``name:`` in a file of /proc."""
    fields = dict(line.split(":", 1) for line in Path(path).read_text().splitlines())
    return int(fields[name].split()[0])


def resident(pid="self"):
    """Bytes of a process in memory, without what it shares."""
    return read_field(f"/proc/{pid}/status", "RssAnon") * 1024


def available_memory():
    """Bytes that this machine has left."""
    return read_field("/proc/meminfo", "MemAvailable") * 1024
