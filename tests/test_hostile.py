"""
Hostile memory: a queue that was overwritten, truncated or forged answers with success or a documented error.

Each attack is made on a copy of a busy queue's segment, by a forked child that ends by itself or fails the test. Some
hundred run with the suite; every meaningful word, and as many random changes as one likes, with

    python tests/test_hostile.py words
    python tests/test_hostile.py random FIRST_SEED COUNT
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import random
import resource
import signal
import socket
import struct
import sys
import time
import traceback

import probes
import pytest
import workers

import joinq
from joinq._native import attach, ffi, lib
from joinq._transit import Given

PATIENCE = 40
"""Seconds after which a child that has not ended counts as hung."""

WORD = struct.Struct("<Q")
ONES = 2**64 - 1
PAGE = os.sysconf("SC_PAGESIZE")

# Of struct jnq_shared in layout.h.
HEADER_WORDS = 128
MAGIC, STAMP, SEGMENT_BYTES, UNIT_BYTES, UNITS, PROCS_OFF, MAP_OFF, HEAP_OFF = range(0, 64, 8)


class Victim:
    """A busy queue, and what its segment held when it was whole."""

    def __init__(self):
        self.queue = q = joinq.JoinableQueue(1000)
        self.box = ffi.new("jnq_box *")
        box = ffi.new("jnq_box *")
        q.put("lent" * 10_000)
        assert lib.jnq_get(q._handle, self.box, 0) == lib.JNQ_LARGE
        for number in range(4):
            q.put(number)
            q.put(b"inline" * (number + 1))
            q.put(b"inline" * 1000)
            q.put([number] * 20_000)
        for _ in range(4):
            q.get()
            q.task_done()
        for _ in range(3):  # a list in front of the blocks, with an extent
            for _ in range(2):
                lib.jnq_get(q._handle, box, 0)
            assert lib.jnq_unget(q._handle, box) == 0
        for _ in range(20):
            q.put(b"block" * 1500)
        for _ in range(3):
            q.put(b"large" * 10_000)
            q.put(1)
        self.fd = lib.jnq_fileno(q._handle)
        self.bytes = os.fstat(self.fd).st_size
        self.pieces = self.read()

    def read(self):
        """{offset: bytes} of the parts of the segment that are backed by memory."""
        pieces, end = {}, 0
        while True:
            try:
                begin = os.lseek(self.fd, end, os.SEEK_DATA)
            except OSError:
                return pieces
            end = os.lseek(self.fd, begin, os.SEEK_HOLE)
            pieces[begin] = os.pread(self.fd, end - begin, begin)

    def word(self, offset):
        return WORD.unpack(os.pread(self.fd, 8, offset))[0]

    def copy(self, changes):
        """A new file with the same contents but for ``changes``, {offset: bytes}."""
        fd = os.memfd_create("joinq-copy")
        os.ftruncate(fd, self.bytes)
        for begin, data in [*self.pieces.items(), *changes.items()]:
            os.pwrite(fd, data, begin)
        return fd


@pytest.fixture(scope="module")
def victim():
    return Victim()


# Overwritten memory -----------------------------------------------------------------------


def adopt(fd):
    """A queue over a segment that did not come by way of pickling."""
    q = joinq.JoinableQueue.__new__(joinq.JoinableQueue)
    q._use(attach(fd))
    q._reset_state(0, os.getpid())
    return q


def use(q):
    """Every operation; each ends with success or an exception, whatever the memory holds."""
    handle = q._handle
    enough = time.monotonic() + PATIENCE / 16  # a lock that seems to be held costs each call up to a second

    def attempt(call, *args, **kwargs):
        try:
            return None if time.monotonic() > enough else call(*args, **kwargs)
        except Exception as error:  # also what unpickling garbage raises
            if "bug in joinq" in str(error):
                raise
            return None

    attempt(q.qsize)
    for _ in range(3):
        attempt(q.put, 1, timeout=0.01)
        attempt(q.put, b"x" * 3000, timeout=0.01)
        attempt(q.put, b"x" * 30_000, timeout=0.01)
    lib.jnq_check(handle)
    for _ in range(8):
        attempt(q.get, timeout=0.01)
    attempt(q.task_done)
    box = ffi.new("jnq_box *")
    for _ in range(4):
        attempt(lib.jnq_get, handle, box, 0)
        attempt(lib.jnq_unget, handle, box)
    lib.jnq_release(box)
    for _ in range(80):
        if attempt(q.get_nowait) is None:
            break
    for _ in range(60):
        attempt(q.put_nowait, b"y" * 8000)
    attempt(q.join, 0.01)
    lib.jnq_count(handle, ffi.new("jnq_counters *"))
    lib.jnq_reap(handle)
    lib.jnq_check(handle)
    attempt(q.shutdown, True)
    attempt(q.get_nowait)
    attempt(q.put_nowait, 1)
    lib.jnq_reap(handle)


def suffer(fd):
    """Let a child attach to the segment and use it; return how it ended, 0 is well."""
    pid = os.fork()
    if pid:
        return workers.wait_for(pid)
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        # A forged length in a pickle is no reason to take the machine's memory.
        resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))
        try:
            q = adopt(os.dup(fd))
        except (RuntimeError, OSError, MemoryError):
            pass
        else:
            use(q)
            del q
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)


def withstand(victim, attacks):
    """Make the attacks, (name, {offset: bytes}); return their number, and those that ended as they must not."""
    tried, failures = 0, []
    for name, changes in attacks:
        tried += 1
        fd = victim.copy(changes)
        ending = suffer(fd)
        os.close(fd)
        if ending:
            failures.append(f"{name}: ended with {ending}")
            print(failures[-1], file=sys.stderr, flush=True)
    assert victim.read() == victim.pieces, "an attack on a copy has changed the queue itself"
    return tried, failures


def to_words(changes):
    return ((f"word {offset:#x} = {value:#x}", {offset: WORD.pack(value)}) for offset, value in changes)


def strange(chance, before):
    """A word that is unlike the one before, or only slightly."""
    return chance.choice(
        [
            *(0, ONES, 1 << 63, 1 << chance.randrange(64)),
            *(chance.randrange(100), chance.randrange(2**16), chance.randrange(2**40), chance.randrange(2**64)),
            before ^ 1 << chance.randrange(64),
            (before + chance.choice([-4096, -64, -1, 1, 64, 4096])) & ONES,
        ]
    )


def word_changes(victim):
    """Each word that means something, set to each of some values: (offset, value)."""
    chance = random.Random(0)
    procs, units, heap = map(victim.word, (PROCS_OFF, MAP_OFF, HEAP_OFF))
    pages = (max(begin + len(data) for begin, data in victim.pieces.items()) - heap) // PAGE + 1
    for begin, words in [
        (0, HEADER_WORDS),
        (procs, 8),
        (units, pages + 4),
        *((heap + PAGE * page, 24) for page in range(pages) if page < 20 or page % 16 == 1),
    ]:
        for offset in range(begin, begin + 8 * words, 8):
            before = victim.word(offset)
            values = [0, 1, ONES, chance.randrange(2, 100), chance.randrange(2**64), strange(chance, before)]
            yield from ((offset, value) for value in dict.fromkeys(values) if value != before)


def random_changes(victim, seed):
    """From 1 to 64 bits, bytes or words anywhere in the used parts, half of them where a part begins."""
    chance = random.Random(seed)
    changes = {}
    weights = [min(len(data), 8192) for data in victim.pieces.values()]
    for _ in range(2 ** chance.randrange(7)):
        (begin,) = chance.choices([*victim.pieces], weights)
        data = victim.pieces[begin]
        offset = chance.randrange(chance.choice([len(data), 1024]))
        how = chance.choice(["bit", "byte", "word", "word"])
        if how == "bit":
            changes[begin + offset] = bytes([data[offset] ^ 1 << chance.randrange(8)])
        elif how == "byte":
            changes[begin + offset] = bytes([chance.randrange(256)])
        else:
            offset = offset // 8 * 8
            changes[begin + offset] = WORD.pack(strange(chance, WORD.unpack_from(data, offset)[0]))
    return changes


def test_any_word_may_be_overwritten(victim):
    """A sample of the words in use, each set to what it should not be."""
    attacks = random.Random(1).sample([*word_changes(victim)], 150)
    assert withstand(victim, to_words(attacks)) == (150, [])


def test_locks_may_be_overwritten(victim):
    """A lock that names no thread, or is none any more, hangs nobody."""
    kind_at = [offset for offset in range(16, 8 * HEADER_WORDS, 8) if victim.word(offset) == 0x90]
    if len(kind_at) != 4:
        pytest.skip("the mutexes of this C library look different")
    no_owners = [1, 0x3FFFFFFE]  # the first is one, but not of the queue
    other_kinds = [0, 0x10, 0x30, 0x40, 0x180, 0x190, 0x7FFFFFFF]
    attacks = [(offset - 16, value) for offset in kind_at for value in no_owners]
    attacks += [(offset, value) for offset in kind_at for value in other_kinds]
    attacks += [(offset - 8, 0x7FFFFFFE) for offset in kind_at]  # glibc's mark for "not recoverable"
    assert withstand(victim, to_words(attacks)) == (40, [])


def test_anything_may_be_overwritten(victim):
    """Random bits, bytes and words, few and many."""
    attacks = ((f"seed {seed}", random_changes(victim, seed)) for seed in range(150))
    assert withstand(victim, attacks) == (150, [])


def test_overwritten_queue_says_so(victim):
    """Where the items should be there are none: get() says that the memory was overwritten."""
    heap = victim.word(HEAP_OFF)
    q = adopt(victim.copy({begin: b"\xff" * len(data) for begin, data in victim.pieces.items() if begin >= heap}))
    with pytest.raises(RuntimeError, match="overwritten"):
        q.get()


NUMBER = 0x1122334455667788


def where_lengths_are(fd):
    """The offsets of the length of an item in the midst of a chunk of NUMBERs, and of the length of their record."""
    begin = 0
    while True:
        begin = os.lseek(fd, begin, os.SEEK_DATA)
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        first = os.pread(fd, end - begin, begin).find(WORD.pack(NUMBER))
        if first >= 0:
            return {"item": begin + first + 16 * 200 - 8, "record": begin + first - 12}
        begin = end


def scribble(fd, offset, lengths):
    """Write one length after the other, for ever."""
    memory = mmap.mmap(fd, PAGE, offset=offset // PAGE * PAGE)
    at = slice(offset % PAGE, offset % PAGE + 4)
    one, other = (struct.pack("<I", length) for length in lengths)
    while True:
        memory[at] = one
        memory[at] = other


def pass_numbers(q, take):
    """Pass many numbers through a queue, whatever becomes of them."""
    enough = time.monotonic() + 0.5
    while time.monotonic() < enough:
        with contextlib.suppress(RuntimeError, MemoryError, joinq.Empty, pickle.UnpicklingError, EOFError):
            q.put_many([NUMBER] * (1000 if q.qsize() < 5000 else 0))
            while True:
                take(q)


TAKES = {"get": lambda q: q.get(False), "get_many": lambda q: q.get_many(1000, False)}


@pytest.mark.parametrize("take", TAKES.values(), ids=TAKES)
@pytest.mark.parametrize(
    ("what", "lengths"),
    [("item", (8, 0)), ("item", (8, 9000)), ("item", (8, 2**32 - 8)), ("record", (8176, 2**32 - 1))],
)
@pytest.mark.parametrize("on_death", ["ignore", "redeliver"])
def test_length_that_changes_at_any_moment(what, lengths, take, on_death):
    """A length is never used as it was not looked at: it may change between the look and the copy, and afterwards."""
    q = joinq.JoinableQueue(on_death=on_death)
    q.put_many([NUMBER] * 1000)
    fd = lib.jnq_fileno(q._handle)
    offset = where_lengths_are(fd)[what]
    scribbler = workers.fork(lambda: scribble(fd, offset, lengths))
    try:
        assert workers.wait_for(workers.fork(lambda: pass_numbers(q, take))) == 0
    finally:
        os.kill(scribbler, signal.SIGKILL)
        os.waitpid(scribbler, 0)


# Files that are no queues -----------------------------------------------------------------


class Travelled:
    """What carries a descriptor in a pickled queue."""

    def __init__(self, fd):
        self.fd = fd

    def detach(self):
        return self.fd


KINDS = [joinq.JoinableQueue, joinq.Queue, joinq.SimpleQueue]


def arrive(kind, fd):
    """Do what pickle does with a queue that brings this descriptor; none is left open if that fails."""
    before = probes.descriptors().keys() - {fd}
    queue = kind.__new__(kind)
    given = Given(Travelled(fd), None)
    try:
        queue.__setstate__(given if kind is joinq.SimpleQueue else (given, 0, os.getpid()))
    except Exception:
        assert probes.descriptors().keys() == before
        raise
    return queue


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["/", "/dev/zero", __file__, "socket", "memfd"])
def test_forged_pickle_of_another_file(kind, what):
    """A descriptor of something else is refused, and closed."""
    make = {"socket": lambda: socket.socket().detach(), "memfd": lambda: os.memfd_create("empty")}
    fd = make[what]() if what in make else os.open(what, os.O_RDONLY)
    with pytest.raises(RuntimeError, match="not a queue"):
        arrive(kind, fd)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fd", "error"), [(-1, OSError), (9999, OSError), (2**40, OverflowError), ("3", TypeError)])
def test_forged_pickle_without_a_file(kind, fd, error):
    """What is no descriptor is refused."""
    with pytest.raises(error):
        arrive(kind, fd)


@pytest.mark.parametrize("state", [None, 1, (), (1,), (1, 2), "ab", (Travelled(9999), 0, 0)])
def test_forged_pickle_of_another_shape(state):
    """A state that is none of a queue raises what Python raises."""
    with pytest.raises((TypeError, ValueError, AttributeError)):
        joinq.JoinableQueue.__new__(joinq.JoinableQueue).__setstate__(state)


def test_queue_may_not_be_written_to():
    """A descriptor that is open for reading only is refused."""
    q = joinq.Queue()
    path = f"/proc/self/fd/{lib.jnq_fileno(q._handle)}"
    if not os.path.exists(path):
        pytest.skip("needs /proc")
    with pytest.raises(PermissionError):
        probes.attach_anew(os.open(path, os.O_RDONLY))


@pytest.mark.parametrize("change", ["0", "100", "PAGE", "2**20", "b - PAGE", "b - 1", "b + 1", "b + PAGE"])
def test_file_of_another_length_is_refused(victim, change):
    """A file that was cut off or made longer is no queue any more."""
    fd = victim.copy({})
    os.ftruncate(fd, eval(change, {"b": victim.bytes, "PAGE": PAGE}))
    with pytest.raises(RuntimeError, match="not a queue"):
        arrive(joinq.Queue, fd)


@pytest.mark.parametrize(
    ("offset", "mask"),
    [
        *((MAGIC, 1 << 63), (STAMP, 1), (STAMP, 3 << 8), (STAMP, 1 << 20), (SEGMENT_BYTES, 1 << 12)),
        *((UNIT_BYTES, 1 << 13), (UNITS, 1), (PROCS_OFF, 1 << 13), (MAP_OFF, 1 << 13), (HEAP_OFF, 1 << 13)),
    ],
)
def test_segment_of_another_build_is_refused(victim, offset, mask):
    """Another format, door, mutex or page size, and offsets that do not follow from the length."""
    changed = {offset: WORD.pack(victim.word(offset) ^ mask)}
    with pytest.raises(RuntimeError, match="not a queue of this version"):
        arrive(joinq.Queue, victim.copy(changed))
    assert arrive(joinq.Queue, victim.copy({})).qsize() == victim.queue.qsize()


def test_file_in_use_cannot_be_cut_off():
    """Nobody who has the descriptor can take the memory from under the others."""
    q = joinq.Queue()
    fd = lib.jnq_fileno(q._handle)
    for length in (0, PAGE, os.fstat(fd).st_size + PAGE):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, length)
    q.put(b"x" * 2**20)
    assert len(q.get_nowait()) == 2**20


# By hand ----------------------------------------------------------------------------------


def main(what, *numbers):
    victim = Victim()
    if what == "words":
        attacks = to_words(word_changes(victim))
    else:
        first, count = map(int, numbers)
        attacks = ((f"seed {seed}", random_changes(victim, seed)) for seed in range(first, first + count))
    tried, failures = withstand(victim, attacks)
    print(f"{tried} attacks, {len(failures)} not withstood")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
