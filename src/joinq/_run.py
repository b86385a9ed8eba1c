"""
Run a Python program as Python itself would, with joinq's queues in place of those of
multiprocessing, in the processes that it starts with multiprocessing, too.

The program's own arguments follow its name.
"""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any

from joinq import _report
from joinq._install import install


class _NoProgramError(Exception):
    """There is nothing to run: the message and the exit code that Python has for it."""


def run(program: str, arguments: Sequence[str], is_module: bool, report: bool = False) -> int:
    """
    Run the program as the main module, and return 0 when it comes to its end.

    What it raises is raised, and shown without the frames of this module and its callers.
    """
    if report:
        _report.begin()
    install()
    try:
        sys.argv[:] = ["-m" if is_module else program, *arguments]
        try:
            main, code = _module(program) if is_module else _script(program)
        except _NoProgramError as error:
            message, status = error.args
            print(f"joinq: {message}", file=sys.stderr)
            return int(status)
        # A spawned child's main module is __mp_main__, and so it is called in what it sends us.
        sys.modules["__main__"] = sys.modules["__mp_main__"] = main
        exec(code, main.__dict__)
    except BaseException:
        _hide()
        raise
    return 0


def _script(path: str) -> tuple[ModuleType, CodeType]:
    """The main module that `python PATH` would have, and its code, which is not yet run."""
    safe = sys.flags.isolated or getattr(sys.flags, "safe_path", False)  # Then sys.path does not begin with ours.
    full = os.path.join(os.getcwd(), path)
    if pkgutil.get_importer(full):  # A directory or zip file.
        sys.path[: 0 if safe else 1] = [full]
        spec = PathFinder.find_spec("__main__", [full])
        if spec is None:
            raise _NoProgramError(f"can't find '__main__' module in {full!r}", 1)
        return _from_spec(spec)
    loader = SourceFileLoader("__main__", full)
    try:
        source = loader.get_data(full)
    except OSError as error:
        text = f"can't open file {full!r}: [Errno {error.errno}] {error.strerror}"
        raise _NoProgramError(text, 2) from None
    if not safe:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    main = _new_main(__file__=full, __loader__=loader, __cached__=None)
    return main, compile(source, full, "exec", dont_inherit=True)


def _module(name: str) -> tuple[ModuleType, CodeType]:
    """The same for `python -m NAME`."""
    spec = _find(name)
    if spec.submodule_search_locations is not None:
        try:
            spec = _find(f"{name}.__main__")
        except _NoProgramError as error:
            text = f"{error.args[0]}; {name!r} is a package and cannot be directly executed"
            raise _NoProgramError(text, 1) from None
    main, code = _from_spec(spec)
    sys.argv[0] = str(spec.origin)
    return main, code


def _find(name: str) -> ModuleSpec:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # The package exists, and cannot be imported.
        text = f"Error while finding module specification for {name!r} ({type(error).__name__}: {error})"
        raise _NoProgramError(text, 1) from None
    if spec is None:
        raise _NoProgramError(f"No module named {name}", 1)
    return spec


def _from_spec(spec: ModuleSpec) -> tuple[ModuleType, CodeType]:
    loader: Any = spec.loader
    code = loader.get_code(spec.name) if hasattr(loader, "get_code") else None
    if code is None:
        raise _NoProgramError(f"No code object available for {spec.name}", 1)
    return _new_main(
        __file__=spec.origin, __loader__=loader, __cached__=spec.cached, __package__=spec.parent, __spec__=spec
    ), code


def _new_main(**attributes: Any) -> ModuleType:
    main = ModuleType("__main__")
    main.__dict__.update(attributes, __builtins__=sys.modules["builtins"])
    return main


def _hide() -> None:
    """Lets the traceback that Python is about to show begin behind the frames of this module."""
    show = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        inner = frame = trace
        while frame:
            if frame.tb_frame.f_globals is globals():
                inner = frame.tb_next
            frame = frame.tb_next
        show(kind, error.with_traceback(inner), inner)

    sys.excepthook = excepthook
