"""Why a call on a queue waits, in plain sentences: who has tasks in hand, and in which queue he is himself blocked.

A worker that has a task of one queue may be blocked in another one, which the figures of the first do not show. So the
processes that matter are looked up in the other queues that they use: those that this process has, too, and those that
are found from outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joinq._holders import tasks
from joinq._observe import View, views_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from joinq._holders import Holder, Wait

__all__ = ["elsewhere", "explain", "processes", "summary"]

# So many processes are looked up at most: each costs some 100 microseconds.
_MOST = 32


def elsewhere(view: View) -> list[View]:
    """The other queues of the living processes that have tasks of this one in hand, as far as they can be seen."""
    pids = [holder.pid for holder in view.holders if holder.alive and holder.tasks][:_MOST]
    return list(views_of(pids, known={view.id}).values()) if pids else []


def explain(view: View, others: Iterable[View] | None = None, when: str = "") -> list[str]:
    """What there is to say about who waits for whom: first of the queue as a whole, then of each process that has tasks
    in hand, died with some, or waits, and then of what is not known.

    Args:
        others: the queues in which these processes may be blocked; None finds them.
        when: follows "... tasks unfinished".
    """
    return [summary(view, when), *processes(view, elsewhere(view) if others is None else others), *_doubts(view)]


def summary(view: View, when: str = "") -> str:
    """How much there is in the queue, and in hands."""
    stats = view.stats
    if view.kind == "JoinableQueue":
        unfinished = f"{tasks(stats.unfinished)} unfinished{when and ' '}{when}"
        return f"{unfinished}: {stats.queued} of them in the queue, {stats.in_flight} taken"
    return f"{_items(stats.queued)} in the queue"


def processes(view: View, others: Iterable[View] = ()) -> list[str]:
    """A sentence for each process that has tasks in hand, died with some, or waits."""
    others = list(others)
    said = ((holder, _about(holder, others)) for holder in view.holders)
    return [f"{holder} {', '.join(about)}" for holder, about in said if about]


def _about(holder: Holder, others: list[View]) -> list[str]:
    about = []
    if not holder.alive or holder.tasks or holder.fate != "is alive":
        about.append(holder.fate)
    if holder.tasks:
        had = "has" if holder.alive else "had"
        about.append(f"{had} {tasks(holder.tasks)} in hand, the oldest for {holder.oldest:.1f} s")
    about += [_waits(wait) for wait in holder.waits]
    if holder.tasks and holder.alive:
        for other in others:
            about += [
                _waits(wait, other)
                for same in other.holders
                if same.pid == holder.pid and same.alive
                for wait in same.waits
            ]
    return about


def _waits(wait: Wait, other: View | None = None) -> str:
    who = "waits" if wait.threads == 1 else f"waits in {wait.threads} threads"
    if other is None:
        return f"{who} in {wait.call} for {wait.seconds:.1f} s"
    return f"{who} for {wait.seconds:.1f} s in {wait.call} of queue {other.name!r}, which {_condition(wait, other)}"


def _condition(wait: Wait, view: View) -> str:
    """What such a call waits for: how the queue is."""
    stats = view.stats
    if wait.call == "join()":
        return f"has {tasks(stats.unfinished)} unfinished"
    if wait.call == "get()" and not stats.queued:
        return "is empty"
    if wait.call == "put()" and 0 < view.maxsize <= stats.queued:
        return f"is full ({_items(stats.queued)})"
    return f"has {_items(stats.queued)}"


def _items(n: int) -> str:
    return f"{n} item" if n == 1 else f"{n} items"


def _doubts(view: View) -> list[str]:
    """What the figures of the processes cannot tell."""
    if view.kind != "JoinableQueue" or view.owners_known:
        return []
    if view.on_death == "ignore":
        return ["with on_death='ignore' it is not known who has tasks in hand"]
    return [
        "these figures are uncertain: a process has finished a task that another one had taken, or has ended "
        "in order with tasks in hand"
    ]
