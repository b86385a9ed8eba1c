"""
Fixtures: the implementation under test, the start method, and child processes.

No child outlives its test, and nothing waits for ever: a test that hangs fails, with the
stacks of the children it had.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import time
from multiprocessing import connection

import probes
import pytest
import workers
from probes import LIMIT

# In the background of a shell SIGINT is ignored, and would be in all children.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def watchdog(request):
    """Fail a test that hangs, instead of waiting for ever."""
    limit = LIMIT * (15 if request.node.get_closest_marker("slow") else 3)

    def expired(signum, frame):
        faulthandler.dump_traceback(file=2)
        pytest.fail(f"not finished after {limit:g} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, limit)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def ctx(request):
    """The multiprocessing context; a test that asks for it runs with every start method."""
    return multiprocessing.get_context(request.param)


@pytest.fixture(params=["stdlib", "joinq"])
def impl(request):
    """Who provides JoinableQueue, Queue and SimpleQueue: the stdlib (a context), or joinq."""
    if request.param == "joinq":
        import joinq

        return joinq
    if "ctx" in request.fixturenames:
        return request.getfixturevalue("ctx")
    return multiprocessing.get_context("fork")


@pytest.fixture(params=["JoinableQueue", "Queue"])
def make(request, impl):
    """The constructor of each kind of queue that has a maxsize, by each implementation."""
    return getattr(impl, request.param)


class Child:
    """A process that runs a function of workers.py, and the pipe to it."""

    def __init__(self, ctx, function, args, daemon):
        self.name = function.__name__
        self.channel, theirs = ctx.Pipe()
        self.process = ctx.Process(target=workers.main, args=(theirs, function, *args), daemon=daemon)
        self.process.start()
        theirs.close()
        self.pid = self.process.pid
        self.send = self.channel.send

    def receive(self):
        """The next message; fails if the child raised, died, or says nothing for too long."""
        connection.wait([self.channel, self.process.sentinel], LIMIT)
        if not self.channel.poll():
            self.give_up(f"said nothing for {LIMIT:g} s")
        try:
            message = self.channel.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(LIMIT)
            pytest.fail(f"{self.name} died with exit code {self.process.exitcode}")
        if isinstance(message, workers.Failure):
            pytest.fail(f"in {self.name}:\n{message.traceback}")
        return message

    def result(self):
        """What the function returned, once the process has ended."""
        result = self.receive()
        self.process.join(LIMIT)
        if self.process.is_alive():
            self.give_up("returned, but its process does not end")
        assert self.process.exitcode == 0
        return result

    def begin(self, name, *args, **kwargs):
        """Let a puppet start a call, without waiting for the outcome."""
        self.send((name, args, kwargs))
        assert self.receive() == "begun"

    def outcome(self):
        """The outcome of the call a puppet is in: its value, or the exception it raised."""
        returned, value = self.receive()
        if returned:
            return value
        raise value

    def call(self, name, *args, **kwargs):
        """Let a puppet make a call."""
        self.begin(name, *args, **kwargs)
        return self.outcome()

    def begin_and_sleep(self, name, *args, **kwargs):
        """Let a puppet start a call that has to block, and wait until it does."""
        self.begin(name, *args, **kwargs)
        self.wait_asleep()

    def wait_asleep(self):
        """Wait until the child sleeps in the kernel, having said nothing since."""
        probes.wait_until(lambda: probes.state(self.pid) == "S", f"{self.name} sleeps")
        assert not self.channel.poll(), f"{self.name} said {self.channel.recv()}"

    def kill(self):
        """Kill without warning; return the messages it had sent and nobody had read."""
        os.kill(self.pid, signal.SIGKILL)
        self.process.join()
        said = []
        with contextlib.suppress(EOFError, ConnectionResetError):
            while self.channel.poll():
                said.append(self.channel.recv())
        self.close()
        return said

    def show_stacks(self):
        """Let the child write its threads' stacks to stderr."""
        os.kill(self.pid, signal.SIGUSR1)
        time.sleep(0.5)

    def give_up(self, why):
        """Show where the child is, kill it, fail."""
        self.show_stacks()
        self.kill()
        pytest.fail(f"{self.name} {why} (stacks on stderr)")

    def ends(self, deadline):
        """Tell a puppet to end; return whether the process has ended in time."""
        if self.channel.closed:
            return True
        with contextlib.suppress(OSError):
            self.send(None)
        self.process.join(max(0, deadline - time.monotonic()))
        if self.process.is_alive():
            return False
        self.close()
        return True

    def close(self):
        """Give back the descriptors of a process that has ended."""
        self.channel.close()
        self.process.close()


@pytest.fixture
def launch(ctx):
    """Start children: ``launch(workers.function, *args)``. All must end with the test."""
    children = []

    def launch(function, *args, daemon=True):
        children.append(Child(ctx, function, args, daemon))
        return children[-1]

    yield launch
    deadline = time.monotonic() + 10
    stuck = [child for child in children if not child.ends(deadline)]
    for child in stuck:
        child.show_stacks()
        child.kill()
    names = [child.name for child in stuck]
    assert not names, f"still running after the test (stacks on stderr): {names}"
