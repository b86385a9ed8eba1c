"""joinq.metrics: what monitoring systems are told."""

from __future__ import annotations

import sys

import prometheus_client
import pytest
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import joinq
from joinq import metrics
from joinq._native import lib

NAMES = ["resize", 'a "quoted\\ name', "größe 日本"]


def parsed(text):
    """Every sample, by name and labels, as prometheus_client's own parser reads the text."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(q, samples):
    """Those of one queue, by name and call."""
    mine = f"{lib.jnq_id(q._handle):016x}"
    found = {}
    for (name, labels), value in samples.items():
        labels = dict(labels)
        if labels.pop("id") == mine:
            assert labels.pop("queue") == q.name
            found[name, labels.pop("call", None)] = value
            assert not labels
    return found


@pytest.fixture
def registry():
    registry = prometheus_client.CollectorRegistry()
    registry.register(metrics.Collector())
    return registry


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_those_of_stats(name, registry):
    """In the text, and through the collector."""
    q, other = joinq.JoinableQueue(name=name), joinq.SimpleQueue(name=name)
    q.put_many(range(10))
    q.get_many(4)
    q.task_done()
    with pytest.raises(joinq.JoinTimeout):
        q.join(0.01)
    stats = q.stats()
    samples = of(q, parsed(metrics.text()))
    assert samples == {
        ("joinq_queued_items", None): 6,
        ("joinq_in_flight_tasks", None): 3,
        ("joinq_unfinished_tasks", None): 9,
        ("joinq_puts_total", None): 10,
        ("joinq_gets", None): 4,
        ("joinq_task_dones_total", None): 1,
        ("joinq_discarded_total", None): 0,
        ("joinq_redeliveries_total", None): 0,
        ("joinq_dead_letters_total", None): 0,
        ("joinq_deaths_total", None): 0,
        ("joinq_processes", None): 1,
        ("joinq_memory_bytes", None): stats.bytes,
        ("joinq_memory_peak_bytes", None): stats.peak_bytes,
        ("joinq_blocked_threads", "get"): 0,
        ("joinq_blocked_threads", "put"): 0,
        ("joinq_blocked_threads", "join"): 0,
        ("joinq_blocked_seconds_total", "get"): stats.get_seconds,
        ("joinq_blocked_seconds_total", "put"): stats.put_seconds,
        ("joinq_blocked_seconds_total", "join"): stats.join_seconds,
        ("joinq_wakeups_total", None): stats.wakeups,
    }
    assert of(q, parsed(generate_latest(registry).decode())) == samples
    assert of(other, parsed(metrics.text()))["joinq_queued_items", None] == 0


def test_text_is_the_same_as_the_librarys(registry):
    """Family by family: names, types, units, help."""
    keep = joinq.Queue(name="x")

    def families(text):
        return {
            (family.name, family.type, family.unit, family.documentation)
            for family in text_string_to_metric_families(text)
        }

    assert families(metrics.text()) == families(generate_latest(registry).decode())
    del keep


def test_queue_that_is_gone_is_not_told_of():
    """Nothing is kept of it."""
    q = joinq.Queue(name="short-lived")
    assert "short-lived" in metrics.text()
    del q
    assert "short-lived" not in metrics.text()


def test_without_prometheus_client(monkeypatch):
    """The text needs nothing; the collector says what is missing."""
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    assert metrics.text().endswith("# EOF\n")
    with pytest.raises(ImportError):
        list(metrics.Collector().collect())
