"""`multiprocessing.JoinableQueue`: a pipe, two locks, three semaphores and a feeder thread."""

from __future__ import annotations

import multiprocessing

from joinq._bench.contenders import EVERYTHING, IN_PLACE, Demand, Native

label = "stdlib"
package = ""
can = EVERYTHING | {IN_PLACE}


class Stdlib(Native):
    """A queue with a feeder thread."""

    def close(self) -> None:
        """End the feeder thread, so that it cannot compete with what is measured next."""
        self.inner.close()
        self.inner.join_thread()


def make(demand: Demand) -> Stdlib:
    """Create a queue for processes of the default start method."""
    return Stdlib(multiprocessing.JoinableQueue(demand.maxsize))
