"""
Random operations, by several processes, compared with what they must do: tests/oracle.py, or the stdlib's queues.

Pytest runs the same two hundred programs each time. As many other ones as one likes, each of them different, with

    python tests/test_machine.py COUNT [WORD]

of the tests whose name holds the word. What they find they shrink, print as a program, and try first the next time.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import pickle
import random
import select
import signal
import sys
import threading
import time
import warnings
from multiprocessing.reduction import ForkingPickler

import hypothesis
import payloads
import probes
import pytest
import workers
from conftest import Child
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from oracle import Oracle, User
from payloads import Pickled, Pickling
from probes import LIMIT

import joinq
from joinq import _native
from joinq._holders import holders
from joinq._native import ffi, lib

pytestmark = pytest.mark.filterwarnings("ignore::joinq.DeadLetterWarning")

# What is put -----------------------------------------------------------------------------------


def around(*numbers):
    return st.sampled_from([number + by for number in numbers for by in (-1, 0, 1)])


def pattern(size):
    return (b"%d;" % size * (size // 2 + 1))[:size]


OVERHEAD = len(pickle.dumps(bytes(5000))) - 5000
"""Bytes that pickle adds to long bytes."""

LIMITS = [lib.JNQ_INLINE_BYTES, 16, 48, 4096, 65536, 2 * 65536]
"""Sizes of payloads at which the core does something else."""

BORDERS = [sign * 2**bits for bits in (61, 62, 63, 64) for sign in (1, -1)]

PLAIN = st.one_of(
    st.integers(-3, 3),
    around(*BORDERS, 2**63, -(2**63), 2**200),
    st.sampled_from([None, True, False, 0.0, -1.5, math.inf, "", "Zażółć \0 \U0001f600", b""]),
    around(*[limit - OVERHEAD for limit in LIMITS if limit > 1000], *LIMITS).map(pattern),
    st.integers(0, 300_000).map(pattern),
    st.integers(0, 10_000).map(lambda size: "ż" * size),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
    st.builds(payloads.Point, st.integers(), st.just("y")),
)

CANNOT_BE_PICKLED = st.sampled_from([Pickling(payloads.fail, "no way"), Pickling(threading.Lock)])

CANNOT_BE_UNPICKLED = st.sampled_from(
    [Pickled(payloads.fail, "no way back"), Pickled(payloads.fail, "x" * 9000), Pickled(payloads.fail, "y" * 90_000)]
)

CAN_BE_INTERRUPTED = st.sampled_from([0, 9000, 90_000]).map(
    lambda size: Pickled(payloads.interrupt_once, "interruptible", "x" * size)
)

VALUES = st.one_of(PLAIN, PLAIN, CANNOT_BE_PICKLED, CANNOT_BE_UNPICKLED, CAN_BE_INTERRUPTED)


def parcel(value):
    """What arrives as the value itself, if that is pickled on its way to a puppet."""
    if isinstance(value, list):
        return [parcel(item) for item in value]
    if isinstance(value, Pickled):
        return Pickled(Pickled, value.call[0], *value.call[1])
    if isinstance(value, Pickling):
        return Pickled(Pickling, value.function, *value.args)
    return value


# How it is put and got ----------------------------------------------------------------------------

PATIENT = [{}, {"block": True}, {"timeout": None}, {"timeout": LIMIT}, {"block": True, "timeout": math.inf}]
AT_ONCE = [{"block": False}, {"timeout": 0}, {"timeout": -0.5}, {"timeout": 0.001}, {"block": False, "timeout": 5}]
WRONG = [{"timeout": math.nan}, {"timeout": "1"}, {"block": False, "timeout": "not looked at"}]
WAYS = st.sampled_from(["nowait", *PATIENT, *AT_ONCE, *WRONG])


def spelled(name, way, ready):
    """The name of the method and its arguments; one that does not wait unless the queue is ready."""
    if way == "nowait":
        return f"{name}_nowait", {}
    return name, way if ready or way not in PATIENT else {"block": False}


# What comes of a call ------------------------------------------------------------------------------


def outcome(function, *args, **kwargs):
    """(the type of the exception, or None; what is returned, or the exception)."""
    try:
        value = function(*args, **kwargs)
    except Exception as error:
        error.__traceback__ = None
        return type(error), error
    return None, value


def agree(one, other):
    """Whether two outcomes are the same, but for the text of an exception."""
    (error, value), (other_error, other_value) = one, other
    if error is other_error and getattr(value, "items_put", None) != getattr(other_value, "items_put", None):
        return False
    return error is other_error and (error or (type(value) is type(other_value) and value == other_value))


class Here:
    """A queue of this process."""

    local = True

    def __init__(self, queue):
        self.queue = queue
        self.user = User(os.getpid())

    def call(self, name, *args, **kwargs):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", joinq.DeadLetterWarning)
            try:
                attribute = getattr(self.queue, name)
                return attribute(*args, **kwargs) if callable(attribute) else attribute
            finally:
                self.user.letters_told += len(warned)

    def second(self):
        """Another handle of the queue, as if another process had it."""
        fd = os.dup(lib.jnq_fileno(self.queue._handle))
        queue = type(self.queue).__new__(type(self.queue))
        queue._use(probes.attach_anew(fd))
        queue._reset_state(self.queue._maxsize, os.getpid())
        _native._handles.clear()
        _native._handles[_native._identity(fd)] = self.queue._handle
        return Here(queue)

    def end(self, killed):
        """Give the handle up, as the garbage collector would."""
        ffi.release(self.queue._handle)


class Elsewhere(Child):
    """The queue in a child process."""

    local = False

    def __init__(self, method, queue):
        super().__init__(multiprocessing.get_context(method), workers.puppet, (queue,), daemon=True)
        self.user = User(self.pid)

    def begin(self, name, *args, **kwargs):
        super().begin(name, *map(parcel, args), **kwargs)

    def end(self, killed):
        if killed:
            self.kill()
        else:
            assert self.ends(time.monotonic() + LIMIT), "the puppet does not end"


class Machine(RuleBasedStateMachine):
    """One queue, used here, through a second handle here, and by children that come and go."""

    on_death: str | None = "raise"
    method = "fork"

    def make(self, maxsize, **options):
        kind = joinq.Queue if self.on_death is None else joinq.JoinableQueue
        return kind(maxsize, **options)

    @initialize(
        maxsize=st.sampled_from([0, 0, -1, 1, 2, 3, True, False, 10, 2**70]),
        max_deliveries=st.integers(1, 3),
        values=st.lists(PLAIN | CAN_BE_INTERRUPTED, max_size=8),
        arrivals=st.lists(st.booleans(), max_size=3),
    )
    def create(self, maxsize, max_deliveries, values, arrivals):
        options = {"on_death": self.on_death, "max_deliveries": max_deliveries} if self.on_death else {}
        self.here = Here(self.make(maxsize, **options))
        self.places = [self.here]
        self.polled = set()
        self.oracle = Oracle(maxsize, self.on_death, max_deliveries)
        for value in values:
            self.do(self.here, "put_nowait", value)
        for local in arrivals:
            self.arrive(local)

    def do(self, place, name, *args, **kwargs):
        """The call at that place, which must do what the oracle says."""
        expected = self.expected(place, name, *args, **kwargs)
        self.compare(expected, outcome(place.call, name, *args, **kwargs), name)
        return expected

    def expected(self, place, name, *args, **kwargs):
        if name == "unfinished_tasks":
            return None, self.oracle.unfinished_tasks
        return outcome(getattr(self.oracle, name), place.user, *args, **kwargs)

    def compare(self, expected, found, name):
        assert agree(found, expected), f"{name}: {found!r:.200} instead of {expected!r:.200}"

    def place(self, number):
        return self.places[number % len(self.places)]

    # Rules, of which Hypothesis strings some together; `who` says where.

    @rule(who=st.integers(0, 3), value=VALUES, way=WAYS)
    def put(self, who, value, way):
        ready = self.oracle.ended or not self.oracle.full(None)
        name, how = spelled("put", way, ready)
        self.do(self.place(who), name, value, **how)

    @rule(who=st.integers(0, 3), value=PLAIN)
    def put_plain(self, who, value):
        self.do(self.place(who), "put_nowait", value)

    @rule(who=st.integers(0, 3), n=st.integers(1, 4))
    def take(self, who, n):
        for _ in range(min(n, len(self.oracle.items))):
            self.do(self.place(who), "get_nowait")

    @rule(who=st.integers(0, 3), way=WAYS)
    def get(self, who, way):
        name, how = spelled("get", way, self.oracle.ended or self.oracle.items)
        self.do(self.place(who), name, **how)

    @rule(who=st.integers(0, 3), values=st.lists(VALUES, max_size=7), way=WAYS, plain=st.booleans())
    def put_many(self, who, values, way, plain):
        if plain:
            values = [value for value in values if not isinstance(value, payloads.Pickling)] * 3
        oracle = self.oracle
        ready = oracle.ended or not oracle.maxsize or len(oracle.items) + len(values) <= oracle.maxsize
        how = {"block": False} if way == "nowait" or (way in PATIENT and not ready) else way
        place = self.place(who)
        expected = self.expected(place, "put_many", values, **how)
        found = outcome(place.call, "put_many", values, **how)
        if expected[0] in (joinq.Full, joinq.ShutDown) and found[0] is not expected[0]:
            # That a later item cannot be pickled may be found out first; the items that are in are the same.
            failures = (outcome(ForkingPickler.dumps, value) for value in values)
            failed = next((failed for failed in failures if failed[0]), None)
            assert failed, found
            failed[1].items_put = expected[1].items_put
            expected = failed
        self.compare(expected, found, "put_many")

    @rule(
        who=st.integers(0, 3),
        most=st.one_of(st.integers(1, 9), st.sampled_from([100, 2**70, True])),
        way=WAYS,
        value=CAN_BE_INTERRUPTED | st.none(),
    )
    def get_many(self, who, most, way, value):
        """Perhaps a signal handler raises while one of the items is unpickled: then all stay where they were."""
        place = self.place(who)
        ready = self.oracle.ended or self.oracle.items
        how = {"block": False} if way == "nowait" or (way in PATIENT and not ready) else way
        if value and place.local:
            self.do(self.here, "put_nowait", value)
            payloads.interruptions.append(signal.SIGINT)
        self.take_many(place, most, how)

    @rule(
        who=st.integers(0, 3),
        values=st.lists(PLAIN | CAN_BE_INTERRUPTED, min_size=3, max_size=8),
        singly=st.integers(0, 3),
        most=st.integers(2, 9),
        interrupted=st.sampled_from([False, False, True]),
    )
    def get_part_of_batch(self, who, values, singly, most, interrupted):
        """Some of what was put at once is taken singly, some at once."""
        place = self.place(who)
        self.do(self.here, "put_many", values, False)
        self.take(who, singly)
        if interrupted and place.local:
            payloads.interruptions.append(signal.SIGINT)
        self.take_many(place, most, {"block": False})

    def take_many(self, place, most, how):
        try:
            found = outcome(place.call, "get_many", most, **how)
        except KeyboardInterrupt:
            assert not payloads.interruptions
            return
        finally:
            payloads.interruptions.clear()
        n = None if found[0] else len(found[1])
        assert n is None or 1 <= n <= most
        self.compare(outcome(self.oracle.get_many, place.user, n, most, **how), found, "get_many")

    @rule(value=CAN_BE_INTERRUPTED, again=st.booleans())
    def get_interrupted(self, value, again):
        """A signal handler raises while the item is unpickled: the item stays where it was."""
        place = self.places[1] if again and len(self.places) > 1 and self.places[1].local else self.here
        if not self.oracle.items:
            self.do(self.here, "put_nowait", value)
        if place.user.closed or not self.oracle.items or b"interrupt_once" not in self.oracle.items[0].data:
            return
        payloads.interruptions.append(signal.SIGINT)
        with contextlib.suppress(KeyboardInterrupt):
            place.queue.get(timeout=LIMIT)
            raise AssertionError("the interrupted get() returned")
        assert not payloads.interruptions

    @rule(who=st.integers(0, 3))
    def look(self, who):
        for name in ("qsize", "full", "empty"):
            self.do(self.place(who), name)
        if self.on_death:
            self.do(self.place(who), "unfinished_tasks")

    @precondition(lambda self: self.on_death)
    @rule(who=st.integers(0, 3), n=st.integers(1, 3))
    def finish(self, who, n):
        """What a program in order does: report what it has taken."""
        place = self.place(who)
        n = min(n, self.oracle.in_hand(place.user), self.oracle.unfinished_tasks)
        if n:
            self.do(place, "task_done", n)

    @precondition(lambda self: self.on_death)
    @rule(who=st.integers(0, 3), args=st.sampled_from([(), (2,), (True,), (10**9,), (2**64,), (2**70,)]))
    def report(self, who, args):
        """Whosever the tasks are, or nobody's."""
        self.do(self.place(who), "task_done", *args)

    @precondition(lambda self: self.on_death)
    @rule(who=st.integers(0, 3), n=st.sampled_from([0, -1, -(2**64), False, "1", 1.0, 2.0, None, [1]]))
    def report_nonsense(self, who, n):
        self.do(self.place(who), "task_done", n)

    @precondition(lambda self: self.on_death)
    @rule(
        body=st.sampled_from(["", "put_nowait", "get_nowait", "task_done", "close"]),
        error=st.sampled_from([None, ZeroDivisionError]),
    )
    def task(self, body, error):
        """A task() block, which may use the queue itself and raise."""
        user = self.here.user
        taken, item = expected = self.expected(self.here, "get_nowait")
        task = None
        if self.on_death == "redeliver" and user.hand:
            task = user.hand[-1]

        def block():
            with self.here.queue.task(False) as got:
                assert agree((None, got), (None, item))
                if body:
                    self.do(self.here, body, *[0] * (body == "put_nowait"))
                if error:
                    raise error

        found, _ = outcome(block)
        if taken:
            assert found is taken, (found, expected)
            return
        finished, _ = outcome(self.oracle.finish, user, task)
        assert found is (finished or error), (found, finished, error)

    @precondition(lambda self: self.on_death)
    @rule(who=st.integers(0, 3), timeout=st.sampled_from([0, -1, 0.001, None, LIMIT, math.nan, "1"]))
    def join(self, who, timeout):
        place, oracle = self.place(who), self.oracle
        if timeout in (None, LIMIT) and oracle.unfinished_tasks and not oracle.lost():
            timeout = 0
        error, _ = self.do(place, "join", timeout)
        if place.local and error not in (TypeError, ValueError):
            assert place.user.letters_told == len(oracle.letters)

    @precondition(lambda self: self.oracle.puts > 10)
    @rule(immediate=st.booleans(), who=st.integers(0, 3))
    def shutdown(self, immediate, who):
        self.do(self.place(who), "shutdown", immediate)

    @precondition(lambda self: self.oracle.puts > 10)
    @rule(who=st.integers(0, 3), name=st.sampled_from(["close", "join_thread", "cancel_join_thread"]))
    def close(self, who, name):
        self.do(self.place(who), name)

    @rule(who=st.integers(0, 3))
    def drain(self, who):
        """All that is there, in its order, and each task reported done."""
        place = self.place(who)
        while self.oracle.items and not place.user.closed:
            self.do(place, "get_nowait")
            if self.on_death:
                self.do(place, "task_done")

    @rule(what=st.sampled_from([lib.JNQ_IN_GET, lib.JNQ_IN_PUT, lib.JNQ_IN_JOIN]))
    def ask_for_descriptor(self, what):
        """From now on the descriptor for poll(2) has to be right."""
        self.polled.add(what)

    def ready(self, what):
        """What poll(2) says."""
        fd = _native.pollable(self.here.queue._handle, what)
        readable, writable, _ = select.select([fd], [fd], [], 0)
        return bool(writable if what == lib.JNQ_IN_PUT else readable)

    # Processes.

    @precondition(lambda self: len(self.places) < 4)
    @rule(local=st.booleans())
    def arrive(self, local):
        """A child, which inherits a queue whose tasks its parent has in hand; or a second handle here."""
        self.places.append(self.here.second() if local else Elsewhere(self.method, self.here.queue))

    def child(self):
        """A process that may block or die."""
        if self.places[-1].local:
            self.places.append(Elsewhere(self.method, self.here.queue))
        return self.places[-1]

    @rule(tasks=st.integers(0, 9))
    def die(self, tasks):
        """With some more tasks in hand."""
        child = self.child()
        self.take(self.places.index(child), tasks)
        self.end(child, True)

    @precondition(lambda self: len(self.places) > 1)
    @rule(tasks=st.integers(0, 3), who=st.integers(1, 3))
    def leave(self, tasks, who):
        who = max(1, who % len(self.places))
        self.take(who, tasks)
        self.end(self.places[who], False)

    def end(self, place, killed):
        self.places.remove(place)
        self.oracle.leave(place.user, killed)
        place.end(killed)
        probes.reap(self.here.queue)

    @rule(name=st.sampled_from(["get", "put", "join"]), then=st.sampled_from(["release", "shutdown", "kill"]))
    def block(self, name, then):
        """A child waits, and is woken or killed."""
        child, here, oracle = self.child(), self.here, self.oracle
        user = child.user
        blocks = {
            "get": not (oracle.items or oracle.ended or user.closed),
            "put": oracle.full(user) and not (oracle.ended or user.closed),
            "join": self.on_death and oracle.unfinished_tasks and not oracle.lost(),
        }
        if not blocks[name]:
            return
        args = ["value"] if name == "put" else []
        child.begin_and_sleep(name, *args)
        if then == "shutdown":
            self.do(here, "shutdown", True)
        elif then == "release" and not here.user.closed:
            if name == "get":
                self.do(here, "put_nowait", "value")
            elif name == "put":
                self.do(here, "get_nowait")
            elif oracle.unfinished_tasks == oracle.in_hand(here.user):
                self.do(here, "task_done", oracle.unfinished_tasks)
        expected = self.expected(child, name, *args)
        if expected[0] in (joinq.Empty, joinq.Full, joinq.JoinTimeout):
            self.end(child, True)  # it waits for ever
        else:
            self.compare(expected, outcome(child.outcome), name)

    @precondition(lambda self: self.oracle.letters)
    @rule()
    def read_letters(self):
        expected = [(task.deaths, outcome(pickle.loads, task.data)) for task in self.oracle.letters]
        found = [(letter.deaths, outcome(getattr, letter, "item")) for letter in self.here.queue.dead_letters()]
        assert len(found) == len(expected)
        assert all(one[0] == other[0] and agree(one[1], other[1]) for one, other in zip(found, expected)), found

    @invariant()
    def is_as_it_must_be(self):
        """All that can be observed without a change, after each step."""
        here, oracle = self.here, self.oracle
        self.look(0)
        probes.check_invariants(here.queue)
        figures = probes.counters(here.queue)
        for name, value in {
            "puts": oracle.puts,
            "queued": len(oracle.items),
            "unfinished": oracle.unfinished_tasks,
            "dead_letters": len(oracle.letters),
            "redeliveries": oracle.redeliveries,
            "foreign": oracle.foreign,
        }.items():
            assert figures[name] == value, (name, figures)
        if self.on_death in ("raise", "redeliver") and not oracle.foreign:
            found = [
                (holder.pid, not holder.alive, holder.tasks) for holder in holders(here.queue._handle) if holder.tasks
            ]
            expected = [(place.user.pid, False, oracle.in_hand(place.user)) for place in self.places]
            expected += [(user.pid, True, tasks) for user, tasks in oracle.graves.items()]
            assert sorted(found) == sorted(entry for entry in expected if entry[2])
        ready = {
            lib.JNQ_IN_GET: oracle.ended or oracle.items,
            lib.JNQ_IN_PUT: oracle.ended or not oracle.full(None),
            lib.JNQ_IN_JOIN: not oracle.unfinished_tasks,
        }
        for what in self.polled:  # who finds it locked may leave it to the one that has locked it
            probes.wait_until(lambda what=what: self.ready(what) == bool(ready[what]), f"poll(2) of {what} is right")
        if oracle.lost():
            error, lost = outcome(here.queue.join, 0)
            assert error is joinq.LostTasks
            assert {dead.pid: dead.tasks for dead in lost.processes} == {
                user.pid: tasks for user, tasks in oracle.graves.items()
            }
            assert lost.unfinished == oracle.unfinished_tasks

    def teardown(self):
        payloads.interruptions.clear()
        for place in self.places[1:]:
            place.end(True)
        self.here = self.places = None  # so that the queue goes now: each has descriptors


class Twins(RuleBasedStateMachine):
    """One of the stdlib's queues and ours, side by side in this process: no oracle says what is right, but they do."""

    @initialize(
        kind=st.sampled_from(["JoinableQueue", "Queue", "SimpleQueue"]), maxsize=st.sampled_from([0, -1, 1, 2, 3, True])
    )
    def create(self, kind, maxsize):
        self.simple, self.joinable = kind == "SimpleQueue", kind == "JoinableQueue"
        self.queues = [getattr(module, kind)(*[maxsize] * (not self.simple)) for module in (joinq, multiprocessing)]
        self.count = 0
        self.closed = False

    def both(self, name, *args, **kwargs):
        """The outcome of the call, which must be the same with both."""
        ours, theirs = (outcome(getattr(queue, name), *args, **kwargs) for queue in self.queues)
        assert agree(ours, theirs), f"{name}: {ours!r:.200} instead of {theirs!r:.200}"
        if ours[0] is ValueError and name == "task_done":
            assert str(ours[1]) == str(theirs[1])
        return ours

    @rule(value=PLAIN, way=st.sampled_from(["nowait", *PATIENT, *AT_ONCE]))
    def put(self, value, way):
        if self.simple:
            if len(pickle.dumps(value)) > 4000 or self.count == 8:
                return  # the stdlib's would wait for a reader
            name, how = "put", {}
        else:
            name, how = spelled("put", way, not self.queues[0].full())
        self.count += not self.both(name, value, **how)[0]

    @rule(way=st.sampled_from(["nowait", *PATIENT, *AT_ONCE]))
    def get(self, way):
        if self.count:
            way = {"timeout": LIMIT}  # the stdlib's item may still be on its way
        if not self.simple:
            name, how = spelled("get", way, self.count)
            self.count -= not self.both(name, **how)[0]
        elif self.count:
            self.count -= not self.both("get")[0]

    @precondition(lambda self: self.joinable)
    @rule()
    def task_done(self):
        self.both("task_done")

    @precondition(lambda self: self.joinable and not self.queues[0].unfinished_tasks)
    @rule()
    def join(self):
        self.both("join")

    @precondition(lambda self: self.simple and not self.closed)
    @rule(value=CANNOT_BE_PICKLED)
    def put_in_vain(self, value):
        """The stdlib's other queues swallow the error."""
        self.both("put", value)

    @precondition(lambda self: not self.count)
    @rule(name=st.sampled_from(["close", "join_thread", "cancel_join_thread"]))
    def close(self, name):
        if name == "close" or not self.simple:
            self.both(name)
            self.closed |= name == "close"

    @invariant()
    def look_alike(self):
        """As far as the stdlib's answer does not depend on its thread."""
        for name in ["empty"] if self.simple else ["qsize", "full"]:
            self.both(name)

    def teardown(self):
        while self.count:
            self.count -= 1
            self.queues[1].get()
        self.queues[1].close()


# The tests -----------------------------------------------------------------------------------------


def run(machine, count, seed=0, **options):
    """Try so many programs, which depend on the seed only."""
    options = {"phases": [Phase.generate], "database": None, "print_blob": True, **options}
    run_state_machine_as_test(
        hypothesis.seed(seed)(machine),
        settings=settings(
            max_examples=count,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],  # a child costs some milliseconds
            **options,
        ),
    )


def variant(**attributes):
    return type("Machine", (Machine,), attributes)


MACHINES = {
    "Queue": variant(on_death=None),
    "raise": variant(on_death="raise"),
    "ignore": variant(on_death="ignore"),
    "redeliver": variant(on_death="redeliver"),
    "twins": Twins,
    "spawn": variant(on_death="redeliver", method="spawn"),
}


@pytest.mark.parametrize("name", MACHINES)
def test_queue_does_what_it_must(name):
    run(MACHINES[name], 3 if name == "spawn" else 40)


# Queues that are broken on purpose, and the mode in which it shows ----------------------------------


class WrongOrder(joinq.JoinableQueue):
    """Gives the second item first, if it is an integer."""

    def get(self, *args, **kwargs):
        item = super().get(*args, **kwargs)
        if type(item) is int and self.qsize():
            self.put(item)
            self.task_done()
            return super().get()
        return item


class LosesItems(joinq.JoinableQueue):
    """Counts a long item, but drops it."""

    def put(self, obj, *args, **kwargs):
        super().put(obj, *args, **kwargs)
        if type(obj) is bytes and self.qsize() > 1:
            super().get()


class JoinsEarly(joinq.JoinableQueue):
    """Does not wait for tasks that somebody has taken."""

    def join(self, timeout=None):
        if self.qsize() or not self.unfinished_tasks:
            super().join(timeout)


class NeverTooManyDone(joinq.JoinableQueue):
    def task_done(self, n=1):
        with contextlib.suppress(ValueError):
            super().task_done(n)


class CountsWhatIsGivenBack(joinq.JoinableQueue):
    """Its qsize() is off by one after an interrupted get()."""

    given_back = 0

    def get(self, *args, **kwargs):
        try:
            return super().get(*args, **kwargs)
        except KeyboardInterrupt:
            self.given_back = 1
            raise

    def qsize(self):
        return super().qsize() + self.given_back


class OneTooMany(joinq.JoinableQueue):
    """Takes one item more than its maxsize."""

    def __init__(self, maxsize, **options):
        super().__init__(maxsize + (maxsize > 0), **options)


class ForgetsWhoIsDead(joinq.JoinableQueue):
    def join(self, timeout=None):
        try:
            super().join(timeout)
        except joinq.LostTasks:
            raise joinq.JoinTimeout from None


class RedeliversLast(joinq.JoinableQueue):
    """Lets what comes back from the dead wait at the end."""

    def get(self, *args, **kwargs):
        if probes.counters(self)["redeliveries"] and self.qsize() > 1:
            super().put(super().get(*args, **kwargs), block=False)
            super().task_done()
        return super().get(*args, **kwargs)


class StaysOpen(joinq.JoinableQueue):
    def close(self):
        pass


class ShutsDownLate(joinq.JoinableQueue):
    """Puts one more item after shutdown(), for the caller."""

    def put(self, obj, *args, **kwargs):
        try:
            super().put(obj, *args, **kwargs)
        except joinq.ShutDown:
            self.task_done()


class DropsTheEndOfABatch(joinq.JoinableQueue):
    def get_many(self, *args, **kwargs):
        items = super().get_many(*args, **kwargs)
        return items[:-1] or items


class MiscountsWhatIsPut(joinq.JoinableQueue):
    def put_many(self, *args, **kwargs):
        try:
            super().put_many(*args, **kwargs)
        except joinq.Full as error:
            error.items_put += 1
            raise


@pytest.mark.parametrize(
    ("kind", "on_death"),
    [
        (DropsTheEndOfABatch, "ignore"),
        (DropsTheEndOfABatch, "redeliver"),
        (MiscountsWhatIsPut, "raise"),
        (WrongOrder, "ignore"),
        (LosesItems, "ignore"),
        (JoinsEarly, "raise"),
        (NeverTooManyDone, "raise"),
        (CountsWhatIsGivenBack, "ignore"),
        (OneTooMany, "raise"),
        (ForgetsWhoIsDead, "raise"),
        (RedeliversLast, "redeliver"),
        (StaysOpen, "ignore"),
        (ShutsDownLate, "raise"),
    ],
)
def test_broken_queue_is_found(kind, on_death):
    """The machine can fail."""
    broken = variant(on_death=on_death, make=lambda self, *args, **options: kind(*args, **options))
    with pytest.raises(AssertionError):
        run(broken, 200, print_blob=False, report_multiple_bugs=False)


# By hand ------------------------------------------------------------------------------------------


def main(count, word=""):
    warnings.simplefilter("ignore", joinq.DeadLetterWarning)
    for name, machine in MACHINES.items():
        if word in name:
            seed = random.getrandbits(32)
            print(f"{name}: {count} programs, seed {seed}", flush=True)
            run(machine, int(count), seed, phases=list(Phase))


if __name__ == "__main__":
    main(*sys.argv[1:])
