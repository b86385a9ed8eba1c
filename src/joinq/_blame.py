"""
Tell in sentences why a call of a program's queues waits: a join(), get() or put().

Whoever is waited for may wait himself, in another queue: that one is told of next.

Exit code: 0; 1 if there is no queue, 2 if it may not be looked at.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from joinq._command import printable
from joinq._holders import Holder
from joinq._observe import View, find
from joinq._top import Watch, ago, first
from joinq._why import explain

_MOST = 64  # So many processes are looked into.

# What another process would have to have done to end a wait, and the figure of a Holder that counts it.
_PUT, _TAKEN = ("put {} into it", "puts"), ("taken {} out of it", "gets")
_HELP = {"get()": _PUT, "put()": _TAKEN, "join()": _TAKEN}


def why(pid: int) -> int:
    """Print why calls of a process, or else of those that share its queues, wait; return the exit code."""
    look = first(Watch(pid), pid)
    views = related(pid)
    waiting = [view for view in views if _waits(view, pid)]
    if not waiting:
        waiting = [view for view in views if _waits(view)]
        others = ", but others do:" if waiting else ", nor does any other process that shares a queue with it"
        print(f"process {pid} does not wait in a call of a queue{others}")
    for line in story(waiting, views):
        print(printable(line))
    for reason in look.refused:
        print(printable(reason))
    return 0


def related(pid: int) -> list[View]:
    """Return the queues of a process, of those that share one with it, and so on."""
    views: dict[int, View] = {}
    pids = [pid]
    for one in pids:  # It grows meanwhile.
        with contextlib.suppress(OSError):  # It is gone, or another user's.
            for seen in find(one):
                with contextlib.suppress(OSError, RuntimeError, EOFError):
                    view = seen.look()
                    views.setdefault(view.id, view)
                    more = [holder.pid for holder in view.holders if holder.alive and holder.pid not in pids]
                    pids += more[: _MOST - len(pids)]
    return list(views.values())


def story(first: list[View], views: list[View]) -> Iterator[str]:
    """Yield the sentences on some queues, and on those where they lead to."""
    todo = list(first)
    for view in todo:  # It grows meanwhile.
        others = [other for other in views if other.id != view.id]
        summary, *about = explain(view, others)
        full = ", which is full" * (0 < view.maxsize <= view.stats.queued)
        yield f"queue {view.name!r}: {summary}{full}"
        helpers = list(_helpers(view))
        told = {holder.pid for holder in view.holders}
        died = [str(death) for death in view.deaths if death.pid not in told]
        yield from (f"  {line}" for line in (*about, *died, *_help(view, others, helpers)))
        involved = {holder.pid for holder in view.holders if holder.alive and holder.tasks}
        involved |= {holder.pid for holder in helpers}
        todo += [other for other in others if other not in todo and any(_waits(other, pid) for pid in involved)]


def _waits(view: View, pid: int | None = None) -> bool:
    return any(holder.waits for holder in view.holders if pid in (None, holder.pid))


def _call(view: View) -> str | None:
    """Return the call that waits, and that somebody else could end by a call of his own."""
    calls = {wait.call for holder in view.holders for wait in holder.waits}
    if "get()" in calls and not view.stats.queued:
        return "get()"
    return next((call for call in ("put()", "join()") if call in calls and view.stats.queued), None)


def _helpers(view: View) -> Iterator[Holder]:
    """Yield the living processes that could end the wait."""
    call = _call(view)
    if call:
        figure = _HELP[call][1]
        living = [holder for holder in view.holders if holder.alive]
        done = [holder for holder in living if getattr(holder, figure)]
        yield from done or (holder for holder in living if call not in [wait.call for wait in holder.waits])


def _help(view: View, others: Iterable[View], helpers: list[Holder]) -> Iterator[str]:
    """Yield what keeps those who could end the wait from it."""
    call = _call(view)
    if not call:
        return
    what, figure = _HELP[call]
    if not any(getattr(helper, figure) for helper in helpers):
        yield f"no living process has ever {what.format('anything')}"
    for helper in helpers:
        if helper.tasks:  # Of it all has been said.
            continue
        blocked = [
            f"waits for {ago(wait.seconds)} in {wait.call} of queue {other.name!r}"
            for other in others
            for holder in other.holders
            if holder.alive and holder.pid == helper.pid
            for wait in holder.waits
        ]
        if helper.fate != "is alive":
            blocked.insert(0, helper.fate)
        if not blocked and not helper.waits:
            blocked = [f"has not used it for {ago(helper.idle)}"]
        if blocked:
            has = f"has {what.format('items')}" if getattr(helper, figure) else "has it, too"
            yield f"{helper} {has}, but {', '.join(blocked)}"
