"""Workers killed at random moments and replaced at once, for a bounded time: every item is accounted for."""

from __future__ import annotations

import pytest
import storm

import joinq

SECONDS = 3

MODES = {
    "ignore": {"on_death": "ignore"},
    "raise": {"on_death": "raise"},
    "redeliver": {"on_death": "redeliver", "max_deliveries": 10**6},
    "redeliver-2": {"on_death": "redeliver", "max_deliveries": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "seed"), [("ignore", 1), ("raise", 1), ("redeliver", 1), ("redeliver", 2), ("redeliver-2", 1)]
)
def test_storm(mode, seed):
    """At most once, or at least once with the redeliveries counted; nothing torn, nothing kept, nobody hangs."""
    options = MODES[mode]
    result = storm.storm(lambda maxsize: joinq.JoinableQueue(maxsize, **options), SECONDS, seed, **options)
    print(result)
    assert not result.failures, result
    assert not result.hung
    assert result.kills >= 10, "too few to mean anything"
    assert result.puts >= result.kills
