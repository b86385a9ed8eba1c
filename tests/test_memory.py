"""Memory: as much as the backlog needs, given back when it is drained, and an error when there is none."""

from __future__ import annotations

import ctypes
import gc
import os
import random

import payloads
import probes
import pytest
import workers

import joinq

MIB, GIB = 2**20, 2**30
RESERVE = 64 * MIB
"""The most that an empty queue may keep for its next items."""


@pytest.fixture
def memory():
    """A function that gives the memory, in bytes, of the queues that the test has made."""
    gc.collect()
    others = probes.segments()
    return lambda: probes.memory_of(probes.segments() - others)


def test_unbounded_queue_takes_a_million_items_without_a_reader(memory):
    """put() never blocks for want of a reader; all items come out in order, and memory goes back."""
    q = joinq.JoinableQueue()
    for number in range(1_000_000):
        q.put_nowait(number)
    assert (q.qsize(), q.unfinished_tasks) == (1_000_000, 1_000_000)
    for number in range(1_000_000):
        if q.get_nowait() != number:
            pytest.fail(f"item {number} is not in its place")
    q.task_done(1_000_000)
    q.join()
    assert q.empty()
    assert memory() < RESERVE


@pytest.mark.parametrize("size", [1, 100, 8176, 8177, 65_536, MIB, MIB + 1])
def test_backlog_takes_memory_in_proportion_and_gives_it_back(size, memory):
    """A backlog of about 100 MiB, whatever the size of its items, costs little more than that."""
    q = joinq.Queue()
    count = min(100 * MIB // size, 200_000)
    payload = os.urandom(size)
    for _ in range(count):
        q.put(payload)
    used = memory()
    assert count * size <= used <= 2 * count * (size + 512) + RESERVE
    for _ in range(count):
        if q.get_nowait() != payload:
            pytest.fail("an item has changed")
    assert q.empty()
    assert memory() < RESERVE


def test_item_of_100_mib_passes(launch, memory):
    """An item far larger than any buffer passes between processes, and its memory goes back."""
    q = joinq.Queue()
    consumer = launch(workers.get_checksum, q)
    payload = os.urandom(MIB) * 100
    q.put(payload)
    q.put(payload[: 3 * MIB])
    assert consumer.result() == [payloads.checksum(payload), payloads.checksum(payload[: 3 * MIB])]
    assert q.empty()
    assert memory() < RESERVE


@pytest.mark.slow
@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
def test_item_of_more_than_4_gib_passes(launch, memory):
    """Lengths have 64 bits: one item of more than 4 GiB passes, and its memory goes back."""
    if probes.available_memory() < 10 * GIB:
        pytest.skip("needs 10 GiB of available memory")
    q = joinq.Queue()
    size = 4 * GIB + 10 * MIB
    places = [0, MIB, 2 * GIB, 4 * GIB - 1, 4 * GIB, 4 * GIB + MIB, size - 1]
    payload = bytes(size)  # pages of zeros, which take no memory unless they are written
    start = id(payload) + bytes.__basicsize__ - 1
    for mark, place in enumerate(places, 1):
        ctypes.memset(start + place, mark, 1)
    q.put(payload)
    del payload
    assert memory() >= size
    assert launch(workers.get_marks, q, places).result() == (bytes, size, bytes(range(1, len(places) + 1)))
    assert q.empty()
    assert memory() < RESERVE


def test_memory_goes_back_when_another_process_drains(launch, memory):
    """Who put the items and who took them makes no difference to the memory."""
    q = joinq.JoinableQueue()
    producer = launch(workers.put_items, q, 0, 300, (MIB, 100, 10_000))
    producer.result()
    assert memory() > 100 * MIB
    consumer = launch(workers.consume, q)
    q.put(None)
    assert len(consumer.result()[0]) == 300
    assert q.empty()
    assert memory() < RESERVE


def test_steady_traffic_takes_no_more_memory(memory):
    """While items of mixed sizes come and go, the memory in use stops growing."""
    q = joinq.Queue()
    sizes = (10, 1000, 8000, 9000, 100_000, 300_000)
    items = [payloads.make_item(0, number, sizes) for number in range(60)]
    rounds = random.Random(1)
    high = []
    for _ in range(4):
        for _ in range(100):
            batch = rounds.sample(items, 20)
            for item in batch:
                q.put(item)
            for item in batch:
                assert q.get_nowait() == item
        high.append(memory())
    assert high[3] <= high[1]
    assert high[3] < RESERVE


# The first six broke earlier versions of the heap.
@pytest.mark.parametrize("seed", [982526257, 65054739, 1272987056, 1544862794, 1292897679, 30972418, *range(30)])
def test_any_sequence_of_sizes_leaves_the_queue_whole(seed, memory):
    """Whatever sizes come and go in whatever rhythm, every item arrives whole and all memory is accounted for."""
    rhythm = random.Random(seed)
    largest = rhythm.choice([30_000, 200_000, 1_000_000, 6_000_000])
    q = joinq.Queue()
    sizes = []
    for step in range(400):
        if rhythm.random() < 0.5 or not sizes:
            sizes.append(rhythm.choice([20_000, 70_000, largest, rhythm.randrange(8200, largest)]))
            q.put(bytes([step % 256]) * sizes[-1] + b"end")
        else:
            item = q.get_nowait()
            assert item == item[:1] * sizes.pop(0) + b"end"
        if step % 20 == 0:
            probes.check_invariants(q)
    for size in sizes:
        assert len(q.get_nowait()) == size + 3
    probes.check_invariants(q)
    assert q.empty()
    assert memory() < RESERVE


def test_scattered_lifetimes_leave_nothing_behind(launch, memory):
    """Large and small items of several processes, taken in a different rhythm, all give back."""
    q = joinq.JoinableQueue(50)
    sizes = (5, 2 * MIB, 700, 40_000, 300_000)
    producers = [launch(workers.put_items, q, who, 100, sizes) for who in range(2)]
    consumer = launch(workers.consume, q, 2)
    for producer in producers:
        producer.result()
    q.join()
    q.put(None)
    q.put(None)
    payloads.check_every_item_once(consumer.result(), 2, 100)
    assert q.empty()
    assert memory() < RESERVE


def test_discarded_items_give_their_memory_back(memory):
    """shutdown(immediate=True) gives back the memory of what it discards."""
    q = joinq.JoinableQueue()
    for number in range(500):
        q.put(bytes(number % 3 * MIB // 2))
    q.shutdown(immediate=True)
    assert q.empty()
    assert memory() < RESERVE


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
def test_put_without_memory_raises_memory_error(launch):
    """put() raises MemoryError, the queue is as before, and works on wherever there is memory."""
    q = joinq.JoinableQueue()
    q.put("before")
    poor = launch(workers.puppet_without_memory, q)
    if not poor.receive():
        pytest.skip("this system cannot be made to refuse memory")
    for size in (MIB, 50 * MIB):
        with pytest.raises(MemoryError):
            poor.call("put", bytes(size))
        assert (q.qsize(), q.unfinished_tasks) == (1, 1)
    q.put(bytes(MIB))
    poor.call("put", "small")
    assert poor.call("get") == "before"
    assert poor.call("get") == bytes(MIB)
    assert q.get_nowait() == "small"
    poor.call("task_done", 3)
    q.join()


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
@pytest.mark.parametrize("size", [10, 5000, 100_000])
def test_items_put_before_memory_ran_out_are_whole(launch, size, memory):
    """A producer that fills all memory gets MemoryError; what it had put arrives."""
    q = joinq.Queue()
    for _ in range(2):  # the second time, memory that the first one gave back is used again
        q.put("warm")
        assert q.get_nowait() == "warm"
        count = launch(workers.put_until_memory_error, q, size).result()
        if count is None:
            pytest.skip("this system cannot be made to refuse memory")
        assert q.qsize() == count
        q.put(payloads.make_item(0, count, (size,)))
        for number in range(count + 1):
            assert payloads.check_item(q.get_nowait()).number == number
    assert q.empty()
    assert memory() < RESERVE


@pytest.mark.parametrize("on_death", ["raise", "ignore", "redeliver"])
@pytest.mark.parametrize("take", [workers.take_one, workers.take_some])
@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
def test_give_back_without_memory(launch, take, on_death):
    """Where the queue cannot grow any more, what an exception gives back is not lost, and it can be drained."""
    q = joinq.JoinableQueue(on_death=on_death)
    outcome = launch(workers.give_back_without_memory, q, take).result()
    if outcome is None:
        pytest.skip("this system cannot be made to refuse memory")
    put, got = outcome
    assert sorted(got) == list(range(put))
    assert got == list(range(put)) or take is workers.take_some
    assert q.empty()


@pytest.mark.parametrize("fragments", [0, 5, 400])
@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
def test_refused_puts_leave_memory_for_leases(launch, fragments):
    """However often a put is refused, with "redeliver" what is in the queue can be taken."""
    q = joinq.JoinableQueue(on_death="redeliver")
    got = launch(workers.take_beside_refused_puts, q, fragments).result()
    if got is None:
        pytest.skip("this system cannot be made to refuse memory")
    assert got == list(range(6))


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
def test_queue_is_not_made_without_memory(launch):
    """The constructor raises MemoryError or OSError, and leaves no file open."""
    outcome = launch(workers.create_without_memory).result()
    if outcome is None:
        pytest.skip("this system cannot be made to refuse memory")
    error, left_open = outcome
    assert error in ("MemoryError", "OSError")
    assert not left_open
