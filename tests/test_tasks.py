"""q.tasks(): a loop that reports its tasks done."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import os
import queue
import random
import signal
import sys
import threading
import weakref

import payloads
import probes
import pytest
import rich.console
import rich.progress
import tqdm
import workers
from probes import LIMIT

import joinq


@pytest.fixture(params=["raise", "ignore", "redeliver"])
def make(request):
    """A queue with so many numbers in it, perhaps at its end."""

    def make(count, shutdown=True):
        q = joinq.JoinableQueue(on_death=request.param, name="numbers")
        q.put_many(range(count))
        if shutdown:
            q.shutdown()
        return q

    return make


def test_all_until_shutdown(make):
    """In order; each is done when the next one is asked for."""
    q = make(3)
    unfinished = []
    for number in q.tasks():
        unfinished.append((number, q.unfinished_tasks))
    assert unfinished == [(0, 3), (1, 2), (2, 1)]
    q.join(0)


def test_nothing_is_taken_before_it_is_asked_for(make):
    """Nor in advance."""
    q = make(2)
    loop = q.tasks()
    assert q.qsize() == 2
    assert next(loop) == 0
    assert q.qsize() == 1
    loop.close()
    assert (q.qsize(), q.unfinished_tasks) == (1, 1)


def leave_by_break(q):
    for _ in q.tasks():
        break


def leave_by_return(q):
    for _ in q.tasks():
        return


def leave_by_exception(q, kind=KeyError):
    with pytest.raises(kind):
        for _ in q.tasks():
            raise kind


def leave_by_interrupt(q):
    leave_by_exception(q, KeyboardInterrupt)


def leave_in_a_cycle(q):
    def body():
        loop = q.tasks()
        next(loop)
        cycle = [loop]
        cycle.append(cycle)

    body()
    assert q.unfinished_tasks == 3
    gc.collect()


def leave_to_another_thread(q):
    """As a garbage collector may run in any thread."""
    loops = [q.tasks()]
    next(loops[0])
    thread = threading.Thread(target=lambda: loops.pop().close())
    thread.start()
    thread.join()


LEAVES = [
    leave_by_break,
    leave_by_return,
    leave_by_exception,
    leave_by_interrupt,
    leave_in_a_cycle,
    leave_to_another_thread,
]


@pytest.mark.parametrize("leave", LEAVES)
def test_loop_that_is_left(make, leave):
    """The task that it had is done; the others are there, for another loop."""
    q = make(3)
    leave(q)
    assert (q.qsize(), q.unfinished_tasks) == (2, 2)
    assert list(q.tasks()) == [1, 2]
    q.join(0)


def test_kept_iterator_goes_on(make):
    """Its last task is in hand until then."""
    q = make(3)
    loop = q.tasks()
    for _ in loop:
        break
    assert q.unfinished_tasks == 3
    assert list(loop) == [1, 2]
    q.join(0)


def test_item_is_not_kept(make):
    """When the body comes back, only it can still refer to the item: its memory is free while the loop waits."""
    q = make(0, shutdown=False)
    q.put({1})
    loop = q.tasks()
    item = next(loop)
    alive = weakref.ref(item)
    del item
    seen = []

    def look():
        probes.wait_until(lambda: q.stats().readers_blocked, "it waits")
        seen.append(alive())
        q.shutdown()

    thread = threading.Thread(target=look)
    thread.start()
    assert list(loop) == []
    thread.join()
    assert seen == [None]


def test_interrupt_while_it_waits(make):
    """Nothing is taken, nothing is done."""
    q = make(0, shutdown=False)

    def interrupt(signum, frame):
        q.put("late")
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR2, interrupt)
    main = threading.get_ident()

    def send():
        probes.wait_until(lambda: q.stats().readers_blocked, "it waits")
        signal.pthread_kill(main, signal.SIGUSR2)

    thread = threading.Thread(target=send)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            next(q.tasks())
    finally:
        thread.join()
        signal.signal(signal.SIGUSR2, before)
    assert (q.qsize(), q.unfinished_tasks) == (1, 1)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="handlers run between any two bytecodes")
def test_signals_at_any_moment(make):
    """Whatever a handler's exception interrupts, each task is either reported or still in the queue."""
    q = make(20_000, shutdown=False)
    chance, armed = random.Random(6), False

    class Interrupt(Exception):
        pass

    def interrupt(signum, frame):
        nonlocal armed
        if armed:
            armed = False
            raise Interrupt

    def work():
        for _ in q.tasks():
            if q.empty():
                break

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(200):
            if not q.qsize():
                break
            with contextlib.suppress(Interrupt, queue.Empty):
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(50e-6, 300e-6))
                armed = True
                work()  # a function: a jump back may lie outside of the `with` around its loop
                armed = False
            armed = False
            assert q.stats().in_flight == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_child_of_a_fork_in_the_body(make):
    """It inherits the loop, but not the task."""
    q = make(3)
    loop = q.tasks()
    next(loop)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            status = int(next(loop) != 1)
            loop.close()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert q.unfinished_tasks == 2
    assert next(loop) == 2
    assert q.unfinished_tasks == 1
    loop.close()
    q.join(0)


def test_body_that_reports_its_task_itself(make):
    """It is told so, if that can be known."""
    q = make(1)
    with pytest.raises(ValueError, match="task_done\\(\\) called too many times"):
        for _ in q.tasks():
            q.task_done()


def test_not_after_close(make):
    """As get()."""
    q = make(1)
    q.close()
    with pytest.raises(ValueError, match="is closed"):
        next(q.tasks())


@pytest.mark.parametrize("on_death", ["raise", "redeliver"])
def test_workers(launch, on_death):
    """They end at shutdown, and all is done."""
    q = joinq.JoinableQueue(on_death=on_death)
    children = [launch(workers.loop_over_tasks, q) for _ in range(2)]
    q.put_many(range(100))
    q.join(LIMIT)
    q.shutdown()
    assert sorted(children[0].result() + children[1].result()) == list(range(100))


def test_killed_in_the_body(launch):
    """The task is delivered again."""
    q = joinq.JoinableQueue(on_death="redeliver")
    q.put(0)
    child = launch(workers.die_in_a_loop_over_tasks, q)
    assert child.receive() == 0
    child.kill()
    q.shutdown()
    probes.reap(q)
    assert list(q.tasks()) == [0]


# progress= ----------------------------------------------------------------------------------


def test_tqdm():
    """The class, which is made a bar, and closed."""
    q = joinq.JoinableQueue(name="numbers")
    q.put_many(range(5))
    q.shutdown()
    out, bars = io.StringIO(), []

    class Bar(tqdm.tqdm):
        monitor_interval = 0

        def __init__(self, **options):
            super().__init__(file=out, **options)
            bars.append(self)

    for _ in q.tasks(progress=Bar):
        pass
    assert "numbers: 5task [" in out.getvalue()
    assert bars[0].disable  # it is closed


def test_tqdm_bar():
    """It is the user's, who may use it further."""
    q = joinq.JoinableQueue()
    q.put_many(range(5))
    with tqdm.tqdm(total=8, file=io.StringIO()) as bar:
        for number in q.tasks(bar):
            assert bar.n == number
            if number == 3:
                break
        assert bar.n == 4
        assert not bar.disable


@pytest.mark.parametrize("is_left", [False, True])
def test_rich(is_left):
    """A row of its own; the total is known at the end."""
    q = joinq.JoinableQueue(name="numbers")
    q.put_many(range(5))
    q.shutdown()
    with rich.progress.Progress(console=rich.console.Console(file=io.StringIO())) as progress:
        for number in q.tasks(progress):
            assert progress.tasks[0].completed == number
            if is_left:
                break
        [row] = progress.tasks
    done = 1 if is_left else 5
    assert (row.description, row.completed, row.total) == ("numbers", done, None if is_left else 5)
    assert row.stop_time is not None


@pytest.mark.parametrize("progress", [1, True, "tqdm", print, functools.partial(tqdm.tqdm), rich.progress.Progress])
def test_other_progress(progress):
    """Is refused at once."""
    q = joinq.JoinableQueue()
    with pytest.raises(TypeError, match=r"progress must be tqdm, a bar of it, or a rich\.progress\.Progress, not"):
        q.tasks(progress=progress)


# q.task() ---------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.version_info < (3, 11), reason="handlers run between any two bytecodes")
def test_signal_between_a_task_and_its_block(make):
    """A task that the block was not given is not reported done."""
    q = make(0, shutdown=False)
    q.put(payloads.Signalling())
    begun = False

    def interrupt(signum, frame):
        raise InterruptedError

    before = signal.signal(signal.SIGUSR2, interrupt)
    try:
        with pytest.raises(InterruptedError), q.task():
            begun = True
            while True:  # until the handler runs
                pass
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (q.qsize(), q.unfinished_tasks) == ((0, 0) if begun else (1, 1))


def test_child_of_a_fork_in_the_block(make):
    """It inherits the block, but not the task."""
    q = make(2)
    with workers.left_by_the_parent_alone(), q.task() as task:
        pid = os.fork()
        if pid:
            assert os.waitpid(pid, 0)[1] == 0
            assert q.unfinished_tasks == 2
    assert (task, q.unfinished_tasks) == (0, 1)


class Forking:
    """Forks when it is unpickled; what arrives is the child's pid, or 0 in the child."""

    def __reduce__(self):
        return os.fork, ()


def take_in_a_loop(q):
    return next(task for task in q.tasks())


def take_in_a_block(q):
    with q.task() as task:
        pass
    return task


@pytest.mark.parametrize("take", [take_in_a_loop, take_in_a_block])
def test_child_of_a_fork_while_the_task_is_unpickled(make, take):
    """It is given the task, too, but that is the parent's to report."""
    q = make(0, shutdown=False)
    q.put(Forking())
    q.put("next")
    parent = os.getpid()
    with workers.left_by_the_parent_alone():
        pid = take(q)
        assert (pid != 0) == (os.getpid() == parent)
    assert os.waitpid(pid, 0)[1] == 0
    assert (q.qsize(), q.unfinished_tasks) == (1, 1)
