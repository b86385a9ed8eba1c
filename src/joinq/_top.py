"""
Show the queues of running programs: rates, backlog, who has tasks, who is blocked, who died.

They are found from outside and only read: the programs need not help, and do not notice.
With rich installed (joinq[top]) in colour, else as plain text.

Exit code: 0; 1 if there is no queue, 2 if it may not be looked at; 130 after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Callable, NamedTuple
from unicodedata import combining, east_asian_width

from joinq._command import CommandError, printable
from joinq._holders import Holder, Wait, death, tasks
from joinq._observe import Seen, View, find
from joinq._stats import Stats

_SHARE = 100  # One part in so many of the time is spent on finding queues.
_DEATHS = 5  # So many are shown.
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


class Rates(NamedTuple):
    """What happened per second since the look before."""

    puts: float
    gets: float
    task_dones: float


class Shown(NamedTuple):
    """A queue at one moment; no rates when it is seen for the first time."""

    view: View
    pids: list[int]
    rates: Rates | None


class Look(NamedTuple):
    """All there is to see at one moment, and why some queues are not there."""

    time: float
    queues: list[Shown]
    refused: list[str]


class Watch:
    """
    The queues of a process, or of all, again and again.

    Finding them means to look at every descriptor of every process. So that is done again only when it would not
    take much of the time, or when a queue has lost all of its processes: an observer keeps no dead queue's memory.
    """

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._seen: list[Seen] = []
        self._find_at = 0.0
        self._before: dict[int, tuple[float, Stats]] = {}

    def look(self) -> Look:
        """
        Look at all of them.

        Raises:
            OSError: As find() does.
        """
        if time.monotonic() >= self._find_at or any(map(_left, self._seen)):
            self._find()
        queues, refused, now = [], [], {}
        for seen in self._seen:
            try:
                view, at = seen.look(), time.monotonic()
            except (OSError, RuntimeError, EOFError) as error:
                refused.append(str(error))
                continue
            now[view.id] = at, view.stats
            queues.append(Shown(view, sorted(seen.pids), self._rates(view, at)))
        self._before = now
        return Look(time.time(), sorted(queues, key=lambda shown: (shown.view.name, shown.view.id)), refused)

    def _find(self) -> None:
        began = time.monotonic()
        self._seen = find(self._pid)
        ended = time.monotonic()
        self._find_at = ended + _SHARE * (ended - began)

    def _rates(self, view: View, at: float) -> Rates | None:
        if view.id not in self._before:
            return None
        then, stats = self._before[view.id]
        names = Rates._fields
        return Rates(*((getattr(view.stats, name) - getattr(stats, name)) / (at - then) for name in names))


def _left(seen: Seen) -> bool:
    return not any(os.path.exists(f"/proc/{pid}/fd") for pid in seen.pids)


# For scripts ------------------------------------------------------------------------------


def as_json(look: Look) -> str:
    """Return a look as one line of JSON."""
    queues = [
        {
            **asdict(view),
            "id": f"{view.id:016x}",
            "holders": [
                {**asdict(holder), "fate": holder.fate, "waits": [wait._asdict() for wait in holder.waits]}
                for holder in view.holders
            ],
            "deaths": [{**dead._asdict(), "fate": death(dead.exitcode)} for dead in view.deaths],
            "pids": pids,
            "rates": rates and rates._asdict(),
        }
        for view, pids, rates in look.queues
    ]
    return json.dumps({"time": look.time, "queues": queues, "refused": look.refused})


# For people -------------------------------------------------------------------------------


class Cell(NamedTuple):
    """A text, and perhaps in which of rich's styles."""

    text: str
    style: str = ""


class Table(NamedTuple):
    """Rows of cells; the columns that matter least are the last."""

    heads: Sequence[str]  # those that end in a blank are left-aligned
    rows: list[list[Cell]]


def tables(look: Look) -> tuple[Table, Table]:
    """Return the table of queues, and that of processes."""
    queues = [_queue_row(*shown) for shown in look.queues]
    holders = [(holder, shown.view) for shown in look.queues for holder in shown.view.holders]
    holders.sort(key=lambda pair: (pair[0].fate == "is alive", -int(pair[0].oldest or 0), pair[1].name, pair[0].pid))
    return Table(_QUEUE, queues), Table(_PROCESS, [_process_row(*pair) for pair in holders])


_QUEUE = (
    *("queue ", "backlog", "unfinished", "blocked ", "put/s", "got/s", "done/s", "deaths", "redelivered"),
    *("memory", "kind "),
)
_PROCESS = ("pid", "process ", "queue ", "state ", "tasks ", "blocked ", "put", "got", "idle")


def _queue_row(view: View, pids: list[int], rates: Rates | None) -> list[Cell]:
    stats = view.stats
    joinable = view.kind == "JoinableQueue"
    full = 0 < view.maxsize <= stats.queued
    blocked = zip(("get", "put", "join"), (stats.readers_blocked, stats.writers_blocked, stats.joiners_blocked))
    puts, gets, dones = (f"{rate:,.0f}" for rate in rates) if rates else "---"
    return [
        Cell(_short(view.name), "bold"),
        Cell(f"{stats.queued:,}{' full' * full}", "yellow" * full),
        Cell(f"{stats.unfinished:,}" * joinable),
        Cell(", ".join(f"{n} in {call}()" for call, n in blocked if n), "yellow"),
        Cell(puts),
        Cell(gets),
        Cell(dones * joinable),
        Cell(f"{stats.deaths:,}", "red" * bool(stats.deaths)),
        Cell(f"{stats.redeliveries:,}" * joinable),
        Cell(_bytes(stats.bytes)),
        Cell(f"{view.kind}{', shut down' * view.is_shutdown}"),
    ]


def _process_row(holder: Holder, view: View) -> list[Cell]:
    normal = holder.fate == "is alive"
    state = holder.state or "alive" if normal else holder.fate.replace("was ", "").replace("is ", "")
    held = f"{holder.tasks:,}{'?' * (not view.owners_known)} for {ago(holder.oldest or 0)}" if holder.tasks else ""
    colour = "yellow" if holder.alive else "red"
    return [
        Cell(str(holder.pid)),
        Cell(_short(holder.name), "bold"),
        Cell(_short(view.name)),
        Cell(state, "" if normal else colour),
        Cell(held, "" if holder.alive else "red"),
        Cell(", ".join(map(_wait, holder.waits)), "yellow"),
        Cell(f"{holder.puts:,}"),
        Cell(f"{holder.gets:,}"),
        Cell(ago(holder.idle)),
    ]


def _wait(wait: Wait) -> str:
    threads = f"{wait.threads} in " if wait.threads > 1 else ""
    return f"{threads}{wait.call} {ago(wait.seconds)}"


def news(look: Look) -> list[str]:
    """Return a line for each of the last deaths, and for each queue that cannot be shown."""
    deaths = [(dead, shown.view) for shown in look.queues for dead in shown.view.deaths]
    deaths.sort(key=lambda pair: pair[0].time)
    lines = []
    for dead, view in deaths[-_DEATHS:]:
        at = time.strftime("%H:%M:%S", time.localtime(dead.time))
        had = f", had {tasks(dead.tasks)} in hand" if dead.tasks else ""
        lines.append(printable(f"{at} queue {view.name}: {dead}{had}"))
    return lines + [f"not shown: {printable(why)}" for why in look.refused]


def ago(seconds: float) -> str:
    """Return a span of time, in the unit that suits it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 100 * 3600 else f"{seconds / 86400:.0f} d"


def _bytes(n: int) -> str:
    power = max(n.bit_length() - 1, 0) // 10
    number = n / 1024**power
    return f"{number:.{int(power > 0 and number < 10)}f} {_UNITS[power]}"


def _short(name: str) -> str:
    """Return a name with its middle left out if it is long; where a queue was made, both ends matter."""
    name = printable(name)
    return name if len(name) <= 24 else f"{name[:11]}..{name[-11:]}"


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 1 + (east_asian_width(char) in "WF") for char in text)


def _fitting(table: Table, width: int) -> tuple[Table, list[int]]:
    """Return as many of the columns as the width has room for, and how wide they are."""
    rows = [[head.strip() for head in table.heads], *([cell.text for cell in row] for row in table.rows)]
    widths = [max(map(_width, column)) for column in zip(*rows)]
    while len(widths) > 1 and sum(widths) + 2 * (len(widths) - 1) > width:
        widths.pop()
    n = len(widths)
    return Table(table.heads[:n], [row[:n] for row in table.rows]), widths


def plain(look: Look, width: int) -> list[str]:
    """Return a look as lines of text."""
    lines = []
    for table in tables(look):
        fitting, widths = _fitting(table, width)
        for row in ([Cell(head.strip()) for head in fitting.heads], *fitting.rows):
            cells = (
                f"{text}{blanks}" if head.endswith(" ") else f"{blanks}{text}"
                for (text, _), wide, head in zip(row, widths, fitting.heads)
                for blanks in (" " * (wide - _width(text)),)
            )
            lines.append("  ".join(cells).rstrip())
        lines.append("")
    return lines + news(look)


def rich(look: Look, width: int) -> Any:
    """Return a look as rich shows it. Requires that it is installed."""
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    parts: list[Any] = []
    for table in tables(look):
        fitting, _ = _fitting(table, width)
        shown = RichTable(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for head in fitting.heads:
            shown.add_column(head.strip(), justify="left" if head.endswith(" ") else "right", no_wrap=True)
        for row in fitting.rows:
            shown.add_row(*(Text(cell.text, cell.style) for cell in row))
        parts += [shown, Text()]
    return Group(*parts, *(Text(line, "red") for line in news(look)))


# The command ------------------------------------------------------------------------------


def top(pid: int | None, once: bool, json_lines: bool, interval: float) -> int:
    """Show the queues of a process, or of all, once or until Ctrl-C; return the exit code."""
    watch = Watch(pid)
    look = first(watch, pid)
    with contextlib.ExitStack() as stack:
        if json_lines:
            show: Callable[[Look], object] = lambda look: print(as_json(look), flush=True)  # noqa: E731
        elif once or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            show = _print
        else:
            signal.signal(signal.SIGTERM, _terminated)
            show = stack.enter_context(_screen())
        due = time.monotonic()
        while True:
            show(look)
            if once:
                return 0
            now = time.monotonic()
            due = max(due + interval, now)  # It may have been stopped for long.
            time.sleep(due - now)
            try:
                look = watch.look()
            except OSError:  # The process has ended.
                return 0


def first(watch: Watch, pid: int | None) -> Look:
    """
    Return the first look.

    Raises:
        CommandError: There is nothing to see, or it may not be seen.
    """
    try:
        look = watch.look()
    except OSError as error:
        raise CommandError(str(error), 1 if isinstance(error, ProcessLookupError) else 2) from None
    if not look.queues and look.refused:
        raise CommandError(look.refused[0])
    if not look.queues and pid:
        raise CommandError(f"process {pid} has no queue of joinq", 1)
    if not look.queues:
        raise CommandError("no running program that you may look at has a queue of joinq", 1)
    return look


def _terminated(*_: object) -> None:
    sys.exit(128 + signal.SIGTERM)  # The terminal is put in order on the way.


def _print(look: Look) -> None:
    fallback = shutil.get_terminal_size() if sys.stdout.isatty() else (sys.maxsize, 0)
    print("\n".join(plain(look, shutil.get_terminal_size(fallback).columns)), flush=True)


@contextlib.contextmanager
def _screen() -> Iterator[Callable[[Look], object]]:
    """Yield what shows one look after the other in the same place of a terminal."""
    try:
        live = importlib.import_module("rich.live").Live(screen=True, auto_refresh=False)
    except ImportError:
        live = None
    if live:
        with live:
            yield lambda look: live.update(rich(look, live.console.width), refresh=True)
        return
    print("\033[?1049h\033[?25l", end="")  # Another screen, no cursor.
    try:
        yield _draw
    finally:
        print("\033[?25h\033[?1049l", end="", flush=True)


def _draw(look: Look) -> None:
    columns, rows = shutil.get_terminal_size()
    lines = [line[:columns] for line in plain(look, columns)[:rows]]
    print("\033[H" + "\033[K\n".join(lines) + "\033[J", end="", flush=True)
