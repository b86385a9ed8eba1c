"""CPython's own tests on our queues: a part of them, and the proof that they notice queues which are broken on purpose.

All of them: `python tests/conformance/run.py`.
"""

from __future__ import annotations

import fnmatch
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "conformance"
OF_QUEUES = ("*Queue.*", "*Queue*Test.*")

# Which test must notice each defect of broken.py.
NOTICED_BY = {
    "task_done_never_raises": "*OnJoinableQueue.test_queue_task_done",
    "join_returns_at_once": "*OnJoinableQueue.test_queue_join",
    "loses_an_item": "*OnQueue.test_order",
    "repeats_an_item": "*OnQueue.test_order",
    "swaps_two_items": "*OnQueue.test_order",
    "is_always_empty": "*OnJoinableQueue.test_basic",
    "is_never_full": "*OnJoinableQueue.test_basic",
    "ignores_the_timeout_of_get": "*OnJoinableQueue.test_basic",
    "gives_up_before_the_timeout": "*TestQueue.test_timeout",
    "waits_in_get_nowait": "*OnJoinableQueue.test_nowait",
    "ignores_maxsize": "*OnJoinableQueue.test_nowait",
    "can_be_used_after_close": "*TestQueue.test_closed_queue_put_get_exceptions",
    "children_get_a_copy": "*TestQueue.test_get",
}


def run(queues: str, suite: str, *tests: str, method: str, limit: float = 60) -> tuple[int, dict[str, str], str]:
    """Runs the harness; returns its exit code, the outcome of each test, and all that it said."""
    command = [
        sys.executable,
        str(HERE / "run.py"),
        "-v",
        "--queues",
        queues,
        "--method",
        method,
        "--limit",
        f"{limit}",
    ]
    command += ["--suite", suite, *(part for test in tests for part in ("--test", test))]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    outcomes = {test: outcome for outcome, test in re.findall(r"^ +[\d.]+ s (.+): (\S+)$", done.stdout, re.MULTILINE)}
    return done.returncode, outcomes, done.stdout


def suite_of(test: str) -> str:
    return "queue" if "On" in test else "multiprocessing"


@pytest.mark.parametrize("suite", ["queue", "logging", pytest.param("multiprocessing", marks=pytest.mark.slow)])
def test_cpythons_tests_of_queues_pass(suite):
    """None fails, and those that are to notice the defects are run."""
    code, outcomes, said = run("joinq", suite, *OF_QUEUES, method="spawn")
    assert code == 0, said
    assert set(outcomes.values()) <= {"passed", "skipped", "not applicable"}, said
    for test in NOTICED_BY.values():
        if suite_of(test) == suite:
            assert {outcomes[name] for name in fnmatch.filter(outcomes, test)} == {"passed"}, said


@pytest.mark.slow
@pytest.mark.parametrize("defect", NOTICED_BY)
def test_a_defect_is_noticed(defect):
    """A queue that is broken on purpose fails the test; one that hangs does so at the limit, with its stacks."""
    test = NOTICED_BY[defect]
    code, outcomes, said = run(defect, suite_of(test), test, method="spawn", limit=5)
    assert code == 1, said
    assert "failed" in outcomes.values(), said
    if "not finished after 5 s" in said:
        assert "most recent call first" in said


def test_the_lists_are_complete_and_short(monkeypatch):
    """Every defect of broken.py is tried, and at most four tests are not run."""
    monkeypatch.syspath_prepend(HERE)
    import broken
    import not_applicable

    assert list(broken.DEFECTS) == list(NOTICED_BY)
    assert len(not_applicable.NOT_APPLICABLE) <= 4


def test_only_a_failure_with_the_stdlib_excuses_one(monkeypatch):
    """A test that is skipped with the stdlib's queues, or cannot be run, says nothing about them."""
    monkeypatch.syspath_prepend(HERE)
    harness = importlib.import_module("run")
    outcomes = ["failed", "passed", "skipped", "not applicable"]
    monkeypatch.setattr(harness, "run", lambda *args: {outcome: harness.Result(outcome) for outcome in outcomes})
    unit = harness.Unit("python", "3", "fork", "logging", [])
    unit.results = {test: harness.Result("failed") for test in [*outcomes, "unknown"]}
    harness.compare(unit, 60)
    assert unit.failed() == [*outcomes[1:], "unknown"]
