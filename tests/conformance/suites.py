"""Which tests of the interpreter's own `test` package are run: one function per suite, and the rule that selects."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import multiprocessing
import pkgutil
import queue
import re
import unittest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class NotInstalled(Exception):
    """The interpreter came without these tests."""


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise NotInstalled(str(error)) from None


def _classes(module: object) -> Iterator[tuple[str, str]]:
    """The names and texts of a module's classes. (inspect.getsource() would parse all of it for each class.)"""
    source = inspect.getsource(module)
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            yield node.name, "\n".join(lines[node.lineno - 1 : node.end_lineno])


def _tests(*classes: type[unittest.TestCase]) -> Iterator[unittest.TestCase]:
    for case in classes:
        yield from map(case, unittest.defaultTestLoader.getTestCaseNames(case))


def multiprocessing_tests(method: str) -> Iterator[unittest.TestCase]:
    """The classes of test_multiprocessing_{method} that speak of queues, pools or who runs, for processes."""
    subject = re.compile("queue|pool|active_children|cpu_count|current_process|parent_process", re.IGNORECASE)
    module = _import("test._test_multiprocessing")
    generated = _import("generated")
    for name, source in _classes(module):
        case = getattr(module, name, None)
        is_test = inspect.isclass(case) and issubclass(case, (unittest.TestCase, module.BaseTestCase))
        if not is_test or not subject.search(source):
            continue
        for generated_name in (name, "WithProcesses" + name[1:]):
            case = vars(generated).get(generated_name)
            if case is not None and issubclass(case, unittest.TestCase):
                yield from _tests(case)


def concurrent_futures_tests(method: str) -> Iterator[unittest.TestCase]:
    """The classes of test_concurrent_futures that make process pools with this start method."""
    package = _import("test.test_concurrent_futures")
    modules = [package]
    if hasattr(package, "__path__"):
        modules = [
            _import(f"{package.__name__}.{module.name}")
            for module in pkgutil.iter_modules(package.__path__)
            if module.name.startswith("test_")
        ]
    for module in modules:
        for case in list(vars(module).values()):
            if inspect.isclass(case) and issubclass(case, unittest.TestCase) and getattr(case, "ctx", "") == method:
                yield from _tests(case)


def logging_tests(method: str) -> Iterator[unittest.TestCase]:
    """QueueHandlerTest on a multiprocessing queue, and the tests of test_logging that speak of multiprocessing."""
    module = _import("test.test_logging")

    class QueueHandlerTest(module.QueueHandlerTest):
        def setUp(self) -> None:
            super().setUp()
            self.queue = self.que_hdlr.queue = multiprocessing.Queue(-1)

    yield from _tests(QueueHandlerTest)
    for case in (module.QueueListenerTest, module.ConfigDictTest):
        for test in _tests(case):
            if "multiprocessing" in inspect.getsource(getattr(case, test._testMethodName)):
                yield test


def queue_tests(method: str) -> Iterator[unittest.TestCase]:
    """test_queue, which is about threads: its Queue on JoinableQueue and Queue, its SimpleQueue on Queue."""
    module = _import("test.test_queue")

    def on(base: type, kind: str) -> type[unittest.TestCase]:
        made = type(getattr(multiprocessing, kind)())
        # The tests ask for the name of the class and, of a queue of this size, for an attribute of queue.Queue.
        queue_class = type("Queue", (made,), {"maxsize": module.QUEUE_SIZE})
        type2test = functools.partial(queue_class, ctx=multiprocessing.get_context())

        class Case(base, unittest.TestCase):
            def setUp(self) -> None:
                self.queue, self.type2test = queue, type2test
                super().setUp()

        Case.__name__ = Case.__qualname__ = f"{base.__name__}On{kind}"
        return Case

    yield from _tests(on(module.BaseQueueTestMixin, "JoinableQueue"))
    for test in _tests(on(module.BaseQueueTestMixin, "Queue"), on(module.BaseSimpleQueueTest, "Queue")):
        if not re.search("join|task_done|all_methods", test._testMethodName):  # which Queue has not
            yield test


SUITES = {
    "multiprocessing": multiprocessing_tests,
    "concurrent_futures": concurrent_futures_tests,
    "logging": logging_tests,
    "queue": queue_tests,
}
