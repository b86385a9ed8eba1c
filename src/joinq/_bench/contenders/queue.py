"""`multiprocessing.Queue`: as the stdlib's JoinableQueue, without the count of tasks."""

from __future__ import annotations

import multiprocessing

from joinq._bench.contenders import EVERYTHING, Demand
from joinq._bench.contenders.stdlib import Stdlib

label = "mp.Queue"
package = ""
can = EVERYTHING


def make(demand: Demand) -> Stdlib:
    """Create a queue for processes of the default start method."""
    return Stdlib(multiprocessing.Queue(demand.maxsize))
