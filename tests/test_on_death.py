"""What becomes of the tasks that a process had taken when it died."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import warnings

import probes
import pytest
import workers
from probes import LIMIT

import joinq

pytestmark = pytest.mark.filterwarnings("ignore::joinq.DeadLetterWarning")

BRIEFLY = 1.0
"""Longer than it takes to notice a death."""

WAYS = {
    "SIGKILL": -signal.SIGKILL,
    "SIGSEGV": -signal.SIGSEGV,
    "SIGTERM": -signal.SIGTERM,
    "os._exit(0)": 0,
    "exception": 1,
    "sys.exit(3)": 3,
}


def filled(count, **options):
    q = joinq.JoinableQueue(**options)
    for number in range(count):
        q.put(number)
    return q


def dies(launch, q, count=1, how="SIGKILL"):
    """A child that takes tasks and dies; its Process."""
    child = launch(workers.take_and_end, q, count, how)
    assert child.receive() == "taken"
    child.process.join()
    return child.process


# on_death="raise" --------------------------------------------------------------------------


@pytest.mark.parametrize("how", WAYS)
def test_join_raises_lost_tasks(launch, how):
    """When who had all unfinished tasks is dead, join() says who it was; again and again."""
    q = filled(3)
    process = dies(launch, q, 3, how)
    for _ in range(2):
        with pytest.raises(joinq.LostTasks, match=f"3 tasks .*{process.pid} .*{process.name}") as caught:
            q.join(LIMIT)
    assert caught.value.processes == ((process.pid, process.name, WAYS[how], 3),)
    assert caught.value.unfinished == 3
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.processes) == (str(caught.value), caught.value.processes)
    q.task_done(3)
    q.join(LIMIT)
    probes.check_invariants(q)


def test_join_that_sleeps_is_woken_by_the_death(launch):
    """A death is noticed while join() waits."""
    q = filled(1)
    joiner = launch(workers.join_and_report, q, None)
    victim = launch(workers.puppet, q)
    assert victim.call("get") == 0
    joiner.wait_asleep()
    pid = victim.pid
    victim.kill()
    error = joiner.result()
    assert isinstance(error, joinq.LostTasks)
    assert [(dead.pid, dead.tasks) for dead in error.processes] == [(pid, 1)]
    assert error.processes[0].exitcode in (None, -signal.SIGKILL)  # who waited for it was faster, or not


def test_lost_tasks_of_several(launch):
    """Each of the dead is named with what it had taken and not finished."""
    q = filled(6)
    expected = {}
    for count in (1, 2, 3):
        process = dies(launch, q, count)
        expected[process.pid] = count
    with pytest.raises(joinq.LostTasks) as caught:
        q.join(LIMIT)
    assert {dead.pid: dead.tasks for dead in caught.value.processes} == expected


def test_no_lost_tasks_while_a_task_is_queued_or_in_living_hands(launch):
    """As long as somebody can finish a task, join() waits."""
    q = filled(3)
    living = launch(workers.puppet, q)
    dies(launch, q, 1)
    assert living.call("get") == 1
    with pytest.raises(joinq.JoinTimeout):
        q.join(BRIEFLY)
    assert living.call("get") == 2
    with pytest.raises(joinq.JoinTimeout):
        q.join(BRIEFLY)
    assert living.call("task_done") is None
    with pytest.raises(joinq.JoinTimeout):
        q.join(BRIEFLY)
    assert living.call("task_done") is None
    with pytest.raises(joinq.LostTasks):
        q.join(LIMIT)


def test_stopped_process_is_not_dead(launch):
    """A process that is stopped with a task in hand is waited for."""
    q = filled(1)
    stopped = launch(workers.puppet, q)
    stopped.call("get")
    os.kill(stopped.pid, signal.SIGSTOP)
    probes.wait_until(lambda: probes.state(stopped.pid) == "T", "it is stopped")
    with pytest.raises(joinq.JoinTimeout):
        q.join(BRIEFLY)
    os.kill(stopped.pid, signal.SIGCONT)
    stopped.call("task_done")
    q.join(LIMIT)


def test_task_given_back_is_not_lost():
    """An interrupted get() gives the task back: then nobody has it."""
    q = joinq.JoinableQueue()
    q.put(workers.InterruptOnce())
    with pytest.raises(KeyboardInterrupt):
        q.get()
    assert (q.qsize(), q.unfinished_tasks) == (1, 1)
    with pytest.raises(joinq.JoinTimeout) as caught:
        q.join(0)
    assert "in hand" not in str(caught.value)


@pytest.mark.parametrize("how", ["SIGKILL", "in order"])
def test_ownership_is_unknown_once_another_process_finishes_tasks(launch, how):
    """A program in which others than the takers call task_done() is waited for, as by the stdlib."""
    q = filled(3)
    process = launch(workers.puppet, q)
    process.call("get")
    q.task_done()  # not ours
    dies(launch, q, 2)
    with pytest.raises(joinq.JoinTimeout, match="uncertain"):
        q.join(BRIEFLY)


def test_ownership_is_unknown_once_a_process_ends_in_order_with_tasks(launch):
    """It may have handed them on."""
    q = filled(3)
    child = launch(workers.take_and_end, q, 1, "in order")
    assert child.receive() == "taken"
    assert child.result() == "ended"
    dies(launch, q, 2)
    with pytest.raises(joinq.JoinTimeout, match="uncertain"):
        q.join(BRIEFLY)
    q.task_done(3)
    q.join(LIMIT)


def test_end_in_order_of_a_process_that_was_forked_in_an_except_block(launch):
    """The exception that its parent had just caught is not its own."""
    q = filled(2)
    try:
        raise ValueError
    except ValueError:
        child = launch(workers.take_and_end, q, 1, "in order")
    assert child.receive() == "taken"
    assert child.result() == "ended"
    dies(launch, q, 1)
    with pytest.raises(joinq.JoinTimeout, match="uncertain"):
        q.join(BRIEFLY)


def test_process_is_not_ended_while_its_threads_work(launch):
    """Its function has returned, but it is killed with a task in a thread's hand."""
    q = filled(1)
    child = launch(workers.leave_to_a_thread, q)
    assert {child.receive(), child.receive()} == {"taken", "returned"}
    probes.wait_until(lambda: probes.state(child.pid) == "S", "it waits for its thread")
    child.kill()
    with pytest.raises(joinq.LostTasks):
        q.join(LIMIT)


def test_end_in_order_without_tasks_is_nothing(launch):
    """A worker that has finished all it had taken leaves no doubt."""
    q = filled(3)
    worker = launch(workers.puppet, q)
    for _ in range(2):
        worker.call("get")
        worker.call("task_done")
    assert worker.ends(time.monotonic() + LIMIT)
    dies(launch, q, 1)
    with pytest.raises(joinq.LostTasks):
        q.join(LIMIT)


def test_ignore_waits_as_the_stdlib(launch):
    q = filled(1, on_death="ignore")
    dies(launch, q, 1)
    with pytest.raises(joinq.JoinTimeout, match=r"1 task unfinished after 1\.0 seconds"):
        q.join(BRIEFLY)


def test_join_timeout_says_why(launch):
    """Who has tasks in hand and for how long, who died with some, and who waits."""
    q = filled(6, maxsize=10)
    dead = dies(launch, q, 2)
    living = launch(workers.puppet, q)
    living.call("get")
    results = joinq.JoinableQueue()
    waiter = launch(workers.puppet, results)
    waiter.begin_and_sleep("get")
    results.put("first"), waiter.outcome()
    waiter.begin_and_sleep("get")
    with pytest.raises(joinq.JoinTimeout) as caught:
        q.join(BRIEFLY)
    text = str(caught.value)
    assert text.startswith("6 tasks unfinished after 1.0 seconds: 3 of them in the queue, 3 taken\n")
    assert f"process {dead.pid} ({dead.name}) was killed by SIGKILL, had 2 tasks in hand" in text
    assert f"process {living.pid} ({living.process.name}) is alive, has 1 task in hand, the oldest for " in text
    with pytest.raises(joinq.JoinTimeout) as caught:
        results.join(0)
    assert f"process {waiter.pid} ({waiter.process.name}) is alive, has 1 task in hand" in str(caught.value)
    assert "waits in get() for " in str(caught.value)
    results.put("last"), waiter.outcome()


def test_bad_arguments():
    with pytest.raises(ValueError, match="'raise', 'ignore' or 'redeliver', not 'retry'"):
        joinq.JoinableQueue(on_death="retry")
    with pytest.raises(ValueError, match=r"from 1 to .*, not 0"):
        joinq.JoinableQueue(on_death="redeliver", max_deliveries=0)
    with pytest.raises(TypeError, match="integer, not '3'"):
        joinq.JoinableQueue(on_death="redeliver", max_deliveries="3")


def test_context_makes_queues_with_its_on_death(ctx, launch):
    """joinq.get_context() has on_death as a keyword, and is otherwise the stdlib's context."""
    context = joinq.get_context(ctx.get_start_method(), on_death="redeliver", max_deliveries=1)
    assert isinstance(context, type(ctx))
    assert (type(context.Queue(1)), type(context.SimpleQueue())) == (joinq.Queue, joinq.SimpleQueue)
    q = context.JoinableQueue(2)
    q.put("item")
    child = context.Process(target=os.abort)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGABRT
    dies(launch, q)
    with pytest.warns(joinq.DeadLetterWarning):
        q.join(LIMIT)
    with pytest.raises(ValueError, match="on_death"):
        joinq.get_context(on_death="never")


# on_death="redeliver" ----------------------------------------------------------------------

ITEMS = ["inline", 5, -(2**61), None, b"x" * 100_000, "y" * 5_000, 2**70]


@pytest.mark.parametrize("how", WAYS)
def test_redelivered_in_order_before_the_others(launch, how):
    """What a dead process had taken comes first again, in its order."""
    q = joinq.JoinableQueue(on_death="redeliver")
    for item in [*ITEMS, "last"]:
        q.put(item)
    dies(launch, q, len(ITEMS), how)
    probes.wait_until(lambda: q.qsize() == len(ITEMS) + 1, "all are queued again")
    assert [q.get(timeout=LIMIT) for _ in range(len(ITEMS) + 1)] == [*ITEMS, "last"]
    assert q.unfinished_tasks == len(ITEMS) + 1
    q.task_done(len(ITEMS) + 1)
    q.join(LIMIT)
    probes.check_invariants(q)


def test_tasks_of_several_dead_come_in_their_order(launch):
    """Whoever had them."""
    q = filled(6, on_death="redeliver")
    first, second = launch(workers.puppet, q), launch(workers.puppet, q)
    for number in range(3):
        assert (first.call("get"), second.call("get")) == (2 * number, 2 * number + 1)
    first.call("task_done")
    first.kill()
    second.kill()
    probes.wait_until(lambda: q.qsize() == 5, "all are queued again")
    taken = [q.get(timeout=LIMIT) for _ in range(5)]
    assert sorted(taken) == [1, 2, 3, 4, 5]
    assert [n for n in taken if n % 2] == [1, 3, 5]
    assert [n for n in taken if not n % 2] == [2, 4]
    q.task_done(5)
    q.join(LIMIT)


def test_waiting_consumer_gets_the_task(launch):
    """A consumer that sleeps in get() is woken by the death of another."""
    q = filled(1, on_death="redeliver")
    victim, heir = launch(workers.puppet, q), launch(workers.puppet, q)
    assert victim.call("get") == 0
    heir.begin_and_sleep("get")
    victim.kill()
    assert heir.outcome() == 0
    heir.call("task_done")
    q.join(LIMIT)


def test_living_process_keeps_its_tasks(launch):
    """However long it takes, stopped or not."""
    q = filled(1, on_death="redeliver")
    worker = launch(workers.puppet, q)
    worker.call("get")
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(joinq.Empty):
        q.get(timeout=BRIEFLY)
    os.kill(worker.pid, signal.SIGCONT)
    worker.call("task_done")
    q.join(LIMIT)


def test_task_that_kills_becomes_a_dead_letter(launch):
    """After max_deliveries deaths it is given up, counts as finished, and join() warns."""
    q = joinq.JoinableQueue(on_death="redeliver", max_deliveries=2)
    q.put("poison")
    began = time.time()
    pids = [dies(launch, q).pid, dies(launch, q).pid]
    q.put("good")
    with pytest.raises(joinq.JoinTimeout), pytest.warns(joinq.DeadLetterWarning, match="2 of the processes"):
        q.join(BRIEFLY)
    assert q.get(timeout=LIMIT) == "good"
    q.task_done()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        q.join(LIMIT)
    [letter] = q.dead_letters()
    item, died, times = letter
    assert (item, letter.item, list(died), letter.deaths) == ("poison", "poison", pids, 2)
    assert began - 0.01 <= times[0] <= times[1] <= time.time()
    assert (q.qsize(), q.unfinished_tasks) == (0, 0)
    probes.check_invariants(q)
    child = launch(workers.puppet, q)
    assert child.call("unfinished_tasks") == 0


def test_dead_letters_are_in_order(launch):
    """Those of one death, too."""
    q = filled(5, on_death="redeliver", max_deliveries=1)
    dies(launch, q, 3)
    probes.reap(q)
    dies(launch, q, 2)
    probes.reap(q)
    assert [letter.item for letter in q.dead_letters()] == list(range(5))
    probes.check_invariants(q)


def test_end_in_order_does_not_count_as_a_death(launch):
    """A worker that ends with a task in hand gives it back, however often."""
    q = filled(1, on_death="redeliver", max_deliveries=1)
    for _ in range(3):
        child = launch(workers.take_and_end, q, 1, "in order")
        assert child.receive() == "taken"
        assert child.result() == "ended"
    assert q.get(timeout=LIMIT) == 0
    q.task_done()
    assert q.dead_letters() == []


def test_each_thread_finishes_its_own(launch):
    """task_done() is for the calling thread's oldest task."""
    q = filled(4, on_death="redeliver")
    assert launch(workers.take_in_threads, q).result() == [2, 0]
    q.join(LIMIT)


def test_task_done_without_a_task_of_ones_own(launch):
    """Neither another process's, nor, in a forked child, the parent's."""
    q = filled(2, on_death="redeliver")
    assert launch(workers.finish_in_forked_child, q).result() == 7
    other = launch(workers.puppet, q)
    other.call("get")
    for n in (1, 2):
        with pytest.raises(ValueError, match="taken itself"):
            q.task_done(n)
    assert q.unfinished_tasks == 1
    other.call("task_done")
    q.join(LIMIT)


@pytest.mark.parametrize("n", ["1", 1.0, None, [1]], ids=repr)
def test_task_done_of_no_integer_raises_type_error(n):
    """As with the other modes, whether or not the thread has a task."""
    q = filled(1, on_death="redeliver")
    for _ in range(2):
        with pytest.raises(TypeError):
            q.task_done(n)
        assert q.unfinished_tasks == 1
        if not q.empty():
            q.get()


def test_task_done_of_many_is_all_or_none():
    q = filled(3, on_death="redeliver")
    q.get(), q.get()
    with pytest.raises(ValueError, match="too many times"):
        q.task_done(3)
    assert q.unfinished_tasks == 3
    q.task_done(2)
    assert q.unfinished_tasks == 1


@pytest.mark.parametrize("on_death", ["raise", "ignore", "redeliver"])
def test_task_is_for_exactly_one(on_death):
    """The `with` block finishes the task that it began with, also when it raises."""
    q = filled(3, on_death=on_death)
    with q.task() as outer:
        with q.task(timeout=1) as inner:
            assert (outer, inner) == (0, 1)
        assert q.unfinished_tasks == 2
    assert q.unfinished_tasks == 1
    with pytest.raises(ZeroDivisionError), q.task(block=False):
        raise ZeroDivisionError
    assert q.unfinished_tasks == 0
    with pytest.raises(joinq.Empty), q.task(False):
        pass
    q.join(LIMIT)


def test_task_is_not_for_another_one_meanwhile():
    """What task() returns can be entered once; the second time nothing is taken."""
    q = filled(2, on_death="redeliver")
    once = q.task()
    with once as outer, pytest.raises(RuntimeError, match="call it again"), once:
        pass
    assert (outer, q.qsize(), q.unfinished_tasks) == (0, 1, 1)


def test_task_that_was_reported_done_in_the_block():
    q = filled(1, on_death="redeliver")
    with pytest.raises(ValueError, match="already reported"), q.task():
        q.task_done()
    q.join(LIMIT)


@pytest.mark.parametrize("value", [workers.InterruptOnce(), workers.InterruptOnce("x" * 100_000)])
def test_interrupted_get_gives_back(value):
    q = joinq.JoinableQueue(on_death="redeliver")
    q.put(value)
    with pytest.raises(KeyboardInterrupt):
        q.get()
    assert (q.qsize(), q.unfinished_tasks) == (1, 1)
    with pytest.raises(ValueError, match="taken itself"):
        q.task_done()
    probes.check_invariants(q)
    workers.InterruptOnce.armed = False
    q.get()
    q.task_done()
    q.join(LIMIT)
    probes.check_invariants(q)
    workers.InterruptOnce.armed = True


def test_task_of_an_interrupted_get_is_the_next_takers_alone():
    """Who was interrupted cannot finish it, not even when another thread of the process has it."""
    q = joinq.JoinableQueue(on_death="redeliver")
    q.put(workers.InterruptOnce())
    with pytest.raises(KeyboardInterrupt):
        q.get()
    taken, go, outcome = threading.Event(), threading.Event(), []

    def take():
        workers.InterruptOnce.armed = False
        try:
            q.get()
        finally:
            workers.InterruptOnce.armed = True
            taken.set()
        go.wait()
        outcome.append(q.task_done())

    thread = threading.Thread(target=take)
    thread.start()
    taken.wait()
    with pytest.raises(ValueError, match="taken itself"):
        q.task_done()
    assert q.unfinished_tasks == 1
    go.set()
    thread.join()
    assert outcome == [None]
    q.join(LIMIT)


def test_item_that_cannot_be_unpickled_is_in_hand():
    """As with the other modes it counts as taken, so it can be reported done."""
    q = joinq.JoinableQueue(on_death="redeliver")
    q.put(workers.Unloadable())
    with pytest.raises(ZeroDivisionError):
        q.get()
    assert (q.qsize(), q.unfinished_tasks) == (0, 1)
    q.task_done()
    q.join(LIMIT)
    probes.check_invariants(q)


def test_shutdown_immediate_and_tasks_in_hand(launch):
    """What is in hand is finished by its taker, or by its death."""
    q = filled(5, on_death="redeliver")
    living, victim = launch(workers.puppet, q), launch(workers.puppet, q)
    living.call("get"), victim.call("get"), victim.call("get")
    q.shutdown(immediate=True)
    assert (q.qsize(), q.unfinished_tasks) == (0, 3)
    victim.kill()
    living.call("task_done")
    q.join(LIMIT)
    with pytest.raises(joinq.ShutDown):
        q.get()
    probes.check_invariants(q)


def test_shutdown_lets_the_living_take_the_tasks_of_the_dead(launch):
    """After shutdown() get() still gives what is queued, and what comes back."""
    q = filled(1, on_death="redeliver")
    dies(launch, q)
    q.shutdown()
    probes.wait_until(lambda: q.qsize() == 1, "it is queued again")
    assert q.get() == 0
    q.task_done()
    q.join(LIMIT)


def test_full_queue_takes_its_tasks_back(launch):
    """maxsize does not keep them out."""
    q = filled(2, maxsize=2, on_death="redeliver")
    victim = launch(workers.puppet, q)
    victim.call("get"), victim.call("get")
    q.put(2), q.put(3)
    victim.kill()
    probes.wait_until(lambda: q.qsize() == 4, "all are queued")
    with pytest.raises(joinq.Full):
        q.put(4, timeout=0.01)
    assert [q.get() for _ in range(4)] == [0, 1, 2, 3]


def test_process_that_gives_the_queue_up_gives_its_tasks_back(launch):
    """Nobody can finish them any more without the queue."""
    q = filled(1, on_death="redeliver")
    child = launch(workers.drop_queue, q)
    assert child.receive() == "taken"
    child.send("drop")
    assert child.receive() == "dropped"
    assert q.get(timeout=LIMIT) == 0
    child.send(None)
    assert child.result() is None


# Both --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
@pytest.mark.parametrize("on_death", ["raise", "ignore", "redeliver"])
def test_many_deaths_leave_no_growth(ctx, on_death):
    """Neither memory, nor table entries, nor descriptors; with tasks in hand or without."""
    deaths = int(os.environ.get("JOINQ_DEATHS", "600"))
    q = joinq.JoinableQueue(on_death=on_death, max_deliveries=10**6)
    for number in range(4):
        q.put(bytes(number * 10_000))
    sizes = []
    for number in range(deaths):
        pid = os.fork()
        if not pid:
            if number % 2:
                q.get()
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        if on_death != "redeliver" and q.empty():
            q.put(bytes(10_000))
        if number % 50 == 49:
            probes.reap(q)
            sizes.append(probes.counters(q))
    probes.check_invariants(q)
    early, late = sizes[1], sizes[-1]
    assert late["used_bytes"] <= early["used_bytes"] + 65536
    assert late["processes"] <= 2
    assert late["deaths"] >= deaths // 2
