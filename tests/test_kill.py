"""
Processes killed without warning, two hundred at a time: the others go on, and nothing is lost.

The victims die at random moments of their loops; each round checks every item. One survivor
lives through all rounds. Only what a victim had in its hands may be missing: one item at most.
"""

from __future__ import annotations

import multiprocessing
import queue
import random
import time

import payloads
import probes
import pytest
import workers
from probes import LIMIT

import joinq

MIB = 2**20
RESERVE = 64 * MIB
"""The most that an empty queue may keep for its next items."""

SURVIVOR, VICTIM = 0, 1

two_hundred_times = pytest.mark.parametrize(
    ("ctx", "rounds"), [("fork", 200), ("spawn", 5), ("forkserver", 10)], indirect=["ctx"]
)


@pytest.fixture
def memory():
    """A function that gives the memory of the queues that the test has made."""
    others = probes.segments()
    return lambda: probes.memory_of(probes.segments() - others)


def jitter():
    """Let a random, short time pass without sleeping: any step of the others may be next."""
    end = time.perf_counter() + random.random() * 0.001
    while time.perf_counter() < end:
        pass


def get_all(q):
    """Every item that is in the queue now, checked."""
    items = []
    while True:
        try:
            items.append(payloads.check_item(q.get_nowait()))
        except queue.Empty:
            return items


def numbers_of(items, producer):
    return [item.number for item in items if item.producer == producer]


@two_hundred_times
def test_kill_of_a_consumer_blocked_in_get(launch, rounds):
    """The next item goes to the consumer that lives, not to the one that was killed waiting."""
    q = joinq.JoinableQueue()
    survivor = launch(workers.get_forever, q)
    assert survivor.receive() == "ready"
    for number in range(rounds):
        victim = launch(workers.get_forever, q)
        assert victim.receive() == "ready"
        victim.wait_asleep()
        assert victim.kill() == []
        q.put(payloads.make_item(0, number))
        assert survivor.receive() == (0, number)
        probes.check_invariants(q)
    q.put(None)
    assert survivor.receive() is None
    q.join(LIMIT)
    assert (q.qsize(), q.unfinished_tasks) == (0, 0)


@two_hundred_times
@pytest.mark.parametrize("maxsize", [0, 3])
def test_kill_of_a_producer_in_a_put_loop(launch, rounds, maxsize, memory):
    """What a killed producer leaves is whole: the beginning of its sequence, without gaps."""
    q = joinq.JoinableQueue(maxsize)
    workers.supply(VICTIM)
    survivor = launch(workers.put_on_demand, q, SURVIVOR)
    for number in range(rounds):
        victim = launch(workers.put_forever, q, VICTIM)
        survivor.send(10)
        items, last_seen = [], random.randrange(15)
        while len(numbers_of(items, VICTIM)) < last_seen:
            items.append(payloads.check_item(q.get(timeout=LIMIT)))
        jitter()
        victim.kill()
        while len(numbers_of(items, SURVIVOR)) < 10:
            items.append(payloads.check_item(q.get(timeout=LIMIT)))
        items += get_all(q)
        of_victim = numbers_of(items, VICTIM)
        assert of_victim == list(range(len(of_victim)))
        assert numbers_of(items, SURVIVOR) == list(range(10 * number, 10 * number + 10))
        assert q.unfinished_tasks == len(items)
        q.task_done(len(items))
        q.join(LIMIT)
        probes.check_invariants(q)
    assert q.empty()
    assert memory() < RESERVE


@two_hundred_times
def test_kill_of_a_producer_blocked_in_put(launch, rounds):
    """What a producer was waiting to put is not there when it is killed; the others' items are."""
    q = joinq.JoinableQueue(2)
    survivor = launch(workers.puppet, q)
    for number in range(rounds):
        q.put("first")
        q.put("second")
        victim = launch(workers.puppet, q)
        waiting = [(victim, "the dead one's"), (survivor, number)]
        random.shuffle(waiting)
        for process, item in waiting:
            process.begin_and_sleep("put", item)
        victim.kill()
        assert [q.get(timeout=LIMIT) for _ in range(3)] == ["first", "second", number]
        assert survivor.outcome() is None
        assert (q.qsize(), q.unfinished_tasks) == (0, 3)
        q.task_done(3)
        q.join(LIMIT)
        probes.check_invariants(q)


@two_hundred_times
def test_kill_of_a_joiner(launch, rounds):
    """A joiner that is killed waiting changes no count and keeps no other joiner waiting."""
    q = joinq.JoinableQueue()
    survivor = launch(workers.puppet, q)
    for number in range(rounds):
        q.put(number)
        victim = launch(workers.puppet, q)
        victim.begin_and_sleep("join")
        survivor.begin_and_sleep("join")
        victim.kill()
        assert (q.get_nowait(), q.unfinished_tasks) == (number, 1)
        q.task_done()
        assert survivor.outcome() is None
        q.join(LIMIT)
        probes.check_invariants(q)


@two_hundred_times
@pytest.mark.parametrize("maxsize", [0, 4])
def test_kill_of_a_consumer_in_a_get_loop(launch, rounds, maxsize, memory):
    """Only the item in a killed consumer's hands is missing; every other one arrives once."""
    q = joinq.JoinableQueue(maxsize)
    survivor = launch(workers.get_forever, q)
    assert survivor.receive() == "ready"
    for producer in range(rounds):
        victim = launch(workers.get_forever, q)
        assert victim.receive() == "ready"
        last = random.randrange(5, 30)
        for number in range(30):
            if number == last:
                jitter()
                by_victim = victim.kill()
            q.put(payloads.make_item(producer, number), timeout=LIMIT)
        q.put("end of round", timeout=LIMIT)
        by_survivor = list(iter(survivor.receive, "end of round"))
        arrived = check_reports([by_victim, by_survivor])
        missing = {(producer, number) for number in range(30)} - set(arrived)
        # Held by the victim: an item that it did not report, or did not report done.
        assert len(missing) <= q.unfinished_tasks <= 1
        if q.unfinished_tasks:
            q.task_done()
        q.join(LIMIT)
        probes.check_invariants(q)
    q.put(None)
    assert survivor.receive() is None
    assert q.empty()
    assert memory() < RESERVE


def check_reports(reports):
    """All items that consumers reported: none twice, and each consumer's in the order of puts."""
    for report in reports:
        for producer in {who for who, _ in report}:
            numbers = [number for who, number in report if who == producer]
            assert numbers == sorted(numbers), "items out of order"
    arrived = [item for report in reports for item in report]
    assert len(arrived) == len(set(arrived)), "an item arrived twice"
    return arrived


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
@pytest.mark.parametrize("maxsize", [0, 1, 5])
def test_kill_of_everybody_one_after_another(launch, maxsize, memory):
    """Two producers and two consumers die at any moment: each consumer costs one item at most."""
    q = joinq.JoinableQueue(maxsize)
    for who in range(2):
        workers.supply(who)
    for _ in range(30):
        producers = [launch(workers.put_forever, q, who) for who in range(2)]
        consumers = [launch(workers.get_forever, q) for _ in range(2)]
        for consumer in consumers:
            assert consumer.receive() == "ready"
            consumer.receive()
        victims = producers + consumers
        random.shuffle(victims)
        said = {}
        for victim in victims:
            jitter()
            said[victim] = victim.kill()
        rest = get_all(q)
        reports = [said[consumer] for consumer in consumers]
        arrived = check_reports([*reports, [item[:2] for item in rest]])
        missing = 0
        for who in range(2):
            numbers = [number for producer, number in arrived if producer == who]
            missing += max(numbers, default=-1) + 1 - len(numbers)
        # Each consumer's first item was received above and is not in its report.
        assert missing <= 2 + 2
        assert len(rest) <= q.unfinished_tasks <= len(rest) + 2
        if q.unfinished_tasks:
            q.task_done(q.unfinished_tasks)
        q.join(LIMIT)
        probes.check_invariants(q)
    assert q.empty()
    assert memory() < RESERVE


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
@pytest.mark.parametrize("victims", ["producers", "consumers"])
def test_kill_in_the_middle_of_a_large_item_leaks_no_memory(launch, victims, memory):
    """What the dead had begun to write, or were reading, is free for those who live."""
    q = joinq.JoinableQueue(4)
    large = [payloads.make_item(0, number, (3 * MIB,)) for number in range(3)]
    for _ in range(60):
        if victims == "producers":
            victim = launch(workers.put_again_and_again, q, large)
            for _ in range(2):
                payloads.check_item(q.get(timeout=LIMIT))
        else:
            victim = launch(workers.get_forever, q)
            assert victim.receive() == "ready"
            for item in large:
                q.put(item, timeout=LIMIT)
            victim.receive()
        jitter()
        victim.kill()
        get_all(q)
        probes.check_invariants(q)
    for item in large:
        q.put(item)
    assert get_all(q) == large
    assert memory() < RESERVE


@pytest.mark.parametrize("end", ["killed", "exits"])
def test_queue_survives_its_creator(ctx, launch, end):
    """When the process that made a queue is gone, those it was given to go on using it."""
    pipes = [multiprocessing.Pipe() for _ in range(2)]
    ends = [there for _, there in pipes]
    method = ctx.get_start_method()
    creator = launch(workers.create_queue_for, ends, method, daemon=False)
    assert creator.receive() == "done"
    producer, consumer = (here for here, _ in pipes)
    assert call(producer, "put", "before") is None
    if end == "killed":
        creator.kill()
    else:
        creator.send("exit")
        probes.wait_until(lambda: not creator.process.is_alive(), "the creator has ended")
    assert call(consumer, "get") == "before"
    for number in range(50):
        item = payloads.make_item(0, number)
        assert call(producer, "put", item) is None
        assert call(consumer, "get") == item
    call(producer, "task_done", 51)
    call(consumer, "join", LIMIT)
    for channel in (producer, consumer):
        channel.send(None)
        assert channel.poll(LIMIT)
        assert channel.recv() is None


def call(channel, name, *args):
    """Let a puppet that is nobody's child any more make a call."""
    channel.send((name, args, {}))
    for expected in ("begun", True):
        assert channel.poll(LIMIT), "no answer"
        answer = channel.recv()
        assert answer == "begun" or answer[0] is expected, answer
    return answer[1]
