"""
The protocol as a model, tests/model, which Spin explores exhaustively: every order of the steps of its processes.

A configuration is sound if Spin finds no error in all its states; each seeded bug has to be found. pytest takes the
small configurations; all of them, with a table, need some 4 GB and half an hour or more:

    python tests/test_model.py [word ...]

The words select configurations whose name holds one of them. CC names the compiler; else it is cc or gcc.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.slow  # together, that is

MODELS = Path(__file__).resolve().parent / "model"
MEMORY_MB = 6000
DEPTH = 100_000  # of the search; more than any run has steps, which is checked

# Exact: no bit states, no hashes for states; and no partial order reduction: almost every step is seen by others.
PAN = ["-DSAFETY", "-DCOLLAPSE", "-DNOREDUCE", f"-DMEMLIM={MEMORY_MB}"]


class Configuration(NamedTuple):
    """A model with its parameters; for a seeded bug, which is the name, a part of what Spin must say."""

    name: str
    model: str
    flags: str
    error: str = ""

    @property
    def defines(self):
        """The parameters and the bug, as words of a command."""
        return [f"-D{word}" for word in [*self.flags.split(), *([self.name] if self.error else [])]]


LOST_WAKE = "excuses>0"  # a slice ended with the condition true, and no death explains it
LOST_LONG_WAKE = "long_excuses>0"
LOST_RUN = "used[r]==mark[r]"

SOUND = [
    Configuration("put and get", "sleep", "PUTTERS=2 GETTERS=2 DEATHS=1"),
    Configuration("a full queue", "sleep", "PUTTERS=2 MAXSIZE=1 DEATHS=1"),
    Configuration("an item given back", "sleep", "GETTERS=2 UNGETS=1 FINE DEATHS=1"),
    Configuration("getters that leave", "sleep", "GETTERS=2 ITEMS=2 GETS=1 TICKS=1 SIGNALS=1 DEATHS=1"),
    Configuration("shutdown", "sleep", "GETTERS=2 SHUTDOWN DEATHS=1"),
    Configuration("a long sleep", "sleep", "DEEP TICKS=3 DEATHS=1"),
    Configuration("join", "counts", "PUTS=2 TAKES=1 TICKS=1 DEATHS=1"),
    Configuration("join, two putters", "counts", "PUTTERS=2"),
    Configuration("join, two joiners", "counts", "JOINERS=2"),
    Configuration("join and discard", "counts", "CUT DEATHS=1"),
    Configuration("unfinished", "counts", "OBSERVER"),
    Configuration("repair and reap", "recover", "DEATHS=1"),
    Configuration("repair and reap extents", "recover", "EXTENTS DEATHS=1"),
]

LARGE = [
    Configuration("put and get, 2 items, 2 deaths", "sleep", "PUTTERS=2 GETTERS=2 ITEMS=2 DEATHS=2"),
    Configuration("put and get, 3 putters", "sleep", "PUTTERS=3 DEATHS=1"),
    Configuration("a full queue, 2 items", "sleep", "PUTTERS=2 ITEMS=2 MAXSIZE=1 DEATHS=1"),
    Configuration("a full queue, 2 getters", "sleep", "PUTTERS=2 GETTERS=2 MAXSIZE=1 DEATHS=1"),
    Configuration("items given back", "sleep", "PUTTERS=2 GETTERS=2 UNGETS=1 DEATHS=1"),
    Configuration("getters that leave, 2 putters", "sleep", "PUTTERS=2 GETTERS=2 GETS=1 TICKS=1 SIGNALS=1 DEATHS=1"),
    Configuration("shutdown of a full queue", "sleep", "PUTTERS=2 ITEMS=2 MAXSIZE=1 SHUTDOWN DEATHS=1"),
    Configuration("long sleeps", "sleep", "GETTERS=2 DEEP TICKS=3 DEATHS=2"),
    Configuration("long sleeps, 2 putters", "sleep", "PUTTERS=2 DEEP TICKS=3 DEATHS=2"),
    Configuration("join, 2 putters, 2 workers", "counts", "PUTTERS=2 WORKERS=2"),
    Configuration("join, 2 putters, 2 workers, 2 deaths", "counts", "PUTTERS=2 WORKERS=2 DEATHS=2"),
    Configuration("join, 2 putters, 2 deaths", "counts", "PUTTERS=2 DEATHS=2"),
    Configuration("join, 2 workers", "counts", "WORKERS=2 PUTS=2 DEATHS=1"),
    Configuration("join, 3 puts, 2 deaths", "counts", "PUTS=3 TAKES=2 TICKS=1 DEATHS=2"),
    Configuration("join, 2 joiners, 2 puts", "counts", "JOINERS=2 PUTS=2"),
    Configuration("join and discard, 2 puts", "counts", "CUT PUTS=2 TICKS=1 DEATHS=2"),
    Configuration("unfinished, 2 puts", "counts", "OBSERVER PUTS=2"),
    Configuration("unfinished, a death", "counts", "OBSERVER DEATHS=1"),
    Configuration("unfinished and discard", "counts", "OBSERVER CUT"),
    Configuration("repair and reap, 2 deaths", "recover", "DEATHS=2"),
    Configuration("repair and reap, longer blocks", "recover", "ITEMS=3 CAP=2 DEATHS=2"),
    Configuration("repair and reap extents, 2 deaths", "recover", "EXTENTS DEATHS=2"),
    Configuration("a newcomer gets", "recover", "NEWCOMER DEATHS=2"),
    Configuration("a newcomer puts", "recover", "NEWCOMER PUT_LATE DEATHS=1"),
    Configuration("a newcomer gets extents", "recover", "NEWCOMER EXTENTS DEATHS=1"),
]

BUGS = [
    Configuration("WAKE_BEFORE_PUBLISH", "sleep", "", LOST_WAKE),
    Configuration("NO_RECHECK", "sleep", "", LOST_WAKE),
    Configuration("NO_RECHECK", "counts", "", LOST_WAKE),
    Configuration("ANSWERED_UNCONDITIONALLY", "sleep", "GETTERS=2 ITEMS=2 GETS=1", LOST_WAKE),
    Configuration("ANSWER_RELOADED", "sleep", "GETTERS=2 ITEMS=2", LOST_WAKE),
    Configuration("E_AFTER_ANNOUNCING", "sleep", "GETTERS=2 ITEMS=2", LOST_WAKE),
    Configuration("NO_ALERT", "sleep", "DEEP TICKS=3 DEATHS=1", LOST_LONG_WAKE),
    Configuration("DEEP_AT_ONCE", "sleep", "DEEP TICKS=3 DEATHS=1", LOST_LONG_WAKE),
    Configuration("DEEP_WITHOUT_SLICE", "sleep", "DEEP TICKS=3 DEATHS=1", LOST_LONG_WAKE),
    Configuration("COUNT_AFTER_PUBLISH", "counts", "", "assertion violated"),  # more done than tasks
    Configuration("NO_ZERO_RECORD_BEFORE_PUT", "counts", "PUTS=2 TAKES=1", "zero_at>=since"),
    Configuration("JOINING_NOT_REREAD", "counts", "JOINERS=2 PUTS=2", "zero_at>=since"),
    Configuration("WAKE_BEFORE_RECORD", "counts", "PUTS=2 TAKES=1", LOST_WAKE),
    Configuration("RECORD_ANYWAY", "counts", "PUTS=2 TAKES=1", "was_zero"),
    Configuration("NO_OWN_BEFORE_UNLINK", "recover", "DEATHS=1", LOST_RUN),
    Configuration("OWN_AFTER_UNLINK", "recover", "DEATHS=1", LOST_RUN),
    Configuration("TABLE_ENTRY_FREED_BEFORE_SWEEP", "recover", "EXTENTS ITEMS=1 DEATHS=2", LOST_RUN),
    Configuration("NO_REPAIR", "recover", "DEATHS=1", "tail_pos"),
    Configuration("NO_MARK", "recover", "DEATHS=1", "holder[unit]"),
    Configuration("COMMIT_BEFORE_WRITE", "recover", "DEATHS=1", "number["),
]

# What the protocol does not promise, and the headers say so: the model finds that, too.
BUGS += [
    Configuration("STRICT_ZERO", "counts", "PUTS=2 TAKES=1", "assertion violated 0"),
]
LARGE_BUGS = [
    Configuration("ONLY_WAKERS_DIE", "sleep", "GETTERS=2 DEEP TICKS=2 DEATHS=1", LOST_LONG_WAKE),
    Configuration("ALERTERS_LIVE", "sleep", "PUTTERS=2 DEEP TICKS=2 DEATHS=2", LOST_LONG_WAKE),
]


class Outcome(NamedTuple):
    """What Spin found: the number of errors, what the first is, how many states it stored, and all that it said."""

    errors: int
    error: str
    states: int
    output: str


def missing():
    """What is not installed of what this needs, or an empty string."""
    return " and ".join(tool for tool in ("spin", *compiler()[:1]) if not shutil.which(tool))


def compiler():
    """The words that the compiler's command begins with."""
    return shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or "gcc"]


def call(*command, folder):
    """Run a command; return what it wrote, fail if it fails."""
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run([str(word) for word in command], cwd=folder, check=False, **output)
    assert done.returncode == 0, f"{command}:\n{done.stdout}"
    return done.stdout


def explore(configuration, folder):
    """Let Spin look at every state of a configuration, or up to the first error."""
    call("spin", "-a", *configuration.defines, MODELS / f"{configuration.model}.pml", folder=folder)
    # A bug is found in less time than it takes to compile; -O2 is worth its time only where there is much to explore.
    optimize = "-O0" if configuration.error else "-O2" if configuration in LARGE else "-O1"
    call(*compiler(), optimize, "-w", *PAN, "-o", "pan", "pan.c", folder=folder)
    output = call("./pan", "-n", f"-m{DEPTH}", folder=folder)
    found = re.search(r"errors: (\d+)\s+(\d+) states, stored", output)
    assert found, output
    error = re.search(r"^pan:1: (.*) \(at depth", output, re.MULTILINE)
    if not int(found[1]):
        assert "max search depth too small" not in output, output
        assert "Search not completed" not in output, output
        assert "out of memory" not in output, output
    return Outcome(int(found[1]), error[1] if error else "", int(found[2]), output)


@pytest.fixture(autouse=True)
def _tools():
    if missing():
        pytest.skip(f"{missing()} not installed: the model cannot be explored")


def identify(configuration):
    """The name of a test."""
    return f"{configuration.model}: {configuration.name}"


@pytest.mark.parametrize("configuration", SOUND, ids=identify)
def test_sound(configuration, tmp_path, record_property):
    """No order of steps and no death breaks a property."""
    outcome = explore(configuration, tmp_path)
    record_property("states", outcome.states)
    print(f"{outcome.states} states")
    assert outcome.errors == 0, outcome.output


@pytest.mark.parametrize("configuration", BUGS, ids=identify)
def test_seeded_bug_is_found(configuration, tmp_path):
    """The model is no formality: the bug breaks the property that it should."""
    outcome = explore(configuration, tmp_path)
    print(f"{outcome.states} states up to: {outcome.error}")
    assert outcome.errors == 1, outcome.output
    assert configuration.error in outcome.error


def test_named_functions_exist():
    """Each C function that a model or its README names is in the file that is named before it."""
    core = MODELS.parent.parent / "csrc"
    files = {path.name: path.read_text() for path in core.glob("*.c")}
    named = 0
    for path in sorted(MODELS.iterdir()):
        text = path.read_text().replace("`", "").replace("\n *", "")
        for file, functions in re.findall(r"\b(\w+\.c): ((?:\w+\([\w, ]*\)(?:,? (?:with |and )?)?)+)", text):
            for function in re.findall(r"(\w+)\(", functions):
                assert re.search(rf"\b{function}\(", files[file]), f"{path.name}: {file} has no {function}()"
                named += 1
    assert named > 50


def main(*words):
    """Explore all configurations, or those whose name holds one of the words; print a table."""
    if missing():
        return f"{missing()} not installed"
    failed = 0
    print(f"{'model':8} {'configuration':40} {'verdict':8} {'states':>12} {'seconds':>8}  parameters, error")
    for configuration in SOUND + BUGS + LARGE_BUGS + LARGE:
        if words and not any(word in configuration.name for word in words):
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as name:
            try:
                outcome = explore(configuration, Path(name))
            except AssertionError as error:
                outcome = Outcome(-1, str(error).strip().splitlines()[-1], 0, "")
        right = outcome.errors == (1 if configuration.error else 0) and configuration.error in outcome.error
        verdict = ("found" if configuration.error else "sound") if right else "WRONG"
        failed += not right
        figures = f"{outcome.states:12,} {time.monotonic() - began:8.1f}"
        print(f"{configuration.model:8} {configuration.name:40} {verdict:8} {figures}", end="  ")
        print(f"{configuration.flags}{': ' if outcome.error else ''}{outcome.error}", flush=True)
    return f"{failed} wrong" if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
