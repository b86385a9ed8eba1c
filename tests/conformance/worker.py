"""Runs tests in one process of the interpreter under test, and writes what happens to a file, a JSON object a line.

Started by run.py, which notices if it hangs or dies.
"""

from __future__ import annotations

import argparse
import fnmatch
import inspect
import json
import multiprocessing
import os
import resource
import time
import unittest
from typing import Any, TextIO


class Reporter(unittest.TestResult):
    """Writes {"begin": test} and {"end": test, "outcome": ..., "detail": ...}."""

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self._file = file
        self._pid = os.getpid()
        self._running: str | None = None
        self._outcome: tuple[str, str] = ("passed", "")

    def write(self, **record: Any) -> None:
        if os.getpid() == self._pid:  # not in a child that came back from a test
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._running, self._outcome, self._began = test.id(), ("passed", ""), time.monotonic()
        self.write(begin=self._running)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        outcome, detail = self._outcome
        seconds = round(time.monotonic() - self._began, 2)
        self.write(end=self._running, outcome=outcome, detail=detail, seconds=seconds)
        self._running = None

    def _is(self, outcome: str, detail: str, test: unittest.TestCase) -> None:
        if self._running is None:  # in what surrounds the tests of a class or module
            self.write(end=test.id(), outcome=outcome, detail=detail, seconds=0)
        elif self._outcome[0] != "failed":
            self._outcome = outcome, detail

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self._is("failed", self.errors[-1][1], test)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self._is("failed", self.failures[-1][1], test)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._is("failed", (self.failures + self.errors)[-1][1], test)

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self._is("failed", "was expected to fail", test)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self._is("skipped", reason, test)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("suite")
    parser.add_argument("queues")
    parser.add_argument("selection", help='a JSON file: {"only": [patterns], "done": [tests]}')
    parser.add_argument("results")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    import not_applicable
    import patch

    method = os.environ["CONFORMANCE_METHOD"]
    multiprocessing.set_start_method(method)
    patch.install(options.queues)
    import suites

    with open(options.selection) as file:
        selection = json.load(file)
    with open(options.results, "w") as file:
        reporter = Reporter(file)
        try:
            tests = list(suites.SUITES[options.suite](method))
        except suites.NotInstalled as missing:
            reporter.write(missing=str(missing))
            return
        borrowed = os.environ.get("CONFORMANCE_BORROW")
        if borrowed and any(inspect.getfile(type(test)).startswith(borrowed) for test in tests):
            reporter.write(borrowed=True)
        chosen = unittest.TestSuite()
        for test in tests:
            name = test.id()
            if name in selection["done"] or not any(fnmatch.fnmatchcase(name, only) for only in selection["only"]):
                continue
            reason = not_applicable.reason(name)
            if reason is None:
                chosen.addTest(test)
            else:
                reporter.write(end=name, outcome="not applicable", detail=reason, seconds=0)
        chosen.run(reporter)
        reporter.write(finished=True)


if __name__ == "__main__":
    main()
