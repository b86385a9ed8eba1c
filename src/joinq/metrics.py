"""The figures of all queues of this process, for monitoring systems.

`text()` gives them in the OpenMetrics format, without any other package; `Collector()` gives them to prometheus_client,
if that is installed:

    prometheus_client.REGISTRY.register(joinq.metrics.Collector())

The figures are those of q.stats(): over all processes of a queue. So one process is enough to ask, and if several that
share a queue are asked, their figures are not to be added up. Each queue has the labels `queue`, its name, and `id`, by
which it is the same in all processes. Asking waits for nobody, and slows nobody down; nothing is kept for it between
two calls, and in the child of a fork it tells of the queues that the child has inherited, too.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from joinq._native import all_attached, ffi
from joinq._stats import Stats, stats_of, traits_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from joinq._jnq import CData

__all__ = ["CONTENT_TYPE", "Collector", "text"]

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
"""Of text(), for the header of an HTTP answer."""


class _Family(NamedTuple):
    name: str  # without joinq_ and the suffix of counters
    kind: str
    unit: str
    help: str
    samples: Callable[[Stats], dict[str, float]]  # by value of the label "call"; or by "" without one


def _one(field: str) -> Callable[[Stats], dict[str, float]]:
    return lambda stats: {"": getattr(stats, field)}


def _calls(get: str, put: str, join: str) -> Callable[[Stats], dict[str, float]]:
    fields = {"get": get, "put": put, "join": join}
    return lambda stats: {call: getattr(stats, field) for call, field in fields.items()}


_FAMILIES = [
    _Family("queued_items", "gauge", "", "Items in the queue.", _one("queued")),
    _Family("in_flight_tasks", "gauge", "", "Tasks that were taken and not reported done.", _one("in_flight")),
    _Family("unfinished_tasks", "gauge", "", "Tasks in the queue or in flight.", _one("unfinished")),
    _Family("puts", "counter", "", "Items that were put.", _one("puts")),
    _Family("gets", "gauge", "", "Items that were taken.", _one("gets")),
    _Family("task_dones", "counter", "", "Tasks that were reported done.", _one("task_dones")),
    _Family("discarded", "counter", "", "Items that shutdown(immediate=True) threw away.", _one("discarded")),
    _Family("redeliveries", "counter", "", "Tasks of dead processes that went back.", _one("redeliveries")),
    _Family("dead_letters", "counter", "", "Tasks that were given up.", _one("dead_letters")),
    _Family("deaths", "counter", "", "Processes that died while they used the queue.", _one("deaths")),
    _Family("processes", "gauge", "", "Processes that use the queue.", _one("processes")),
    _Family("memory_bytes", "gauge", "bytes", "Memory that the items take.", _one("bytes")),
    _Family("memory_peak_bytes", "gauge", "bytes", "The most that it ever was.", _one("peak_bytes")),
    _Family(
        "blocked_threads",
        "gauge",
        "",
        "Threads that sleep in a call.",
        _calls("readers_blocked", "writers_blocked", "joiners_blocked"),
    ),
    _Family(
        "blocked_seconds",
        "counter",
        "seconds",
        "How long threads have waited in a call, all together.",
        _calls("get_seconds", "put_seconds", "join_seconds"),
    ),
    _Family("wakeups", "counter", "", "How often a thread that slept was woken.", _one("wakeups")),
]


def text() -> str:
    """All queues of this process in the OpenMetrics text format, version 1.0."""
    queues = _all_figures()
    lines = []
    for family in _FAMILIES:
        name = f"joinq_{family.name}"
        lines.append(f"# TYPE {name} {family.kind}")
        if family.unit:
            lines.append(f"# UNIT {name} {family.unit}")
        lines.append(f"# HELP {name} {family.help}")
        suffix = "_total" if family.kind == "counter" else ""
        for labels, value in _samples(family, queues):
            inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
            lines.append(f"{name}{suffix}{{{inside}}} {value}")
    return "\n".join([*lines, "# EOF", ""])


class Collector:
    """What a registry of prometheus_client takes; needs that package only when it is asked.

    Raises:
        ImportError: in collect(): prometheus_client is not installed (`pip install joinq[metrics]`).
    """

    def collect(self) -> Iterator[Any]:
        """The same figures as prometheus_client's metric families."""
        core = importlib.import_module("prometheus_client.core")
        kinds = {"gauge": core.GaugeMetricFamily, "counter": core.CounterMetricFamily}
        queues = _all_figures()
        for family in _FAMILIES:
            labels = ["queue", "id", "call"] if family.name.startswith("blocked") else ["queue", "id"]
            made = kinds[family.kind](f"joinq_{family.name}", family.help, labels=labels, unit=family.unit)
            for values, figure in _samples(family, queues):
                made.add_metric(list(values.values()), figure)
            yield made

    def describe(self) -> list[Any]:
        """Nothing: a registry need not ask for the figures when it takes this."""
        return []


class _Figures(NamedTuple):
    name: str
    id: int
    stats: Stats


def _figures(handle: CData) -> _Figures:
    traits = traits_of(handle)
    return _Figures(ffi.string(traits.name).decode("utf-8", "replace"), traits.id, stats_of(handle))


def _all_figures() -> list[_Figures]:
    return sorted(map(_figures, all_attached()), key=lambda queue: queue[:2])


def _samples(family: _Family, queues: list[_Figures]) -> Iterator[tuple[dict[str, str], float]]:
    for queue in queues:
        for call, value in family.samples(queue.stats).items():
            labels = {"queue": queue.name, "id": f"{queue.id:016x}"}
            yield ({**labels, "call": call} if call else labels), value


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
