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

from joinq import _demo


def positive(text: str) -> int:
    """Return the number that a text from the command line stands for."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of one command; `run(options)` does it."""
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
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # Names of files may be odd.
    try:
        try:
            options = parse(argv)
            return int(options.run(options))
        finally:
            print(end="", flush=True)  # Not at exit: there, a closed pipe is an error.
    except _demo.DemoError as error:
        print(f"joinq: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
