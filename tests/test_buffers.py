"""Buffers that travel outside of the pickle (protocol 5): what arrives is whole, and nobody else's.

A large one is a view of the queue's own memory, so the tests look for moments in which somebody else could get hold of
that: when the queue goes, when its processes die, and when they fork.
"""

from __future__ import annotations

import array
import contextlib
import copyreg
import gc
import multiprocessing
import os
import pickle
import signal
import threading
import weakref
import zlib
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import payloads
import probes
import pytest
import workers
from payloads import Boxed
from probes import LIMIT

import joinq
from joinq._native import ffi, lib

KINDS = {
    "Queue": joinq.Queue,
    "raise": joinq.JoinableQueue,
    "redeliver": lambda maxsize=0: joinq.JoinableQueue(maxsize, on_death="redeliver"),
}

INLINE = 100
LARGE = 300_000
SIZES = [0, 1, 63, 64, 65, 1000, 4096, 8000, 8100, 8176, 8177, 20_000, 65_400, 65_535, 65_536, 65_537, 1 << 20]


@pytest.fixture
def ctx():
    """How a process was started makes no difference to the buffers it gets."""
    return multiprocessing.get_context("fork")


@pytest.fixture(params=KINDS)
def new(request):
    """The constructor of a queue of each kind."""
    return KINDS[request.param]


@pytest.fixture
def q(new):
    """A queue of each kind, in order and without a byte in use afterwards."""
    queue = new()
    idle = probes.counters(queue)["used_bytes"]
    yield queue
    gc.collect()
    if isinstance(queue, joinq.JoinableQueue) and queue.unfinished_tasks:
        queue.task_done(queue.unfinished_tasks)
    probes.reap(queue)
    probes.check_invariants(queue)
    assert queue.qsize() == 0
    assert probes.counters(queue)["used_bytes"] == idle


def pattern(size, name=0):
    """Bytes that differ by size, name and place."""
    text = b"%d/%d;" % (size, name)
    return (text * (size // len(text) + 1))[:size]


turn = multiprocessing.get_context("fork").Lock()
"""Who has it gets what he has put."""


def received(queue, item):
    with turn:
        queue.put(item)
        return queue.get(timeout=LIMIT)


def used(queue):
    return probes.counters(queue)["used_bytes"]


# Contents ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_buffer_arrives_whole_and_writable(q, size):
    """Of any size: the same bytes, which can be changed if they could where they came from."""
    sent = bytearray(pattern(size))
    got = received(q, Boxed(sent)).buffers[0]
    assert bytes(got) == sent
    assert not got.readonly
    if size:
        got[0] ^= 255
        got[-1:] = b"!"
        assert bytes(sent) == pattern(size)


@pytest.mark.parametrize("size", SIZES)
def test_read_only_buffer_stays_so(q, size):
    """What could not be changed where it came from cannot be changed where it arrives."""
    got = received(q, Boxed(pattern(size))).buffers[0]
    assert bytes(got) == pattern(size)
    assert got.readonly
    if size:
        with pytest.raises(TypeError):
            got[0] = 1


@pytest.mark.parametrize("way", ["put", "put_many"])
def test_many_buffers_in_one_item(q, way):
    """Each buffer arrives as itself, in its place, writable or not."""
    for sizes in ([1] * 500, [100_000, 0, 1] * 5, SIZES, SIZES[::-1], [0] * 3):
        sent = [pattern(size, i) if i % 3 else bytearray(pattern(size, i)) for i, size in enumerate(sizes)]
        if way == "put":
            q.put(Boxed(*sent))
        else:
            q.put_many([Boxed(*sent)])
        got = q.get_many(1)[0].buffers if way == "put_many" else q.get().buffers
        assert [bytes(view) for view in got] == [bytes(item) for item in sent]
        assert [view.readonly for view in got] == [isinstance(item, bytes) for item in sent]
        for view in got:
            if not view.readonly and len(view):
                view[:] = bytes(len(view))
        assert all(bytes(view) == sent[i] for i, view in enumerate(got) if view.readonly)


def test_buffer_lies_at_a_multiple_of_64_bytes():
    """So that what computes with it is fast; also behind a pickle of any length."""
    q = joinq.Queue()
    for length in range(64):
        item = received(q, ("x" * length, Boxed(bytearray(LARGE), bytearray(LARGE))))
        for view in item[1].buffers:
            address = ffi.cast("uintptr_t", ffi.from_buffer(view))
            assert int(address) % 64 == 0


@pytest.mark.parametrize("size", [INLINE, LARGE])
def test_typed_buffers_arrive_as_bytes(q, size):
    """A PickleBuffer of any format travels as its bytes."""
    numbers = array.array("d", range(size // 8))
    got = received(q, Boxed(numbers)).buffers[0]
    assert got.cast("d").tolist() == numbers.tolist()
    grid = memoryview(bytearray(range(24))).cast("B", (4, 6))
    assert bytes(received(q, Boxed(grid)).buffers[0]) == bytes(range(24))


def test_buffer_that_is_not_contiguous_is_refused(q):
    """As pickle does; nothing is put."""
    for put in (q.put, lambda item: q.put_many([item])):
        with pytest.raises((BufferError, pickle.PicklingError)):
            put(Boxed(memoryview(bytearray(100))[::2]))
    assert q.qsize() == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [bytes, bytearray, str, lambda data: data.decode() + "ż"])
def test_large_values_arrive_whole(q, kind, size):
    """bytes, bytearray and str of any size, and again while another thread computes."""
    value = kind(pattern(size)) if kind is not str else pattern(size).decode()
    got = received(q, value)
    assert type(got) is type(value)
    assert got == value


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 1 << 22])
def test_other_threads_run_while_large_items_pass(size):
    """Where the GIL is given up to copy, other threads may use the queue, and their items are theirs."""
    q = joinq.JoinableQueue()

    def pass_items(name):
        for i in range(30):
            q.put((name, i, Boxed(bytearray(pattern(size, name)))))
            q.put(pattern(size, name))
            for _ in range(2):
                check(q.get(timeout=LIMIT))
                q.task_done()

    def check(item):
        if isinstance(item, bytes):
            assert item in expected
        else:
            assert bytes(item[2].buffers[0]) == expected[item[0]]

    expected = [pattern(size, name) for name in range(3)]
    errors = workers.run_threads([(pass_items, name) for name in range(3)])
    assert not errors
    q.join(0)


def test_numpy_arrays_arrive_as_they_were(q):
    """Of any shape, order, type and writability."""
    np = pytest.importorskip("numpy")
    arrays = [
        *(np.arange(n, dtype=kind) for n in (0, 1, 10, 1000, 100_000) for kind in ("u1", "f8", "c16")),
        *(np.arange(60_000.0).reshape(200, 300), np.asfortranarray(np.arange(60_000.0).reshape(200, 300))),
        *(np.arange(60_000.0)[::3], np.arange(60_000.0).reshape(200, 300).T, np.zeros((0, 5)), np.float64(1.5)),
        *(np.zeros(3, dtype="M8"), np.zeros(3, dtype="m8"), np.zeros(3, dtype="M8[s]")),
        *np.broadcast_arrays(np.arange(12.0).reshape(3, 4), np.zeros(4)),  # flagged as writable, and read-only
        *(np.array(["a", "ż"]), np.array([None, 1], dtype=object), np.zeros(5000, dtype=[("x", "f4"), ("y", "i2")])),
    ]
    frozen = np.arange(50_000.0)
    frozen.flags.writeable = False
    arrays += [frozen, frozen + 1, np.arange(1000.0).reshape(10, 100), np.arange(1000.0).reshape(10, 100, order="F")]
    arrays += [sent + sent for sent in arrays[:15]]  # of which the same was said before
    arrays.append(np.arange(1.0, 13.0).reshape(3, 4))
    for sent in (sent for sent in arrays for _ in range(4)):  # what comes again is made in another way
        got = received(q, sent)
        expected = pickle.loads(pickle.dumps(sent, 5))
        assert got.dtype == sent.dtype
        assert got.shape == sent.shape
        np.testing.assert_array_equal(got, sent)
        if isinstance(sent, np.ndarray):
            assert got.flags.f_contiguous == expected.flags.f_contiguous
            assert got.flags.writeable == expected.flags.writeable or sent.size * sent.itemsize == 0
    del got
    q.put_many(arrays)
    for sent in arrays:
        np.testing.assert_array_equal(q.get(), sent)
    q.put([arrays, arrays])
    one, other = q.get()
    assert all(a is b for a, b in zip(one, other))  # what was one object is one again


def test_arrays_of_many_shapes_arrive_as_they_were():
    """More than is remembered at either end, each of them several times."""
    np = pytest.importorskip("numpy")
    q = joinq.Queue()
    for n in [*range(600), *(n for n in range(600) for _ in range(4))]:
        q.put(np.arange(n))
        np.testing.assert_array_equal(q.get(), np.arange(n))


def test_dtypes_of_users_are_not_kept():
    """What an array's dtype refers to goes with it."""
    np = pytest.importorskip("numpy")
    q = joinq.Queue()
    note = Boxed()
    known = weakref.ref(note)
    q.put(np.zeros(3, np.dtype("f8", metadata={"note": note})))
    assert isinstance(q.get().dtype.metadata["note"], Boxed)
    del note
    gc.collect()
    assert known() is None


@pytest.mark.parametrize("register", [copyreg.pickle, ForkingPickler.register])
def test_reducers_of_arrays_are_used_from_then_on(register, monkeypatch):
    """Although arrays were put before without."""
    np = pytest.importorskip("numpy")
    monkeypatch.setattr(copyreg, "dispatch_table", dict(copyreg.dispatch_table))
    monkeypatch.setattr(ForkingPickler, "_extra_reducers", dict(ForkingPickler._extra_reducers))
    q = joinq.Queue()
    for _ in range(2):
        q.put(np.arange(3))
        np.testing.assert_array_equal(q.get(), [0, 1, 2])
    register(np.ndarray, lambda array: (list, (array.tolist(),)))
    q.put(np.arange(3))
    assert q.get() == [0, 1, 2]


# Whose it is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [INLINE, LARGE])
def test_nothing_is_shared_with_the_sender(q, size):
    """What the sender changes after put() changes nothing, nor what the receiver changes."""
    sent = bytearray(pattern(size))
    q.put(Boxed(sent))
    sent[:] = bytes(size)
    got = q.get().buffers[0]
    assert bytes(got) == pattern(size)
    got[:] = b"\1" * size
    assert bytes(sent) == bytes(size)


@pytest.mark.parametrize("size", [INLINE, LARGE])
def test_nothing_is_shared_with_later_items(q, size):
    """Views stay as they are while others pass through the queue."""
    views = [received(q, Boxed(bytearray(pattern(size, i)))).buffers[0] for i in range(10)]
    for i in range(0, 10, 2):
        views[i][:] = bytes(size)
    for i in range(100):
        assert bytes(received(q, Boxed(pattern(size, i))).buffers[0]) == pattern(size, i)
    for i, view in enumerate(views):
        assert bytes(view) == (pattern(size, i) if i % 2 else bytes(size))


def test_one_view_keeps_the_others_whole(q):
    """Of an item with several buffers any one may live longest; slices and casts count, too."""
    got = received(q, Boxed(*[bytearray(pattern(LARGE, i)) for i in range(3)])).buffers
    last = got[1][1000:2000].cast("B")
    del got
    for _ in range(20):
        received(q, Boxed(bytearray(LARGE)))
    assert bytes(last) == pattern(LARGE, 1)[1000:2000]


def test_memory_comes_back_with_the_last_view():
    """A large item's memory is used until the last view of it is gone, and not longer."""
    q = joinq.JoinableQueue()
    idle = used(q)
    got = received(q, Boxed(bytearray(LARGE), bytearray(LARGE))).buffers
    assert used(q) - idle >= 2 * LARGE
    view = got[1][5:10]
    del got
    gc.collect()
    assert used(q) - idle >= 2 * LARGE
    del view
    assert used(q) == idle
    probes.check_invariants(q)


def test_item_without_views_is_gone_at_once():
    """What was unpickled by copying needs no memory of the queue."""
    q = joinq.JoinableQueue()
    idle = used(q)
    kept = [received(q, bytes(LARGE)), received(q, [bytearray(LARGE), "x" * LARGE]), received(q, "ż" * LARGE)]
    kept.append(received(q, Boxed(bytearray(INLINE))))
    assert used(q) == idle
    del kept


def test_views_outlive_the_queue():
    """They stay valid when the queue was closed and collected."""
    q = joinq.JoinableQueue()
    view = received(q, Boxed(bytearray(pattern(LARGE)))).buffers[0]
    segments = probes.segments()
    q.close()
    del q
    gc.collect()
    others = [joinq.Queue() for _ in range(5)]
    for other in others:
        other.put(Boxed(bytearray(LARGE)))
    assert bytes(view) == pattern(LARGE)
    view[:5] = b"12345"
    assert bytes(view[:5]) == b"12345"
    del view, others, other
    gc.collect()
    assert len(probes.segments()) < len(segments)  # now the queue is gone, too


def test_views_outlive_the_sender(launch, q):
    """They stay valid when the sender was killed, and others put and get."""
    sender = launch(workers.puppet, q)
    sender.call("put", Boxed(bytearray(pattern(LARGE))))
    view = q.get(timeout=LIMIT).buffers[0]
    sender.call("put", Boxed(bytearray(pattern(LARGE, 1))))
    sender.kill()
    probes.reap(q)
    assert bytes(q.get().buffers[0]) == pattern(LARGE, 1)
    for _ in range(10):
        received(q, Boxed(bytearray(LARGE)))
    assert bytes(view) == pattern(LARGE)
    view.release()


def test_memory_of_a_killed_receiver_comes_back(q):
    """Who dies with views leaves nothing; with "redeliver" the items come again, whole."""
    items = [Boxed(bytearray(pattern(LARGE, i)), pattern(INLINE, i)) for i in range(4)]
    q.put_many(items)

    def take():
        views = [q.get().buffers for _ in range(3)]
        views[0][0][:] = bytes(LARGE)
        os.kill(os.getpid(), signal.SIGKILL)

    assert workers.wait_for(workers.fork(take)) == -signal.SIGKILL
    probes.reap(q)
    probes.check_invariants(q)
    got = [item.buffers for item in q.get_many(10)]
    while q.qsize():
        got.append(q.get().buffers)
    missing = 0 if q.qsize.__self__._leases is not None else 3
    assert [[bytes(view) for view in views] for views in got] == [
        [pattern(LARGE, i), pattern(INLINE, i)] for i in range(missing, 4)
    ]


def test_views_outlive_the_task():
    """With "redeliver" they stay valid when the task was reported done."""
    q = KINDS["redeliver"]()
    idle = used(q)
    view = received(q, Boxed(bytearray(pattern(LARGE)))).buffers[0]
    view[:3] = b"abc"
    q.task_done()
    for _ in range(10):
        received(q, Boxed(bytearray(LARGE)))
        q.task_done()
    assert bytes(view) == b"abc" + pattern(LARGE)[3:]
    assert used(q) == idle


def test_redelivered_buffer_is_what_was_put():
    """What a taker has changed in its view is not what the next one gets."""
    q = KINDS["redeliver"]()
    q.put(Boxed(bytearray(pattern(LARGE))))

    def take():
        q.get().buffers[0][:] = bytes(LARGE)
        os.kill(os.getpid(), signal.SIGKILL)

    assert workers.wait_for(workers.fork(take)) == -signal.SIGKILL
    probes.reap(q)
    assert bytes(q.get(timeout=LIMIT).buffers[0]) == pattern(LARGE)


# Errors and signals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [INLINE, LARGE])
def test_item_that_fails_leaves_its_views_valid(q, size):
    """An item whose unpickling fails counts as taken; what it has let out of its buffers stays valid."""
    payloads.kept.clear()
    q.put(Boxed(bytearray(pattern(size)), then="fail"))
    with pytest.raises(LookupError):
        q.get()
    assert q.qsize() == 0
    views = payloads.kept[:]
    payloads.kept.clear()
    for _ in range(10):
        received(q, Boxed(bytearray(size)))
    assert {bytes(view) for view in views} == {pattern(size)}
    views[0][:] = bytes(size)
    del views


@pytest.mark.parametrize("size", [INLINE, LARGE])
def test_interrupted_item_is_whole_again(q, size):
    """What was got of an item before a signal handler's exception gave it back is not what the next one gets."""
    payloads.kept.clear()
    q.put(Boxed(bytearray(pattern(size)), then="interrupt"))
    payloads.interruptions.append(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        q.get()
    views = payloads.kept[:]
    payloads.kept.clear()
    assert views
    for view in views:
        view[:] = bytes(size)  # it is nobody else's
    got = q.get().buffers[0]
    assert bytes(got) == pattern(size)
    got[:] = b"\1" * size
    assert all(bytes(view) == bytes(size) for view in views)
    payloads.kept.clear()
    del views, view


def test_views_of_an_interrupted_item_outlive_the_queue():
    """What is left of an item that was given back is safe to look at, whatever becomes of the queue."""
    q = joinq.Queue()
    payloads.kept.clear()
    q.put(Boxed(bytearray(pattern(LARGE)), then="interrupt"))
    payloads.interruptions.append(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        q.get()
    views = payloads.kept[:]
    payloads.kept.clear()
    del q
    gc.collect()
    assert [bytes(view) for view in views] == [pattern(LARGE)] * len(views)


# Forks -----------------------------------------------------------------------------------------------------------


def mappings():
    """The number of mappings of this process, and its address space in bytes."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return len(lines), probes.read_field("/proc/self/status", "VmSize") * 1024


@pytest.fixture
def views(q):
    """Views of several items, with others freed in between."""
    got = [received(q, Boxed(bytearray(pattern(LARGE, i)), pattern(10_000, i))).buffers for i in range(7)]
    kept = {i: got[i] for i in (0, 1, 4, 6)}
    del got
    yield kept
    kept.clear()


def check(views):
    for i, (large, small) in views.items():
        assert bytes(large) == pattern(LARGE, i), i
        assert bytes(small) == pattern(10_000, i), i


def use(queue, count=5):
    """Fill the memory that is free, and empty it."""
    with turn:
        for i in range(count):
            queue.put(Boxed(bytearray(LARGE)))
            queue.put_many([i, b"x" * 20_000, bytes(LARGE)])
        for _ in range(4 * count):
            queue.get(timeout=LIMIT)
            if isinstance(queue, joinq.JoinableQueue):
                queue.task_done()


def test_child_of_a_fork_has_its_own(q, views):
    """Parent and child change their views, and neither sees the other's."""
    channel, theirs = multiprocessing.Pipe()

    def child():
        check(views)
        views[0][0][:] = b"c" * LARGE
        theirs.send("changed")
        assert theirs.recv() == "changed, too"
        assert bytes(views[0][0]) == b"c" * LARGE
        del views[0]
        check(views)
        use(q)
        check(views)

    pid = workers.fork(child)
    assert channel.recv() == "changed"
    check(views)
    views[1][0][:] = bytes(LARGE)
    channel.send("changed, too")
    assert workers.wait_for(pid) == 0
    assert bytes(views.pop(1)[0]) == bytes(LARGE)
    check(views)


def test_parent_may_free_what_its_child_has(q, views):
    """Whoever of the two frees its views, and lets others use the memory, the other's stay."""
    channel, theirs = multiprocessing.Pipe()

    def child():
        assert theirs.recv() == "freed"
        check(views)
        views.clear()
        use(q)

    pid = workers.fork(child)
    views.clear()
    use(q)
    channel.send("freed")
    assert workers.wait_for(pid) == 0

    kept = received(q, Boxed(bytearray(pattern(LARGE, 0)), pattern(10_000, 0))).buffers

    def frees():
        kept.clear()
        use(q)

    assert workers.wait_for(workers.fork(frees)) == 0
    use(q)
    check({0: kept})


def test_grandchildren_have_their_own(q, views):
    """At each generation, with new views in each, and parents that free theirs or end at once."""

    def generation(left):
        check(views)
        if left:
            views[10 + left] = received(
                q, Boxed(bytearray(pattern(LARGE, 10 + left)), pattern(10_000, 10 + left))
            ).buffers
            if isinstance(q, joinq.JoinableQueue):
                q.task_done()
            pid = workers.fork(lambda: generation(left - 1))
            if left % 2:
                views[0][0][:] = bytes(LARGE)
                views.clear()
            use(q)
            assert workers.wait_for(pid) == 0
            check(views)

    generation(4)
    views.clear()


def test_fork_while_other_threads_use_the_queue(views, q):
    """The child has what its parent had, and the parent's threads go on."""
    stop = threading.Event()
    failed = []

    def loop():
        try:
            while not stop.is_set():
                item = Boxed(bytearray(pattern(LARGE, 50)))
                assert bytes(received(q, item).buffers[0]) == pattern(LARGE, 50)
                if isinstance(q, joinq.JoinableQueue):
                    q.task_done()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            pid = workers.fork(lambda: check(views) or use(q, 1))
            assert workers.wait_for(pid) == 0
            check(views)
    finally:
        stop.set()
        for thread in threads:
            thread.join(LIMIT)
    assert not failed


def test_threads_may_fork_at_once(q, views):
    """Each child has its own."""
    statuses = []

    def forks():
        for _ in range(5):
            statuses.append(workers.wait_for(workers.fork(lambda: check(views) or views[0][0].__setitem__(0, 7))))

    before = len(probes.descriptors())
    threads = [threading.Thread(target=forks) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert statuses == [0] * 20
    check(views)
    assert len(probes.descriptors()) == before


FREED_MEANWHILE = """
import os, pickle
in_parent, in_child = [], []
os.register_at_fork(
    after_in_parent=lambda: [act() for act in in_parent],
    after_in_child=lambda: [act() for act in in_child],
)
import joinq

q = joinq.Queue()
for name in range(5):
    q.put(pickle.PickleBuffer(bytearray([name]) * 300_000))
views = [q.get() for _ in range(5)]
readable, writable = os.pipe()
in_child.append(lambda: os.read(readable, 1))
in_parent.append(views.clear)
in_parent.append(lambda: [q.put(bytes(300_000)) for _ in range(10)])
in_parent.append(lambda: os.write(writable, b"!"))
pid = os.fork()
if not pid:
    os._exit([set(view) for view in views] != [{name} for name in range(5)])
assert os.waitpid(pid, 0)[1] == 0
assert q.qsize() == 10
for _ in range(10):
    q.get()
q.put(pickle.PickleBuffer(bytearray(300_000)))
print(len(q.get()))
"""


def test_views_freed_before_the_child_has_its_own():
    """What the parent lets go of while the child has not yet copied it is not used for anything else until then."""
    done = workers.run_script(FREED_MEANWHILE)
    assert (done.stdout, done.stderr) == ("300000\n", "")


def test_forks_leave_no_mapping_and_no_descriptor(q, views):
    """A chain of forks with views maps the queue no more often at its end than at its beginning."""

    def generation(left, known):
        check(views)
        views[4] = received(q, Boxed(bytearray(pattern(LARGE, 4)), pattern(10_000, 4))).buffers
        if isinstance(q, joinq.JoinableQueue):
            q.task_done()
        count, size = mappings()
        if left == 8:
            known = count, size, len(probes.descriptors())
        elif left < 8:
            assert count <= known[0] + 10
            assert size <= known[1] + (16 << 20)
            assert len(probes.descriptors()) <= known[2]
        if left:
            assert workers.wait_for(workers.fork(lambda: generation(left - 1, known))) == 0

    pid = workers.fork(lambda: generation(10, None))
    assert workers.wait_for(pid) == 0
    before = mappings()[0], len(probes.descriptors())
    for _ in range(20):
        assert workers.wait_for(workers.fork(lambda: None)) == 0
    assert (mappings()[0], len(probes.descriptors())) == before


def test_child_frees_its_copies():
    """What a fork has copied goes with the views in the child."""
    q = joinq.Queue()
    views = [received(q, Boxed(bytearray(LARGE))) for _ in range(10)]

    def child():
        before = probes.resident()
        views.clear()
        assert before - probes.resident() >= 9 * LARGE

    assert workers.wait_for(workers.fork(child)) == 0


def test_child_of_a_fork_may_drop_the_queue_first():
    """In the child, too, views outlive the queue, and the queue the views."""
    q = joinq.JoinableQueue()
    other = joinq.JoinableQueue()
    views = {
        i: received(queue, Boxed(bytearray(pattern(LARGE, i)), pattern(10_000, i))).buffers
        for i, queue in ((1, q), (2, other))
    }
    queues = [q, other]

    def child():
        queues.pop()
        gc.collect()
        check(views)
        use(queues[0])
        views.clear()
        gc.collect()
        use(queues[0])

    del q, other
    assert workers.wait_for(workers.fork(child)) == 0
    queues.pop()
    gc.collect()
    assert workers.wait_for(workers.fork(lambda: check(views))) == 0
    check(views)


def test_process_of_multiprocessing_gets_views_by_fork(ctx, views, q):
    """A worker that is forked with views in its arguments has them."""
    child = ctx.Process(target=check, args=(views,))
    child.start()
    views[0][0][:] = bytes(LARGE)
    child.join(LIMIT)
    assert child.exitcode == 0


def test_item_may_fork_while_it_is_unpickled(q, views):
    """An item that is not yet unpickled is as safe from a fork as those that are."""
    payloads.kept.clear()
    q.put(["x" * LARGE, payloads.Pickled(payloads.fork_and_check), "y" * LARGE, Boxed(bytearray(pattern(LARGE)))])
    q.put([payloads.Pickled(payloads.fork_and_check), bytes(LARGE)])
    for _ in range(2):
        q.get()
        if os.getpid() != payloads.fork_and_check.parent:
            os._exit(0)
        assert payloads.kept.pop() == 0
    check(views)


def test_task_may_fork_while_it_is_unpickled():
    """With "redeliver" a task is unpickled from the queue's memory, too."""
    q = KINDS["redeliver"]()
    blank = q.buffer(100)
    payloads.kept.clear()
    for padding in (["x" * 1000] * 5, ["y" * LARGE]):
        q.put([payloads.Pickled(payloads.fork_and_check), *padding])
        got = q.get()[1:]
        if os.getpid() != payloads.fork_and_check.parent:
            os._exit(got != padding)
        assert payloads.kept.pop() == 0
        q.task_done()
    del blank


@pytest.mark.parametrize("rooms", [0, 1])
def test_no_memory_for_the_child(q, views, rooms, capfd):
    """A child for whose copies there is no memory says so and ends; its parent goes on."""
    if q._leases is not None:
        pytest.skip("with redeliver every receiver has copies anyway")

    def child():
        import resource

        views[9] = received(q, Boxed(bytearray(pattern(LARGE, 9)), pattern(10_000, 9))).buffers
        size = mappings()[1]
        resource.setrlimit(resource.RLIMIT_AS, (size + (rooms << 16), resource.RLIM_INFINITY))
        inner = os.fork()
        if not inner:
            os._exit(0)
        assert workers.wait_for(inner) == 1
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        check(views)
        use(q, 1)

    assert workers.wait_for(workers.fork(child)) == 0
    assert "no memory for the buffers" in capfd.readouterr().err
    check(views)


# Foreign writes -----------------------------------------------------------------------------------------------------


def forged(size, *words, buffers=2):
    """A queue with a parcel whose first words are these."""
    q = joinq.JoinableQueue()
    q.put(Boxed(*[bytearray(pattern(size, i)) for i in range(buffers)]))
    fd = lib.jnq_fileno(q._handle)
    begin, data = 0, b""
    while True:
        try:
            begin = os.lseek(fd, begin + len(data), os.SEEK_DATA)
        except OSError:
            break
        data = os.pread(fd, os.lseek(fd, begin, os.SEEK_HOLE) - begin, begin)
        at = data.find(b"\x80\x05")
        if at >= 0 and b"unbox" in data[at : at + 200]:
            start = begin + at - (2 + 2 * buffers) * 8
            for index, word in enumerate(words):
                if word is not None:
                    os.pwrite(fd, (word % 2**64).to_bytes(8, "little"), start + 8 * index)
            return q
    raise AssertionError("there is no parcel")


WORDS = [0, 1, 2, 3, 7, 64, 8176, 2**20, 2**31, 2**32, 2**60, 2**61, 2**62, 2**63 - 1, 2**63, -1, -2, -8, -64]
STRANGE = [
    *((word,) for word in WORDS),
    *((None, word) for word in WORDS),
    *((None, None, word) for word in WORDS),
    *((None, None, None, word) for word in WORDS),
    *((None, None, word, -word) for word in WORDS),
    *((word, word, word, word) for word in WORDS),
    *((None, None, None, None, word, 1 - word) for word in WORDS),
]


@pytest.mark.parametrize("size", [INLINE, LARGE])
def test_forged_parcel_is_an_error(size):
    """Whatever the words of a parcel are, get() returns an item or raises, and touches nothing outside."""
    assert [bytes(view) for view in forged(size).get().buffers] == [pattern(size, 0), pattern(size, 1)]
    for words in STRANGE:
        q = forged(size, *words)
        with contextlib.suppress(RuntimeError, pickle.UnpicklingError, EOFError, ValueError):  # what garbage raises
            for view in q.get().buffers:
                zlib.crc32(view)
        q.put("again")
        assert q.get() == "again"
        probes.check_invariants(q)


@pytest.mark.parametrize("size", [INLINE, LARGE])
def test_buffer_outside_its_parcel_is_refused(size):
    """A buffer that begins or ends outside is a RuntimeError."""
    for words in (
        (None, None, 2**62),
        (None, None, None, 2**62),
        (None, None, -1),
        (None, None, 64, -64),
        (-1,),
        (None, -1),
    ):
        with pytest.raises(RuntimeError, match="overwritten"):
            forged(size, *words).get()
        q = forged(size, *words)
        with pytest.raises(RuntimeError, match="overwritten"):
            q.get_many(3)
        with contextlib.suppress(joinq.Empty):
            q.get(False)
