"""
The storm: producers and consumers of one queue that are killed at random moments and replaced at once.

Afterwards every item is accounted for. The books are kept outside the queue, in memory that every worker inherits: a
process marks there what it has done before it does the next thing, so a kill between the two leaves it one step behind
at most. That is the only uncertainty in the checks, and each of them says how often it can have happened.

What is killed cannot report, so a hang is what the harness sees: nobody gets on for ten seconds.
"""

from __future__ import annotations

import faulthandler
import itertools
import mmap
import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
import warnings
import zlib
from typing import NamedTuple

import payloads
import probes

import joinq

PRODUCERS = CONSUMERS = 4
MAXSIZE = 64
LIFE = 0.03
"""Seconds that a worker lives at most, from the start of its loop."""

STUCK = 10.0
"""Seconds without any progress that count as hung."""

ROW = 2048
"""Items that one producer can put; one that had the time for all would wait to be killed."""

LIVES_PER_SECOND = 1000
"""More producers than can be started in a second."""

SIZES = (0, 50, 0, 3000, 50, 20_000, 0, 50, 200_000, 50, 3000)
"""Of the items, in turn; each producer begins somewhere else. 0 is an integer."""

SLOW = 32
"""One task of so many takes a while: so about every third consumer dies with one in hand."""

NUMBER_BITS, CHECK_BITS = 11, 24


class Result(NamedTuple):
    """What became of a storm; a count is None where the queue does not tell."""

    kills: int
    puts: int | None
    takes: int | None
    dones: int | None
    lost: int  # tasks that a killed consumer had in hand and that nobody finished
    redeliveries: int | None
    dead_letters: int | None
    duplicates: int
    torn: int
    recoveries: int | None
    pause: float  # the longest time in which nobody got on
    hung: bool
    failures: list[str]


class Books:
    """
    What the workers have done, in shared memory.

    Per place: loops begun, steps done, broken items, items taken again that had been reported done. Per producer: the
    puts that returned. Per item: how often it was taken, was about to be reported done, was reported done.
    """

    def __init__(self, rows):
        places, items = PRODUCERS + CONSUMERS, rows * ROW
        self.view = memoryview(mmap.mmap(-1, 8 * (4 * places + 1) + 4 * rows + 3 * items))
        self.begun = self._cut("Q", places)
        self.steps = self._cut("Q", places)
        self.torn = self._cut("Q", places)
        self.again = self._cut("Q", places)
        self.stop = self._cut("Q", 1)
        self.put = self._cut("I", rows)
        self.taken, self.finishing, self.finished = (self._cut("B", items) for _ in range(3))

    def close(self, rows):
        """Leave out what was never used."""
        self.put = self.put[:rows]
        self.taken, self.finishing, self.finished = (
            bytes(marks[: rows * ROW]) for marks in (self.taken, self.finishing, self.finished)
        )

    def _cut(self, code, count):
        size = count * {"Q": 8, "I": 4, "B": 1}[code]
        part, self.view = self.view[:size].cast(code), self.view[size:]
        return part


# Workers -----------------------------------------------------------------------------------


def make_item(row, number):
    size = SIZES[(row + number) % len(SIZES)]
    if size:
        return payloads.make_item(row, number, (size,))
    key = row << NUMBER_BITS | number
    return key << CHECK_BITS | check_of(key)


def check_of(key):
    return zlib.crc32(b"%d" % key) & (1 << CHECK_BITS) - 1


def index_of(item):
    """Where the books have the item; fails if it is not what its producer made."""
    if isinstance(item, int):
        key = item >> CHECK_BITS
        assert item == key << CHECK_BITS | check_of(key), item
        row, number = key >> NUMBER_BITS, key & (1 << NUMBER_BITS) - 1
    else:
        row, number = payloads.check_item(item)[:2]
    return row * ROW + number


def produce(queue, books, place, row):
    for number in range(ROW):
        if books.stop[0]:
            return
        queue.put(make_item(row, number))
        books.put[row] = number + 1
        books.steps[place] += 1
    while not books.stop[0]:
        time.sleep(0.01)


def consume(queue, books, place, _):
    while True:
        try:
            item = queue.get()
            index = -1 if item is None else index_of(item)
        except Exception:
            traceback.print_exc(file=sys.__stderr__)
            books.torn[place] += 1
            continue
        if index >= 0:
            books.taken[index] += 1
            books.again[place] += books.finished[index] > 0
            books.steps[place] += 1
            if index % SLOW == 0:
                time.sleep(0.005)
            books.finishing[index] += 1
        queue.task_done()
        if index < 0:
            return
        books.finished[index] += 1
        books.steps[place] += 1


def work(function, queue, books, place, life):
    """What a worker runs: it shows its stack on SIGUSR1, and outlives no harness for long."""
    faulthandler.register(signal.SIGUSR1, file=2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(4 * probes.LIMIT))
    books.begun[place] += 1
    function(queue, books, place, life)


# The harness -------------------------------------------------------------------------------


class Place:
    """Where one worker after another works."""

    def __init__(self, number, function, lives):
        self.number, self.function, self.lives = number, function, lives
        self.kills = self.begun = 0
        self.process = self.due = None

    def start(self, queue, books):
        self.begun = books.begun[self.number]
        self.due = None
        self.process = multiprocessing.get_context("fork").Process(
            target=work, args=(self.function, queue, books, self.number, next(self.lives)), daemon=True
        )
        self.process.start()

    def is_due(self, books, moment):
        """Whether its time is over, which begins with its loop."""
        if self.due is None and books.begun[self.number] > self.begun:
            self.due = time.monotonic() + moment() * LIFE
        return self.due is not None and time.monotonic() >= self.due

    def kill(self):
        """Kill without warning; the exit code, in case that it was faster."""
        self.process.kill()
        self.process.join()
        code = self.process.exitcode
        self.process.close()
        self.process = None
        self.kills += code == -signal.SIGKILL
        return code


class Storm:
    """One storm, from the first worker to the last check."""

    def __init__(self, queue, seconds, seed):
        self.queue, self.seconds, self.moment = queue, seconds, random.Random(seed).random
        self.books = Books(int(seconds * LIVES_PER_SECOND) + 100)
        self.rows, others = itertools.count(), itertools.count()
        self.producers = [Place(number, produce, self.rows) for number in range(PRODUCERS)]
        self.consumers = [Place(PRODUCERS + number, consume, others) for number in range(CONSUMERS)]
        self.failures = []
        self.hung = False
        self.pause, self.kills_then = 0.0, 0
        self.steps, self.since = 0, time.monotonic()

    def kills(self):
        return sum(place.kills for place in self.producers + self.consumers)

    def fail(self, text):
        self.failures.append(text)

    def require(self, holds, text):
        if not holds:
            self.fail(text)

    def places(self):
        """Those where somebody works."""
        return [place for place in self.producers + self.consumers if place.process]

    def watch(self):
        """Whether somebody got on lately."""
        steps, now = sum(self.books.steps), time.monotonic()
        self.pause = max(self.pause, now - self.since)
        if steps != self.steps:
            self.steps, self.since, self.kills_then = steps, now, self.kills()
        elif now - self.since > STUCK and not self.hung:
            self.hung = True
            self.fail(f"nobody got on for {STUCK:g} s, after {self.kills_then} kills")
            self.show()
        return not self.hung

    def show(self):
        """The stacks of the living, and what the queue says of itself, to stderr. That the stdlib's hangs is known."""
        if not isinstance(self.queue, joinq.JoinableQueue):
            return
        for place in self.places():
            if not place.process.is_alive():
                continue
            print(f"storm: {place.function.__name__} in place {place.number}:", file=sys.__stderr__, flush=True)
            os.kill(place.process.pid, signal.SIGUSR1)
            time.sleep(0.2)
        print(probes.counters(self.queue), file=sys.__stderr__, flush=True)

    def rage(self):
        """Kill and replace."""
        end = time.monotonic() + self.seconds
        for place in self.producers + self.consumers:
            place.start(self.queue, self.books)
        while time.monotonic() < end and self.watch():
            for place in self.places():
                if place.is_due(self.books, self.moment):
                    code = place.kill()
                    self.require(code == -signal.SIGKILL, f"a worker ended by itself: exit code {code}")
                    place.start(self.queue, self.books)
            time.sleep(0.0005)

    def settle(self, on_death):
        """Let those who live now finish everything, and end."""
        self.books.stop[0] = 1
        self.since = time.monotonic()
        self.end(self.producers)
        while on_death == "redeliver" and self.watch():
            try:
                self.queue.join(0.2)
                break
            except joinq.JoinTimeout:
                pass
        for _ in self.consumers:
            if self.watch():
                try:
                    self.queue.put(None, timeout=STUCK)
                except joinq.Full:
                    self.hung = True
                    self.fail("no room in the queue")
                    self.show()
        self.end(self.consumers)

    def end(self, places):
        """Wait for processes that are about to end, or kill them if they do not."""
        while self.watch() and any(place.process and place.process.is_alive() for place in places):
            time.sleep(0.001)
        for place in self.places() if self.hung else places:
            if place.process:
                kills, code = place.kills, place.kill()
                place.kills = kills  # not the storm's
                self.require(self.hung or code == 0, f"a worker ended with exit code {code}")

    def result(self, **counts):
        books = self.books
        unknown = dict.fromkeys(("puts", "takes", "dones", "redeliveries", "dead_letters", "recoveries"))
        return Result(
            kills=self.kills(),
            torn=sum(books.torn),
            pause=self.pause,
            hung=self.hung,
            failures=self.failures,
            **{**unknown, **counts},
        )


def storm(make_queue, seconds, seed, on_death=None, max_deliveries=2**31 - 1):
    """
    Let it rage for so many seconds over ``make_queue(maxsize)``, and account for everything.

    ``on_death`` and ``max_deliveries`` are what the queue was made with; None is a queue that is not joinq's, of which
    only the books tell.
    """
    queue = make_queue(MAXSIZE)
    empty = on_death and probes.counters(queue)
    it = Storm(queue, seconds, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", joinq.DeadLetterWarning)
        try:
            it.rage()
            it.settle(on_death)
        finally:
            for place in it.places():
                place.kill()
        it.books.close(next(it.rows))
        if on_death is None:
            queue.close()
            queue.cancel_join_thread()
            taken = it.books.taken
            arrived = len(taken) - taken.count(0)
            return it.result(lost=max(sum(it.books.put) - arrived, 0), duplicates=sum(taken) - arrived)
        return audit(it, on_death, max_deliveries, empty)


# The audit ---------------------------------------------------------------------------------


def audit(it, on_death, max_deliveries, empty):
    """Compare the queue's counts with the books."""
    queue, books, require = it.queue, it.books, it.require
    probes.reap(queue)
    counts = probes.counters(queue)
    letters = queue.dead_letters()
    sentinels = 0 if it.hung else CONSUMERS
    puts, dones = counts["puts"] - sentinels, counts["dones"] - sentinels
    producers, consumers = (sum(place.kills for place in places) for places in (it.producers, it.consumers))
    taken, finishing, finished = books.taken, books.finishing, books.finished
    arrived = len(taken) - taken.count(0)
    again = sum(taken) - arrived
    tasks_lost = puts - dones - len(letters)
    result = it.result(
        puts=puts,
        takes=counts["takes"] - sentinels,
        dones=dones,
        lost=tasks_lost,
        redeliveries=counts["redeliveries"],
        dead_letters=counts["dead_letters"],
        recoveries=counts["recoveries"],
        duplicates=sum(books.again) if on_death == "redeliver" else again,
    )
    if it.hung:
        return result

    # Everything that was put, and nothing else. A producer may have been killed between its put and its mark.
    require(sum(books.put) <= puts <= sum(books.put) + producers, f"{puts} puts, but {sum(books.put)} returned")
    for row, put in enumerate(books.put):
        last = len(taken[row * ROW : (row + 1) * ROW].rstrip(b"\0"))
        require(last <= put + 1, f"producer {row} put {put} items, or one more, and its item {last - 1} arrived")
    require(counts["takes"] == counts["puts"], f"{counts['takes']} takes of {counts['puts']} puts")
    require(counts["queued"] == 0 and queue.empty(), f"{counts['queued']} items are queued")
    require(not result.torn, f"{result.torn} items were torn")
    require(not result.duplicates, f"{result.duplicates} items were taken twice")
    require(max(finished) <= 1, "an item was finished twice")

    # A consumer may have been killed before its mark that it had taken, or finished, the one item in its hands.
    require(sum(finished) <= dones <= sum(finishing), f"{dones} dones; marks: {sum(finished)}, {sum(finishing)}")
    require(sum(finishing) - sum(finished) <= consumers, f"{sum(finishing) - sum(finished)} interrupted task_done()")
    if on_death == "redeliver":
        audit_redelivered(it, taken, finishing, finished, letters, max_deliveries, puts)
        require(again <= counts["redeliveries"] + len(letters), f"taken {again} times again, but {counts}")
        require(counts["redeliveries"] <= again + consumers, f"taken only {again} times again, but {counts}")
    else:
        require(puts - arrived <= consumers, f"{puts - arrived} of {puts} items never arrived, {consumers} kills")
        require(tasks_lost <= consumers, f"{tasks_lost} tasks lost by {consumers} kills")
    audit_join(queue, on_death, tasks_lost, require)

    # What the dead had is free. A letter has a cell, and an extent if it is long.
    page = os.sysconf("SC_PAGE_SIZE")
    kept = sum(letter_pages(letter, page) * page for letter in letters)
    require(counts["used_bytes"] == empty["used_bytes"] + kept, f"memory: {empty} and {kept} became {counts}")
    require(counts["processes"] == 1, f"{counts['processes']} processes in the table, one is alive")
    broken = joinq._native.lib.jnq_check(queue._handle)
    require(not broken, f"invariant {broken} does not hold: {counts}")
    return result


def letter_pages(letter, page):
    size = len(letter._payload)
    inline = size <= joinq._native.lib.JNQ_INLINE_BYTES
    return -(-(128 + size) // page) if inline else 1 - (-size // page)


def audit_redelivered(it, taken, finishing, finished, letters, max_deliveries, puts):
    """Every item was done, by whomever, or is a dead letter; so they tell exactly how many each producer put."""
    books, require = it.books, it.require
    given_up = {index_of(letter.item) for letter in letters}
    require(len(given_up) == len(letters), "an item is two dead letters")
    require(not any(finished[index] for index in given_up), "an item is finished, and a dead letter")
    require(all(letter.deaths == max_deliveries for letter in letters), "a letter died too often or too rarely")
    require(len(letters) == probes.counters(it.queue)["dead_letters"], "dead letters are missing")
    require(max_deliveries > 2 or max(taken) <= max_deliveries, f"an item was taken {max(taken)} times")
    total = 0
    for row, put in enumerate(books.put):
        first = row * ROW
        there = [n for n in range(min(put + 2, ROW)) if finishing[first + n] or first + n in given_up]
        require(there == list(range(len(there))), f"producer {row} put {put}, of which these were done: {there}")
        require(put <= len(there) <= put + 1, f"producer {row} put {put}, {len(there)} were done")
        total += len(there)
    require(total == puts, f"{puts} puts, of which {total} were done or given up")


def audit_join(queue, on_death, tasks_lost, require):
    """What join() says at the end."""
    require(queue.unfinished_tasks == tasks_lost, f"{queue.unfinished_tasks} unfinished, {tasks_lost} lost")
    try:
        queue.join(probes.LIMIT if on_death != "ignore" else 0.1)
        said = None
    except (joinq.JoinTimeout, joinq.LostTasks) as error:
        said = error
    if on_death == "redeliver" or not tasks_lost:
        require(said is None and tasks_lost == 0, f"{tasks_lost} tasks lost; join(): {said!r}")
    elif on_death == "ignore":
        require(isinstance(said, joinq.JoinTimeout), f"join(): {said!r}")
    elif not isinstance(said, joinq.LostTasks):
        require(False, f"join(): {said!r}")
    else:
        named = sum(process.tasks for process in said.processes)
        exact = named == tasks_lost or (len(said.processes) >= 60 and named < tasks_lost)
        require(said.unfinished == tasks_lost and exact, f"{tasks_lost} tasks lost; join(): {said!r}")
