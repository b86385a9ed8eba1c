"""
The command line: ``python -m joinq COMMAND``.

Parsing, and the manners that all commands share, are here; the rest is in a module
for each command.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from joinq import _blame, _demo, _run, _top
from joinq._command import CommandError


def positive(text: str) -> int:
    """Return the number that a text from the command line stands for."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def process(text: str) -> int:
    """Return the pid that a text from the command line stands for."""
    if not text.isdecimal() or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a pid")
    return int(text)


def seconds(text: str) -> float:
    """Return the span of time that a text from the command line stands for."""
    try:
        if 0.05 <= float(text) <= 86400:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.05 to 86400")


def add_top(commands: Any) -> None:
    """Add the options of `top`."""
    top = commands.add_parser(
        "top",
        help="show the queues of running programs, live",
        description=_top.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = "only the queues of this process; default: of all that you may look at"
    top.add_argument("pid", metavar="PID", nargs="?", type=process, help=which)
    top.add_argument("--once", action="store_true", help="one look, then end")
    top.add_argument("--json", action="store_true", help="for scripts: a line of JSON for each look")
    between = "between two looks, default: 1"
    top.add_argument("--interval", metavar="SECONDS", type=seconds, default=1.0, help=between)
    top.set_defaults(run=lambda o: _top.top(o.pid, o.once, o.json, o.interval))


def add_why(commands: Any) -> None:
    """Add the options of `why`."""
    why = commands.add_parser(
        "why",
        help="tell why a program's join(), get() or put() waits",
        description=_blame.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    why.add_argument("pid", metavar="PID", type=process, help="any process of the program")
    why.set_defaults(run=lambda o: _blame.why(o.pid))


def add_doctor(commands: Any) -> None:
    """Add the options of `doctor`; what examines is imported only if it is asked for."""
    doctor = commands.add_parser(
        "doctor",
        help="tell what this machine offers, what joinq uses of it, and whether it works",
        description="Tell what this machine offers, what joinq makes of it, and whether it works here: a few seconds.",
        epilog="Exit code: 0; 1 if a part of the self-test fails.",
    )
    doctor.add_argument("--json", action="store_true", help="for scripts: one JSON object; sizes are in bytes")

    def run(options: argparse.Namespace) -> int:
        from joinq._doctor import doctor

        return doctor(options.json)

    doctor.set_defaults(run=run)


def add_bench(commands: Any, methods: list[str]) -> None:
    """Add the options of `bench`; what measures is imported only if it is asked for."""
    bench = commands.add_parser(
        "bench",
        help="measure joinq beside the stdlib's queue, and beside other packages, on this machine",
        description=(
            "Measure joinq beside the standard library's queue on this machine, and what limits both. Rounds are "
            "interleaved, and every measurement is a fresh process. Takes up to six minutes; with --peers about "
            "an hour."
        ),
        epilog="Exit code: 0, or with --check 1 if a target is missed; 2 for bad usage.",
    )
    bench.add_argument("--quick", action="store_true", help="a tenth of the items and two rounds: a minute")
    bench.add_argument("--peers", action="store_true", help="also measure the other queues that are installed")
    only = "scenarios whose name holds NAME; repeatable"
    bench.add_argument("--only", metavar="NAME", action="append", default=[], help=only)
    bench.add_argument("--check", action="store_true", help="fail if a target is missed")
    bench.add_argument("--json", metavar="F", help="write all figures to F")
    bench.add_argument("--html", metavar="F", help="write a page with charts to F")
    bench.add_argument("--svg", metavar="F", help="write the chart of all ratios to F")
    bench.add_argument("--from", metavar="F", dest="source", help="measure nothing, show what --json wrote to F")
    method = f"default: {methods[0]}"
    bench.add_argument("--start-method", choices=methods, default=methods[0], help=method)
    bench.add_argument("--share", type=float, help=argparse.SUPPRESS)  # of the items, one round: for tests

    def run(options: argparse.Namespace) -> int:
        from joinq._bench.command import Options
        from joinq._bench.command import bench as measure

        return measure(Options(**{name: getattr(options, name) for name in Options._fields}))

    bench.set_defaults(run=run)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of one command; `run(options)` does it, or without that it is to run a program."""
    parser = argparse.ArgumentParser(prog="python -m joinq")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    methods = multiprocessing.get_all_start_methods()

    demo = commands.add_parser(
        "demo",
        help="do real work with joinq and with the stdlib's queue, and compare",
        description=_demo.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = "default: the standard library, without its site-packages"
    demo.add_argument("directory", metavar="DIR", nargs="?", help=where)
    cpus = "worker processes, default: as many as CPUs are available"
    demo.add_argument("--workers", metavar="N", type=positive, help=cpus)
    method = f"default: {methods[0]}"
    demo.add_argument("--start-method", choices=methods, default=methods[0], help=method)
    demo.set_defaults(run=lambda o: _demo.demo(o.directory, o.workers, o.start_method))

    run = commands.add_parser(
        "run",
        help="run a program with joinq's queues in place of multiprocessing's",
        description=_run.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [-h] [--report] PROGRAM | -m MODULE [ARGUMENT ...]",
    )
    run.add_argument("-m", dest="is_module", action="store_true", help="the program is the name of a module")
    report = "at the end, tell on stderr which queues were made, and what went through them"
    run.add_argument("--report", action="store_true", help=report)
    where = "a file, or a directory or zip file with a __main__.py"
    run.add_argument("program", metavar="PROGRAM", nargs=argparse.REMAINDER, help=where)
    run.set_defaults(run=None)
    add_top(commands)
    add_why(commands)
    add_doctor(commands)
    add_bench(commands, methods)
    options = parser.parse_args(argv)
    if options.run is None and not options.program:
        run.error("which program?")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit code."""
    try:
        try:
            options = parse(argv)
            if options.run:
                if isinstance(sys.stdout, io.TextIOWrapper):
                    sys.stdout.reconfigure(errors="backslashreplace")  # Names of files may be odd.
                return int(options.run(options))
        finally:
            print(end="", flush=True)  # Not at exit: there, a closed pipe is an error.
    except CommandError as error:
        print(f"joinq: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    program, *arguments = options.program
    return _run.run(program, arguments, options.is_module, options.report)  # It has manners of its own.


if __name__ == "__main__":
    sys.exit(main())
