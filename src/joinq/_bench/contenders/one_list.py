"""joinq again, but a batch is put as one list, which is one item: what `put_many` and `get_many` can hardly beat."""

from __future__ import annotations

import joinq
from joinq._bench.contenders import BATCHES, OBJECT, Demand, Native

label = "joinq, as one list"
package = "joinq"
can = frozenset({OBJECT, BATCHES})


def make(demand: Demand) -> Native:
    """Create a queue."""
    return Native(joinq.JoinableQueue(demand.maxsize))
