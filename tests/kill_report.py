"""
What kills do to the queue, in one report: ``python tests/kill_report.py [--quick] [--output FILE]``.

Kill points one after another, storms, the model checker, a hundred thousand deaths, and what users will ask: the same
scenarios with the stdlib's queue. Takes about a quarter of an hour, with --quick a minute and a half. The exit code is
1 if joinq failed anywhere.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import faulthandler
import functools
import itertools
import mmap
import multiprocessing
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import payloads
import probes
import storm

import joinq

HERE = Path(__file__).parent
FORK = multiprocessing.get_context("fork")

STILL = 5.0
"""Seconds without progress of any survivor that count as hung."""

TRIALS_AT_ONCE = 12
"""Most of the stdlib's do nothing but hang."""

MODES = {
    "ignore": {"on_death": "ignore"},
    "raise": {"on_death": "raise"},
    "redeliver": {"on_death": "redeliver", "max_deliveries": 10**6},
    "redeliver, 2 deliveries": {"on_death": "redeliver", "max_deliveries": 2},
}


class Scale(NamedTuple):
    """How much of everything."""

    storm_seconds: float
    deaths: int
    trials: int
    stride: int  # of the kill points
    models: tuple[str, ...]  # words in the names of those to be checked; none: all
    limit: float  # seconds for a program of another file


FULL = Scale(storm_seconds=30, deaths=100_000, trials=50, stride=7, models=(), limit=600)
QUICK = Scale(storm_seconds=5, deaths=2_000, trials=10, stride=100, models=("a long sleep",), limit=60)


class Report:
    """Lines of Markdown, printed as they come."""

    def __init__(self):
        self.lines, self.failures = [], []

    def say(self, *lines):
        self.lines += lines
        print(*lines, sep="\n", flush=True)

    def table(self, head):
        self.say("", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head))

    def row(self, *cells):
        self.say("| " + " | ".join(str(cell) for cell in cells) + " |")

    def require(self, holds, text):
        if not holds:
            self.failures.append(text)


# The programs of other files ---------------------------------------------------------------


def run(name, *options, limit):
    """
    What a program of the tests prints, and its exit code.

    The output is None if there is no such program; the exit code is None if it was not finished in time.
    """
    if not (HERE / name).exists():
        return None, None
    command = [sys.executable, str(HERE / name), *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as program:
        try:
            out, _ = program.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            out, _ = program.communicate()
            return f"{out}(stopped after {limit:g} s; what is missing was not tried)", None
    return out.strip(), program.returncode


def kill_points(report, scale):
    report.say("", "## Kill points", "")
    out, code = run("test_kill_steps.py", scale.stride, limit=scale.limit)
    if out is None:
        report.say("`tests/test_kill_steps.py` is not there.")
        return
    totals = [
        tuple(map(int, found)) for found in re.findall(r"^kill points: (\d+), failures: (\d+)$", out, re.MULTILINE)
    ]
    points, failures = map(sum, zip(*totals)) if totals else (0, 0)
    which = "each instruction" if scale.stride == 1 else f"one of {scale.stride} instructions"
    report.say(
        f"A process is killed before {which} of each operation, with either way of sleeping. Kill points: {points:,}, "
        f"failures: {failures}."
    )
    if not totals or code is None:
        report.say("", out.splitlines()[-1])
    report.require(code in (0, None) and not failures, f"kill points: {failures} failures, exit code {code}")


def model(report, scale):
    report.say("", "## Model checker", "")
    if not shutil.which("spin"):
        report.say("`spin` is not installed here.")
        return
    out, code = run("test_model.py", *scale.models, limit=scale.limit)
    if out is None:
        report.say("`tests/test_model.py` is not there.")
        return
    report.say("```", out, "```")
    report.require(code in (0, None), f"the model checker: exit code {code}")


# Storms ------------------------------------------------------------------------------------


def storms(report, scale):
    report.say(
        "",
        "## Storms",
        "",
        f"{storm.PRODUCERS} producers and {storm.CONSUMERS} consumers of one queue of {storm.MAXSIZE} slots, each "
        f"killed at a random moment of its first {storm.LIFE * 1000:g} ms and replaced at once, for "
        f"{scale.storm_seconds:g} s. Items from integers to 200 kB, each with its checksum. Then every item is "
        "accounted for.",
    )
    head = ["queue", "kills", "puts", "dones", "lost in hand", "redelivered", "dead letters"]
    head += ["duplicated", "torn", "locks of the dead", "longest pause", "verdict"]
    report.table(head)
    for name, options in MODES.items():
        result = storm.storm(functools.partial(joinq.JoinableQueue, **options), scale.storm_seconds, 1, **options)
        storm_row(report, f"joinq, {name}", result)
        report.require(not result.failures, f"storm, {name}: {result.failures}")
    storm_row(report, "stdlib", storm.storm(FORK.JoinableQueue, scale.storm_seconds, 1))
    report.say("", "The stdlib's queue does not tell its counts; lost is what put() had accepted and nobody got.")


def storm_row(report, name, it):
    cells = [it.kills, it.puts, it.dones, it.lost, it.redeliveries, it.dead_letters, it.duplicates, it.torn]
    cells += [it.recoveries, f"{it.pause:.2f} s"]
    verdict = "; ".join(it.failures) or "all accounted for"
    report.row(name, *("" if cell is None else cell for cell in cells), verdict)


# Deaths ------------------------------------------------------------------------------------


def deaths(report, scale):
    report.say(
        "",
        "## Deaths",
        "",
        f"{scale.deaths:,} processes are forked and killed after a get(), half of them with the task in hand, "
        "half after task_done(). The figures: after a tenth of them, and at the end.",
    )
    report.table(["queue", "deaths found", "bytes in use", "memory", "table entries", "descriptors", "time"])
    modes = [(name, MODES[name]) for name in ("ignore", "raise", "redeliver")]
    with FORK.Pool(len(modes)) as pool:
        for (name, _), (found, before, after, seconds) in zip(
            modes, pool.imap(functools.partial(die, scale.deaths), [options for _, options in modes])
        ):
            report.row(f"joinq, {name}", found, *map(grown, before, after), f"{seconds:.0f} s")
            report.require(found == scale.deaths, f"deaths, {name}: only {found} were found")
            for what, early, late, more in zip(("bytes", "memory", "entries", "descriptors"), before, after, ROOM):
                report.require(late <= early + more, f"deaths, {name}: {early} {what} became {late}")


ROOM = (2**20, 2**22, 0, 0)
"""What may be more at the end, because other items are queued then. A page per death would be a hundred times that."""


def grown(before, after):
    return f"{before:,} → {after:,}"


def die(count, options):
    """So many deaths; how many the queue has found, its size early and at the end, the time."""
    began, tasks = time.monotonic(), 64
    q = joinq.JoinableQueue(**options)
    for number in range(tasks):
        q.put(bytes(number * 1000))
    before = None
    for number in range(count):
        pid = os.fork()
        if not pid:
            q.get()
            if number % 2:
                q.task_done()
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        if number % 2 or options["on_death"] != "redeliver":
            q.put(bytes(number // 2 % tasks * 1000))
        if number % 100 == 99:
            probes.reap(q)
            if number >= count // 10 and not before:
                before = size_of(q)
    probes.reap(q)
    probes.check_invariants(q)
    return probes.counters(q)["deaths"], before, size_of(q), time.monotonic() - began


def size_of(q):
    counts = probes.counters(q)
    memory = os.fstat(joinq._native.lib.jnq_fileno(q._handle)).st_blocks * 512
    return counts["used_bytes"], memory, counts["processes"], len(probes.descriptors())


# Scenarios ---------------------------------------------------------------------------------

VICTIM, SURVIVOR, OTHER = range(3)
"""Who puts."""

ROOM_FOR = 50_000
"""Items of each."""

SMALL, LARGE = 50, 200_000


class Trial:
    """One scenario once: the queue, and what everybody has done, in memory that shows it also when they hang."""

    def __init__(self, make, on_death, seed):
        self.make, self.on_death, self.random = make, on_death, random.Random(seed)
        view = memoryview(mmap.mmap(-1, 8 * 24 + 6 * ROOM_FOR))
        words, marks = view[: 8 * 24].cast("Q"), view[8 * 24 :]
        self.steps, self.begun, self.put, self.said = words[:8], words[8:16], words[16:19], words[19:24]
        self.taken, self.finishing = marks[: 3 * ROOM_FOR], marks[3 * ROOM_FOR :]
        self.places = itertools.count(1)
        self.place = 0
        self.queue = None

    def step(self):
        self.steps[self.place] += 1

    def start(self, function, *args):
        """A process of the scenario: its place, and itself."""
        place = next(self.places)
        process = FORK.Process(target=self.work, args=(place, function, args), daemon=True)
        process.start()
        return place, process

    def work(self, place, function, args):
        faulthandler.register(signal.SIGUSR1, file=2)
        signal.alarm(int(2 * probes.LIMIT))
        self.place = place
        self.begun[self.place] = 1
        self.step()
        function(self, *args)
        self.step()

    def await_begin(self, *workers):
        for place, _ in workers:
            while not self.begun[place]:
                time.sleep(0)

    def await_end(self, *workers):
        for _, process in workers:
            process.join()
        self.step()

    def kill(self, victim, within, since=0.0):
        """Kill at a random moment, from `since` to `within` seconds after it began."""
        self.await_begin(victim)
        end = time.perf_counter() + since + self.random.random() * (within - since)
        while time.perf_counter() < end:
            if since:
                time.sleep(0.001)
        victim[1].kill()
        victim[1].join()
        self.step()

    def take(self, item):
        """Note that an item was taken; where."""
        self.step()
        try:
            producer, number = payloads.check_item(item)[:2]
        except Exception:
            self.said[TORN] += 1
            return None
        index = producer * ROOM_FOR + number
        self.taken[index] += 1
        return index

    def finish(self, index):
        if index is not None:
            self.finishing[index] += 1
        self.queue.task_done()
        self.step()

    def join(self):
        """Join; what it said."""
        try:
            self.queue.join()
            self.said[JOINED] += 1
        except joinq.LostTasks as error:
            self.said[LOST_TASKS] += 1
            if error.unfinished != sum(dead.tasks for dead in error.processes):
                raise AssertionError(repr(error)) from error
        self.step()

    def close(self, *consumers, may_join=True):
        """Wait for the end of the work, as far as that comes, and of the consumers."""
        if may_join or self.on_death in ("raise", "redeliver"):
            self.join()
        for _ in consumers:
            self.queue.put(None)
        self.await_end(*consumers)

    def lost(self, in_hand):
        """Items that were put and never came, or with redelivery were never done, beyond those in a victim's hands."""
        marks = self.finishing if self.on_death == "redeliver" else self.taken
        missing = sum(bytes(marks[who * ROOM_FOR : who * ROOM_FOR + put]).count(0) for who, put in enumerate(self.put))
        return max(missing - (0 if self.on_death == "redeliver" else in_hand), 0)

    def duplicated(self):
        if self.on_death == "redeliver":  # once more for the one that the victim had, and may have finished
            return sum(n > 2 for n in self.taken)
        return sum(n > 1 for n in self.taken)


STATE, TORN, JOINED, LOST_TASKS, IN_HAND = range(5)
"""Of Trial.said."""


def puts(t, producer, size, count):
    for number in range(count):
        t.queue.put(payloads.make_item(producer, number, (size,)))
        t.put[producer] = number + 1
        t.step()


def gets(t):
    while True:
        try:
            item = t.queue.get()
        except Exception:
            t.said[TORN] += 1
            continue
        if item is None:
            t.queue.task_done()
            return
        t.finish(t.take(item))


def takes_one(t):
    t.take(t.queue.get())
    t.begun[0] = 1
    time.sleep(probes.LIMIT)


def takes_many(t, count):
    """Take, wait for the others to have taken, finish, and go on with what comes."""
    indexes = [t.take(t.queue.get()) for _ in range(count)]
    t.begun[t.place] = 2
    while not t.begun[0]:
        time.sleep(0)
    for index in indexes:
        t.finish(index)
    gets(t)


def joins(t):
    t.queue.join()


def idle_get(t):
    """consumer killed while idle in get(), one of two"""
    t.queue = t.make(0)
    workers = [t.start(gets) for _ in range(2)]
    t.await_begin(*workers)
    t.random.shuffle(workers)
    victim, survivor = workers
    t.kill(victim, within=0.08, since=0.04)
    puts(t, OTHER, SMALL, 20)
    t.close(survivor)


def get_loop(t):
    """consumer killed in a get loop, one of two"""
    t.queue = t.make(64)
    producer = t.start(puts, OTHER, SMALL, 3000)
    victim, survivor = t.start(gets), t.start(gets)
    t.said[IN_HAND] = 1
    t.kill(victim, within=0.02)
    t.await_end(producer)
    t.close(survivor, may_join=False)


def put_loop(t, size, count):
    t.queue = t.make(64)
    consumer, victim, survivor = (
        t.start(gets),
        t.start(puts, VICTIM, size, ROOM_FOR),
        t.start(puts, SURVIVOR, size, count),
    )
    t.kill(victim, within=0.02)
    t.await_end(survivor)
    t.close(consumer)


def small_put_loop(t):
    """producer killed in a put loop, 50 B items"""
    put_loop(t, SMALL, 1000)


def large_put_loop(t):
    """producer killed in a put loop, 200 kB items"""
    put_loop(t, LARGE, 60)


def blocked_put(t):
    """producer killed while blocked on a full queue"""
    t.queue = t.make(2)
    puts(t, OTHER, SMALL, 2)
    victim, survivor = t.start(puts, VICTIM, SMALL, ROOM_FOR), t.start(puts, SURVIVOR, SMALL, 20)
    t.await_begin(survivor)
    t.kill(victim, within=0.08, since=0.04)
    consumer = t.start(gets)
    t.await_end(survivor)
    t.close(consumer)


def task_in_hand(t):
    """worker killed with a task in hand, then join()"""
    t.queue = t.make(0)
    puts(t, OTHER, SMALL, 10)
    victim = t.start(takes_one)
    while not t.begun[0]:
        time.sleep(0)
    survivor = t.start(gets)
    t.said[IN_HAND] = 1
    t.kill(victim, within=0.02)
    t.close(survivor)


def task_done_loop(t):
    """worker killed in a task_done loop, one of two"""
    t.queue = t.make(0)
    puts(t, OTHER, SMALL, 4000)
    victim, survivor = workers = t.start(takes_many, 2000), t.start(takes_many, 2000)
    while not all(t.begun[place] == 2 for place, _ in workers):
        time.sleep(0.0001)
    t.begun[0] = 1
    t.kill(victim, within=0.004)
    t.close(survivor, may_join=False)


def killed_joiner(t):
    """joiner killed, one of two"""
    t.queue = t.make(0)
    puts(t, OTHER, SMALL, 5)
    victim, survivor = t.start(joins), t.start(joins)
    t.await_begin(survivor)
    t.kill(victim, within=0.08, since=0.04)
    consumer = t.start(gets)
    t.await_end(survivor)
    t.close(consumer)


SCENARIOS = (
    idle_get,
    get_loop,
    small_put_loop,
    large_put_loop,
    blocked_put,
    task_in_hand,
    task_done_loop,
    killed_joiner,
)

QUEUES = {"stdlib": None, "joinq, raise": "raise", "joinq, ignore": "ignore", "joinq, redeliver": "redeliver"}

HOPELESS = {(task_in_hand, "stdlib"), (task_in_hand, "joinq, ignore")}
"""Hang by their definition: a task that nobody finishes, and join() without a timeout."""


class Running:
    """A trial in processes of its own."""

    def __init__(self, scenario, name, seed):
        on_death = QUEUES[name]
        make = functools.partial(joinq.JoinableQueue, on_death=on_death) if on_death else FORK.JoinableQueue
        self.scenario, self.name = scenario, name
        self.trial = Trial(make, on_death, seed)
        self.pid = os.fork()
        if not self.pid:
            self.lead()
        self.steps, self.since = 0, time.monotonic()

    def lead(self):
        """What the first process does."""
        status = 1
        try:
            os.setsid()
            faulthandler.register(signal.SIGUSR1, file=2)
            signal.alarm(int(2 * probes.LIMIT))
            self.scenario(self.trial)
            if self.trial.on_death:
                probes.reap(self.trial.queue)
                probes.check_invariants(self.trial.queue)
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)

    def signal(self, number):
        """To all of its processes. The first one is not reaped yet, so its number is still its own."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:  # it has not come to its setsid()
            os.kill(self.pid, number)

    def outcome(self):
        """None while it goes on; then what happened, as (word, number of trials)."""
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        steps, now = sum(self.trial.steps), time.monotonic()
        if steps != self.steps:
            self.steps, self.since = steps, now
        if not ended and now - self.since < STILL:
            return None
        if not ended and self.name != "stdlib" and (self.scenario, self.name) not in HOPELESS:
            print(f"hung: {self.scenario.__name__}, {self.name}", file=sys.stderr, flush=True)
            self.signal(signal.SIGUSR1)
            time.sleep(0.5)
        self.signal(signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        t = self.trial
        words = {"torn": t.said[TORN] > 0, "duplicated": t.duplicated() > 0, "hung": not ended}
        words["failed"] = bool(ended and status)
        words["lost"] = bool(ended and t.lost(t.said[IN_HAND]))
        words["join() returned"] = bool(ended and t.said[JOINED])
        words["LostTasks"] = bool(ended and t.said[LOST_TASKS])
        return collections.Counter(word for word, true in words.items() if true)


def try_all(count):
    """Every scenario with every queue, so many times: a Counter of what happened, by both."""
    todo = [
        (scenario, name, f"{scenario.__name__} {name} {number}")
        for number in range(count)
        for scenario in SCENARIOS
        for name in QUEUES
    ]
    found = collections.defaultdict(collections.Counter)
    running = []
    try:
        while todo or running:
            while todo and len(running) < TRIALS_AT_ONCE:
                running.append(Running(*todo.pop()))
            time.sleep(0.005)
            for one in list(running):
                outcome = one.outcome()
                if outcome is not None:
                    running.remove(one)
                    found[one.scenario, one.name] += outcome
    finally:
        for one in running:
            one.signal(signal.SIGKILL)
    return found


def scenarios(report, scale):
    report.say(
        "",
        "## The same kills with the stdlib's queue",
        "",
        f"Each {scale.trials} times, the kill at a random moment. Hung: no survivor gets on for {STILL:g} s. Lost: an "
        "item whose put() had returned never came, except for one that a killed consumer had in hand; with redelivery "
        "without exception. join() is called without a timeout; but where a consumer may die with a task in hand, the "
        'stdlib\'s and that of on_death="ignore" would never return, and are called only in the scenario that is about '
        "it.",
    )
    found = try_all(scale.trials)
    report.table(["scenario", "queue", "hung", "lost", "duplicated", "torn", "join()"])
    for scenario in SCENARIOS:
        for name in QUEUES:
            got = found[scenario, name]
            said = [f"{word} {got[key]}" for key, word in WORDS if got[key]]
            bad = ("hung", "lost", "duplicated", "torn")
            report.row(scenario.__doc__, name, *(got[word] for word in bad), ", ".join(said))
            allowed = name == "stdlib" or (scenario, name) in HOPELESS
            harm = [f"{word} {got[word]}" for word in (*bad, "failed") if got[word]]
            report.require(allowed or not harm, f"{scenario.__doc__}, {name}: {harm}")
            report.require(not got["failed"], f"{scenario.__doc__}, {name}: {got['failed']} trials did not run")


WORDS = (("join() returned", "returned"), ("LostTasks", "LostTasks"))


# All of it ---------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--stride", type=int, help="try one of so many kill points (1: all, which takes long)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report there, too")
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    if options.stride:
        scale = scale._replace(stride=options.stride, limit=3600)
    report, began = Report(), time.monotonic()
    door = joinq._native.ffi.string(joinq._native.lib.jnq_door()).decode()
    report.say(
        "# What kills do to joinq's queue, and to the stdlib's",
        "",
        f"{datetime.date.today()}; {os.cpu_count()} CPUs, {platform.machine()}, Linux {platform.release()}, "
        f"Python {platform.python_version()}; joinq's processes sleep by {door}.",
    )
    for part in (kill_points, storms, model, deaths, scenarios):
        part(report, scale)
    report.say("", "## Failures", "", *(report.failures or ["None."]))
    report.say("", f"{time.monotonic() - began:.0f} s in all.")
    if options.output:
        options.output.write_text("\n".join(report.lines) + "\n")
    return bool(report.failures)


if __name__ == "__main__":
    sys.exit(main())
