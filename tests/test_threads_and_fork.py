"""Threads that share a queue, and processes forked at the worst moment."""

from __future__ import annotations

import gc
import os
import queue

import payloads
import pytest
import workers
from probes import LIMIT

import joinq


@pytest.fixture(params=["JoinableQueue", "Queue"])
def make(request):
    return getattr(joinq, request.param)


@pytest.mark.parametrize("maxsize", [0, 1, 7])
def test_threads_share_a_queue(maxsize):
    """Items of many threads reach many threads: each once, whole, in order of its producer."""
    q = joinq.JoinableQueue(maxsize)
    taken = []

    def get_all():
        taken.extend(workers.consume(None, q, threads=4))

    def put_all():
        workers.produce(None, q, range(4), 150)
        q.join()
        for _ in range(4):
            q.put(None)

    workers.run_threads([(get_all,), (put_all,)])
    payloads.check_every_item_once(taken, 4, 150)
    q.join()
    assert q.qsize() == q.unfinished_tasks == 0


def test_each_thread_pickles_for_itself():
    """Objects whose pickling lets other threads run do not get mixed up."""
    q = joinq.Queue()

    def put_slowly(thread):
        for number in range(50):
            q.put([thread, payloads.Pickling(payloads.give_way, number), [thread] * 100])

    workers.run_threads([(put_slowly, thread) for thread in range(4)])
    got = [q.get_nowait() for _ in range(200)]
    for thread in range(4):
        mine = [item[1] for item in got if item[0] == thread]
        assert mine == list(range(50))
    assert all(item[2] == [item[0]] * 100 for item in got)


@pytest.mark.parametrize("name", ["get", "put", "join"])
def test_blocked_thread_lets_the_others_run(launch, name):
    """While one thread is blocked, another one computes, and makes the call it waits for."""
    q = joinq.JoinableQueue(1)
    if name != "get":
        q.put("item")
    release = {"get": ("put", "item"), "put": ("get",), "join": ("task_done",)}[name]
    args = ("item",) if name == "put" else ()
    child = launch(workers.release_from_a_thread, q, (name, *args), release)
    assert child.result() == ("item" if name == "get" else None)


def test_threads_come_and_go(make):
    """A queue works for any number of threads that use it once and end."""
    q = make()
    for number in range(200):
        workers.run_threads([(q.put, number)])
        taken = queue.SimpleQueue()
        workers.run_threads([(workers.move_one, q, taken)])
        assert taken.get_nowait() == number


def test_thread_that_ended_leaves_nothing_locked(launch):
    """After threads have ended in the middle of use, other processes go on."""
    q = joinq.Queue(4)
    other = launch(workers.puppet, q)
    for number in range(20):
        workers.run_threads([(q.put, number), (q.put, number)])
        assert [other.call("get_nowait") for _ in range(2)] == [number] * 2


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
def test_fork_while_threads_use_the_queue(launch):
    """Children forked in the middle of other threads' puts and gets can use the queue at once."""
    q = joinq.JoinableQueue()
    forker = launch(workers.fork_among_threads, q, 40, daemon=False)
    assert forker.result() == [0] * 40


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
@pytest.mark.parametrize("name", ["get", "put", "join"])
def test_fork_while_a_thread_is_blocked(launch, name):
    """A child forked while another thread was blocked can use the queue; the thread goes on."""
    q = joinq.JoinableQueue(1)
    if name != "get":
        q.put("item")
    forker = launch(workers.fork_beside_a_blocked_thread, q, name, daemon=False)
    assert forker.result() == 0


def test_forked_child_and_parent_are_two_users(make):
    """After os.fork() both processes use the queue, and the end of one does not harm the other."""
    q = make(3)
    q.put("from the parent")
    for number in range(20):
        pid = workers.fork(lambda: q.put((q.get(timeout=LIMIT), os.getpid())))
        assert workers.wait_for(pid) == 0
        assert q.get_nowait()[1] == pid
        q.put(number)


def test_chain_of_forks(make):
    """A child of a child of a child uses the queue like its ancestors."""
    q = make()

    def generation(number):
        q.put(number)
        if number < 5:
            assert workers.wait_for(workers.fork(lambda: generation(number + 1))) == 0
        q.put(-number)

    generation(1)
    assert [q.get_nowait() for _ in range(10)] == [1, 2, 3, 4, 5, -5, -4, -3, -2, -1]


def test_queue_dropped_by_a_forked_child_lives_on(make):
    """A child that drops its copy of the queue takes nothing from its parent."""
    q = make()
    q.put("kept")
    pid = workers.fork(lambda: q.__dict__.clear())
    assert workers.wait_for(pid) == 0
    assert q.get_nowait() == "kept"
    q.put("more")
    assert q.get_nowait() == "more"


@pytest.mark.parametrize("name", ["get", "put", "join"])
def test_interpreter_ends_while_a_daemon_thread_is_blocked(name):
    """A daemon thread blocked on a queue does not keep the interpreter from ending quietly."""
    done = workers.run_script(
        f"""
import threading, joinq, probes
q = joinq.JoinableQueue(1)
if {name!r} != "get":
    q.put(1)
args = (1,) if {name!r} == "put" else ()
thread = threading.Thread(target=getattr(q, {name!r}), args=args, daemon=True)
thread.start()
probes.wait_until(lambda: probes.thread_state(thread) == "S", "the thread sleeps")
print("end")
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_interpreter_ends_with_queues_still_in_use():
    """Queues in globals, in cycles and in other queues' callers do not disturb the end."""
    done = workers.run_script(
        """
import joinq
queues = [kind() for kind in (joinq.JoinableQueue, joinq.Queue, joinq.SimpleQueue)]
for q in queues:
    q.put(b"x" * 100_000)
    q.put(1)
    q.myself = q
queues[0].get()
print("end")
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


class Forked(BaseException):
    """Ends what the child of a fork has inherited."""


class Forking:
    """Forks in the middle of a batch: when it is pickled, or unpickled; the child uses the queue, and raises."""

    def __init__(self, q, moment):
        self.q, self.moment = q, moment

    def fork(self):
        pid = os.fork()
        if not pid:
            self.q.put("the child's")
            raise Forked
        assert workers.wait_for(pid) == 0

    def __reduce__(self):
        if self.moment == "put_many":
            self.fork()
        return Forking.arrive, (self.q, self.moment)

    @staticmethod
    def arrive(q, moment):
        if moment == "get_many":
            Forking(q, moment).fork()
        return "forking"


@pytest.mark.parametrize("on_death", ["raise", "ignore", "redeliver"])
@pytest.mark.parametrize("moment", ["put_many", "get_many"])
def test_batch_is_the_parents_when_its_items_fork(moment, on_death):
    """What an exception ends in the child was the parent's: the child neither puts nor gives back anything of it."""
    q = joinq.JoinableQueue(on_death=on_death)
    with workers.left_by_the_parent_alone():
        try:
            q.put_many([1, 2, Forking(q, moment), 3])
            taken = q.get_many(9)
        except Forked:
            pass
        gc.collect()
    taken += [q.get() for _ in range(q.qsize())]
    expected = [1, 2, "forking", 3]
    assert taken == (["the child's", *expected] if moment == "put_many" else [*expected, "the child's"])
    assert q.unfinished_tasks == 5
    q.task_done(5)
    q.join(0)


def test_put_many_goes_on_behind_its_parents_items_in_a_child(make):
    """A child that is forked by the pickling of a long list puts what comes after, and nothing twice."""
    q = make()

    class Once:
        def __reduce__(self):
            if not children:
                children.append(os.fork())
                if children[0]:
                    assert workers.wait_for(children[0]) == 0
            return str, ("once",)

    children = []
    items = [*range(400), Once(), *range(401, 2000)]
    with workers.left_by_the_parent_alone():
        q.put_many(items)
    got = [q.get() for _ in range(q.qsize())]
    tail = ["once", *range(401, 2000)]
    assert got == [*tail, *range(400), *tail]
