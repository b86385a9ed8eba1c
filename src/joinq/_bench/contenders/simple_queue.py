"""`multiprocessing.SimpleQueue`: a pipe and two locks; holds what fits into the pipe."""

from __future__ import annotations

import multiprocessing

from joinq._bench.contenders import ARRAY, BACKLOG, BATCHES, BYTES, EVERYTHING, OBJECT, Demand, Native

label = "SimpleQueue"
package = ""
can = EVERYTHING - {BACKLOG, BATCHES} | {OBJECT, BYTES, ARRAY}


def make(demand: Demand) -> Native:
    """Create a queue for processes of the default start method."""
    return Native(multiprocessing.SimpleQueue())
