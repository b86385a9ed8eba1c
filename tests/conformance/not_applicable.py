"""The only tests that are not run: a pattern for module.Class.test, in which versions, and why. At most four."""

from __future__ import annotations

import fnmatch
import sys

NOT_APPLICABLE = [
    (
        "*TestQueue.test_queue_feeder_donot_stop_onexc",
        ((3, 9), (3, 13)),
        "an object that cannot be pickled is to be dropped silently by the feeder thread; put() raises the error",
    ),
    (
        "*.test_negative_timeout_raises_exception",
        ((3, 9), (3, 13)),
        "test_queue's; multiprocessing's queues take a negative timeout as none, and so do we",
    ),
    (
        "*TestStartMethod.test_mixed_startmethod",
        ((3, 11), (3, 13)),
        "a queue made for fork is to be refused by a spawned child, because of its semaphores; it has none",
    ),
    (
        "*.test_references",
        ((3, 9), (3, 13)),
        "puts instances of a local class, which cannot be pickled, and looks whether the queue keeps the same objects",
    ),
]


def reason(test: str) -> str | None:
    """Why this test (module.Class.test) is not run by this interpreter; None if it is."""
    for pattern, (first, last), why in NOT_APPLICABLE:
        if fnmatch.fnmatchcase(test, pattern) and first <= sys.version_info[:2] <= last:
            return why
    return None
