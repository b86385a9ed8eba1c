"""
aget(), aput() and ajoin(): what they return and raise, who is served when, and what a cancelled one leaves.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import multiprocessing
import signal
import sys
import threading

import payloads
import probes
import pytest
import workers
from probes import LIMIT

import joinq
from joinq import _asyncio

KINDS = ["JoinableQueue", "Queue", "SimpleQueue"]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine in a new event loop, which it does not leave before the limit."""
    new_loop = (asyncio if request.param == "asyncio" else pytest.importorskip("uvloop")).new_event_loop

    def run(main):
        loop = new_loop()
        try:
            return loop.run_until_complete(asyncio.wait_for(main, LIMIT))
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    return run


@pytest.fixture(params=KINDS)
def queue(request):
    """A queue of each kind."""
    q = getattr(joinq, request.param)()
    yield q
    assert not q._lines, "somebody still stands in line"


async def blocked(*coroutines):
    """Tasks for coroutines that have to wait, once they all do."""
    tasks = []
    for coroutine in coroutines:
        tasks.append(asyncio.ensure_future(coroutine))
        await asyncio.sleep(0)
        assert not tasks[-1].done()
    return tasks


def watched(loop):
    """How many descriptors an event loop of asyncio watches."""
    return len(loop._selector.get_map())


def test_items_pass(run, queue):
    """Whatever aput() puts, aget() gets, in order, also when nobody has to wait."""

    async def main():
        items = [None, 0, "two", b"3" * 100_000, [4.0]]
        for item in items:
            await queue.aput(item)
        return items, [await queue.aget() for _ in items]

    put, got = run(main())
    assert put == got


def test_without_waiting_nothing_is_made(run, queue):
    """An aget() that finds an item makes no descriptor."""

    async def main():
        before = probes.descriptors()
        await queue.aput(1)
        assert await queue.aget() == 1
        assert probes.descriptors() == before

    run(main())


def test_aget_waits_while_others_run(run, queue):
    """Of an aget() and a later put() in the same loop both come to their end."""

    async def main():
        (getter,) = await blocked(queue.aget())
        queue.put("news")
        assert await getter == "news"
        (getter,) = await blocked(queue.aget())
        await queue.aput("more")
        assert await getter == "more"

    run(main())


def test_aget_waits_for_another_process(run, queue, launch):
    """An item that another process puts arrives, and no thread of Python was needed."""
    child = launch(workers.puppet, queue)
    threads = threading.active_count()

    async def main():
        (getter,) = await blocked(queue.aget())
        assert threading.active_count() == threads
        child.begin("put", "news")
        assert await getter == "news"
        child.outcome()

    run(main())


def test_aput_waits_for_room(run):
    """A full queue holds up aput(), and only that."""
    q = joinq.Queue(1)

    async def main():
        await q.aput(1)
        putters = await blocked(q.aput(2), q.aput(3))
        assert q.get() == 1
        await putters[0]
        assert not putters[1].done()
        assert q.get() == 2
        await putters[1]
        assert q.get() == 3

    run(main())
    assert not q._lines


def test_ajoin_waits_for_the_last_task(run):
    """Also if it has become the last one only for a moment, for all who wait."""
    q = joinq.JoinableQueue()

    async def main():
        await q.ajoin()
        q.put(1)
        q.put(2)
        joiners = await blocked(q.ajoin(), q.ajoin(), q.ajoin())
        q.get()
        q.task_done()
        await asyncio.sleep(0.01)
        assert not any(joiner.done() for joiner in joiners)
        q.get()
        q.task_done()
        q.put(3)  # before any of them runs
        await asyncio.gather(*joiners)
        assert q.unfinished_tasks == 1

    run(main())
    assert not q._lines


# Errors -------------------------------------------------------------------------------------


def test_timeouts(run):
    """asyncio.wait_for() ends each of them, and nothing is left in the loop."""
    q = joinq.JoinableQueue(1)

    async def main():
        for call in (q.aget, q.ajoin):
            if call == q.ajoin:
                q.put(1)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(call(), 0.01)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(q.aput(2), 0.01)
        assert not q._lines
        assert q.qsize() == 1

    run(main())


def test_shutdown_ends_who_waits(run):
    """ShutDown, as from get() and put()."""
    empty, full = joinq.Queue(), joinq.Queue(1)
    full.put(1)

    async def main():
        waiters = await blocked(empty.aget(), empty.aget(), full.aput(2), full.aput(3))
        empty.shutdown()
        full.shutdown()
        for waiter in waiters:
            with pytest.raises(joinq.ShutDown):
                await waiter
        assert await full.aget() == 1
        with pytest.raises(joinq.ShutDown):
            await full.aget()

    run(main())
    assert not empty._lines
    assert not full._lines


def test_closed(run):
    """ValueError, at once, and for those that wait within about a second."""
    q = joinq.JoinableQueue()

    async def main():
        (getter,) = await blocked(q.aget())
        q.close()
        for call in (q.aput(1), getter):
            with pytest.raises(ValueError, match="is closed"):
                await call
        with pytest.raises(ValueError, match="is closed"):
            await q.aget()
        await q.ajoin()

    run(main())


def test_end_of_the_stream(run, queue):
    """EOFError when nobody is left who could put something."""

    async def main():
        (getter,) = await blocked(queue.aget())
        queue._writer.close()
        with pytest.raises(EOFError):
            await getter

    run(main())


def test_lost_tasks(run, launch):
    """ajoin() raises what join() does when the last taker dies, though no descriptor tells."""
    q = joinq.JoinableQueue()
    child = launch(workers.puppet, q)
    q.put(1)
    child.call("get")

    async def main():
        joiners = await blocked(q.ajoin(), q.ajoin())
        child.kill()
        for joiner in joiners:
            with pytest.raises(joinq.LostTasks):
                await joiner

    run(main())


def test_unpicklable(run, queue):
    """What pickling raises comes out of aput(), what unpickling raises out of aget()."""

    async def main():
        with pytest.raises(LookupError, match="no way"):
            await queue.aput(payloads.Pickling(payloads.fail, "no way"))
        getters = await blocked(queue.aget(), queue.aget())
        queue.put(payloads.Pickled(payloads.fail, "oh no"))
        queue.put("after")
        with pytest.raises(LookupError, match="oh no"):
            await getters[0]
        assert await getters[1] == "after"

    run(main())


# Order, cancellation ------------------------------------------------------------------------


def test_served_in_order_of_arrival(run, queue):
    """The first who came gets the first item; who comes later does not overtake."""
    served = []

    async def getter(number):
        served.append((number, await queue.aget()))

    async def main():
        getters = await blocked(*map(getter, range(5)))
        for item in range(3):
            queue.put(item)
        late = asyncio.ensure_future(getter("late"))
        for item in range(3, 6):
            queue.put(item)
        await asyncio.gather(*getters, late)

    run(main())
    assert served == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), ("late", 5)]


def test_an_item_does_not_wake_them_all(run, monkeypatch):
    """Of many who wait, one item wakes one, and the next, who finds nothing."""
    q = joinq.Queue()
    tries = 0

    class Counted(joinq.Queue):
        def get(self, *args):
            nonlocal tries
            tries += 1
            return super().get(*args)

    monkeypatch.setattr(_asyncio, "LOOK_AGAIN", 10 * LIMIT)
    q = Counted()

    async def main():
        nonlocal tries
        getters = await blocked(*(q.aget() for _ in range(100)))
        assert tries == 1  # the others have seen that somebody waits
        tries = 0
        for number in range(100):
            q.put(number)
            assert await getters[number] == number
            await asyncio.sleep(0)
        assert tries < 300

    run(main())


@pytest.mark.parametrize("put", ["before", "after"])
@pytest.mark.parametrize("victims", [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]])
def test_cancelled_with_an_item_at_hand(run, queue, victims, put):
    """A getter that is cancelled while an item is on its way has not taken it; the others are served."""

    async def main():
        getters = await blocked(queue.aget(), queue.aget(), queue.aget())
        if put == "before":
            queue.put("item")
        for victim in victims:
            getters[victim].cancel()
        if put == "after":
            queue.put("item")
        rest = [getter for number, getter in enumerate(getters) if number not in victims]
        if rest:
            assert await rest[0] == "item"
            for getter in rest[1:]:
                getter.cancel()
        else:
            await asyncio.gather(*getters, return_exceptions=True)
            assert queue.get() == "item"
        outcomes = await asyncio.gather(*getters, return_exceptions=True)
        cancelled = [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes]
        assert cancelled.count(False) == bool(rest)
        assert queue.empty()

    run(main())


@pytest.mark.parametrize("steps", range(6))
def test_cancelled_at_each_step(queue, steps):
    """After however many rounds of the loop: either it has returned the item, or the item is in the queue."""

    async def main():
        (getter,) = await blocked(queue.aget())
        queue.put("item")
        for _ in range(steps):
            await asyncio.sleep(0)
        if getter.cancel():
            with pytest.raises(asyncio.CancelledError):
                await getter
            assert queue.get() == "item"
        else:
            assert getter.result() == "item"

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(5))
def test_storm_of_cancellations(run, seed):
    """Producers and consumers with short timeouts: each item that aput() put is got once."""
    q = joinq.JoinableQueue(3)
    put, got = [], []

    async def patiently(call):
        """Makes a call until it has ended in time, which it is given more and more of."""
        timeout = 0
        while True:
            timeout += (seed + 1) * 0.0002
            try:
                return await asyncio.wait_for(call(), timeout)
            except asyncio.TimeoutError:
                pass

    async def producer(number):
        for item in range(50):
            await patiently(lambda item=item: q.aput((number, item)))
            put.append((number, item))

    async def take():
        item = await q.aget()
        if item:
            got.append(item)  # nothing is awaited before, so wait_for() cannot lose it
        q.task_done()
        return item

    async def consumer():
        while await patiently(take):
            pass

    async def main():
        consumers = [asyncio.ensure_future(consumer()) for _ in range(5)]
        await asyncio.gather(*(producer(number) for number in range(5)))
        await q.ajoin()
        for _ in range(5):
            await q.aput(None)
        await asyncio.gather(*consumers)

    run(main())
    assert sorted(got) == sorted(put)
    assert len(put) == 250
    assert not q._lines


# Loops, registrations, processes --------------------------------------------------------------


def test_the_program_may_watch_the_queue_itself(queue):
    """Its add_reader() on the queue and ours do not replace each other."""

    async def main():
        loop = asyncio.get_running_loop()
        seen = asyncio.Event()
        before = watched(loop)
        loop.add_reader(queue.fileno(), seen.set)
        (getter,) = await blocked(queue.aget())
        assert watched(loop) == before + 2
        queue.put(1)
        assert await getter == 1
        await asyncio.wait_for(seen.wait(), LIMIT)
        assert watched(loop) == before + 1
        assert loop.remove_reader(queue.fileno())

    asyncio.run(main())


def test_nothing_stays_registered(queue):
    """After 100 waits, successful and cancelled, the loop watches what it did before, and no descriptor is left."""

    async def main():
        loop = asyncio.get_running_loop()
        queue.fileno()
        gc.collect()  # other tests' queues
        before, descriptors = watched(loop), probes.descriptors()
        for number in range(100):
            getters = await blocked(queue.aget(), queue.aget())
            queue.put(number)
            assert await getters[0] == number
            getters[1].cancel()
            await asyncio.gather(*getters, return_exceptions=True)
            assert watched(loop) == before
        assert probes.descriptors() == descriptors

    asyncio.run(main())


def test_one_registration_for_all_who_wait(queue):
    """However many wait in a loop."""

    async def main():
        before = watched(asyncio.get_running_loop())
        getters = await blocked(*(queue.aget() for _ in range(20)))
        assert watched(asyncio.get_running_loop()) == before + 1
        for number in range(20):
            queue.put(number)
        assert await asyncio.gather(*getters) == list(range(20))

    asyncio.run(main())


def test_loops_in_several_threads(run, queue):
    """Each loop waits for itself; every item is got once."""

    def thread(count):
        async def main():
            return [await queue.aget() for _ in range(count)]

        return run(main())

    with concurrent.futures.ThreadPoolExecutor() as executor:
        results = [executor.submit(thread, 100) for _ in range(3)]
        for number in range(300):
            queue.put(number)
        items = [item for result in results for item in result.result(LIMIT)]
    assert sorted(items) == list(range(300))


def test_one_loop_after_the_other(run, queue):
    """A queue belongs to no loop; also not after a loop was closed while somebody waited."""

    async def leave():
        return (await blocked(queue.aget()))[0]

    for _ in range(3):
        loop = asyncio.new_event_loop()
        waiting = loop.run_until_complete(leave())
        loop.close()
        queue.put(1)
        run_result = run(queue.aget())
        assert run_result == 1
        waiting._log_destroy_pending = False
        waiting.get_coro().close()


def test_in_the_child_of_a_fork(queue, monkeypatch):
    """A child forked while its parent's loop waits has a loop of its own, and leaves its parent's alone."""
    monkeypatch.setattr(_asyncio, "LOOK_AGAIN", 10 * LIMIT)

    def child():
        asyncio.events._set_running_loop(None)
        (line,) = queue._lines.values()
        line.leave(line._places[0])  # as when the coroutine is collected
        with pytest.raises(asyncio.TimeoutError):
            asyncio.run(asyncio.wait_for(queue.aget(), 0.01))

    async def main():
        (getter,) = await blocked(queue.aget())
        there = multiprocessing.get_context("fork").Process(target=child)
        there.start()
        there.join()
        assert there.exitcode == 0
        queue.put("for the parent")
        assert await asyncio.wait_for(getter, LIMIT) == "for the parent"

    asyncio.run(main())


def test_producers_and_consumers_in_processes(run, launch):
    """A loop feeds processes and waits for them, and collects what they answer."""
    tasks, results = joinq.JoinableQueue(5), joinq.Queue()
    children = [launch(workers.square, tasks, results) for _ in range(2)]

    async def main():
        collector = asyncio.ensure_future(collect())
        for number in range(200):
            await tasks.aput(number)
        await tasks.ajoin()
        answers = await collector
        for _ in children:
            await tasks.aput(None)
        return answers

    async def collect():
        return [await results.aget() for _ in range(200)]

    assert sorted(run(main())) == sorted(n * n for n in range(200))
    assert sum(child.result() for child in children) == 200


@pytest.mark.skipif(sys.version_info < (3, 11), reason="handlers run between any two bytecodes")
def test_signal_with_an_item_at_hand(queue):
    """What a handler raises after aget() has taken an item is raised when the caller has it."""
    got = []

    def interrupt(signum, frame):
        raise InterruptedError

    async def main():
        asyncio.get_running_loop().call_later(0.01, queue.put, payloads.Signalling())
        got.append(await queue.aget())
        while True:  # until the handler runs
            pass

    before = signal.signal(signal.SIGUSR2, interrupt)
    try:
        with pytest.raises(InterruptedError):
            asyncio.run(main())
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert got == [None]
    assert queue.empty()


def test_one_after_the_other(run, queue):
    """A coroutine that has waited goes on without waiting for the loop as long as there are items."""

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, lambda: [queue.put(number) for number in range(3)])
        got, steps = [await queue.aget()], []
        loop.call_soon(steps.append, "of the loop")
        got += [await queue.aget(), await queue.aget()]
        return got, [*steps]

    assert run(main()) == ([0, 1, 2], [])


def test_interrupt(queue):
    """Ctrl-C ends a loop that waits in aget(); nothing is lost."""

    async def main():
        asyncio.get_running_loop().call_later(0.05, signal.raise_signal, signal.SIGINT)
        await queue.aget()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    queue.put(1)
    assert queue.get() == 1
