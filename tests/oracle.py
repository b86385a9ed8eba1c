"""
What joinq's queues have to answer, in plain Python: what test_machine.py compares them with.

A call returns what the queue must return, or raises an exception of the type that the queue must raise. Nothing
waits: who would have to, gets Empty, Full or JoinTimeout.
"""

from __future__ import annotations

import math
import operator
import pickle
from collections import deque
from multiprocessing.reduction import ForkingPickler

import joinq


class Task:
    """An item on its way."""

    def __init__(self, number, data):
        self.number, self.data = number, data
        self.deaths = 0


class User:
    """What one process (or handle) has done with the queue."""

    def __init__(self, pid):
        self.pid = pid
        self.closed = self.has_put = False
        self.hand = []  # taken and not finished, by on_death="redeliver"
        self.takes = self.dones = 0
        self.letters_told = 0


def check_timeout(timeout):
    if timeout is not None and math.isnan(timeout):
        raise ValueError


class Oracle:
    """A queue; on_death is None if it has no tasks (Queue)."""

    def __init__(self, maxsize, on_death, max_deliveries):
        self.maxsize = max(int(maxsize), 0)
        self.on_death = on_death
        self.max_deliveries = max_deliveries
        self.items = deque()
        self.puts = 0
        self.unfinished_tasks = 0
        self.ended = self.cut = False
        self.graves = {}  # on_death="raise": tasks of the dead, by user
        self.foreign = False  # and whether somebody has finished another's
        self.letters = []
        self.redeliveries = 0

    def in_hand(self, user):
        return len(user.hand) or max(user.takes - user.dones, 0)

    # Items ------------------------------------------------------------------------------------

    def put(self, user, obj, block=True, timeout=None):
        self.check(user, block, timeout)
        data = bytes(ForkingPickler.dumps(obj))
        if self.ended:
            raise joinq.ShutDown
        if self.full(user):
            raise joinq.Full
        self.items.append(Task(self.puts, data))
        user.has_put = True
        self.puts += 1
        self.unfinished_tasks += 1

    def get(self, user, block=True, timeout=None):
        self.check(user, block, timeout)
        if not self.items:
            raise joinq.ShutDown if self.ended else joinq.Empty
        task = self.items.popleft()
        if self.on_death == "redeliver":
            user.hand.append(task)
        elif self.on_death == "raise":
            user.takes += 1
        return pickle.loads(task.data)

    def put_many(self, user, objs, block=True, timeout=None):
        self.check(user, block, timeout)
        put = 0
        try:
            for obj in objs:
                self.put(user, obj, False)
                put += 1
        except BaseException as error:
            error.items_put = put
            raise

    def get_many(self, user, n, most, block=True, timeout=None):
        """The queue, which may give fewer items than there are, has given n, or raised if that is None."""
        self.check(user, block, timeout)
        if not self.items or n == 1:
            return [self.get(user, block, timeout)]
        if n is not None:
            return [self.get(user) for _ in range(min(n, most, len(self.items)))]
        for index in range(min(most, len(self.items))):
            try:
                pickle.loads(self.items[index].data)
            except Exception:
                self.items.rotate(-index)
                try:
                    return [self.get(user)]
                finally:
                    self.items.rotate(index)
        raise AssertionError("no item fails")

    def put_nowait(self, user, obj):
        return self.put(user, obj, False)

    def get_nowait(self, user):
        return self.get(user, False)

    def qsize(self, user):
        return len(self.items)

    def empty(self, user):
        if user.closed and user.has_put:
            raise OSError
        return not self.items

    def full(self, user):
        return 0 < self.maxsize <= len(self.items)

    # Tasks ------------------------------------------------------------------------------------

    def task_done(self, user, n=1):
        n = operator.index(n)
        if not 1 <= n <= (len(user.hand) if self.on_death == "redeliver" else self.unfinished_tasks):
            raise ValueError
        del user.hand[:n]
        user.dones += n
        self.foreign |= self.on_death == "raise" and user.dones > user.takes
        self.unfinished_tasks -= n

    def finish(self, user, task):
        """The end of a task() block."""
        if self.on_death == "redeliver":
            user.hand.insert(0, user.hand.pop(user.hand.index(task)))  # ValueError if it is not there
        self.task_done(user)

    def join(self, user, timeout=None):
        check_timeout(timeout)
        if self.unfinished_tasks:
            raise joinq.LostTasks("") if self.lost() else joinq.JoinTimeout

    def lost(self):
        return sum(self.graves.values()) == self.unfinished_tasks > 0 and not self.foreign

    # The end ----------------------------------------------------------------------------------

    def close(self, user):
        user.closed = True

    def join_thread(self, user):
        assert user.closed

    def cancel_join_thread(self, user):
        pass

    def shutdown(self, user, immediate=False):
        self.ended = True
        if immediate:
            self.cut = True
            self.unfinished_tasks = max(self.unfinished_tasks - len(self.items), 0)
            self.items.clear()

    def leave(self, user, killed):
        """The user's process has ended, in order or not."""
        if self.on_death == "raise" and self.in_hand(user) and self.unfinished_tasks:
            self.foreign |= not killed
            self.graves[user] = self.in_hand(user)
        given_up = []
        for task in sorted(user.hand, key=lambda task: task.number, reverse=True):
            task.deaths += killed
            if self.cut:
                self.unfinished_tasks -= 1
            elif task.deaths >= self.max_deliveries and killed:
                self.unfinished_tasks -= 1
                given_up.insert(0, task)
            else:
                self.redeliveries += 1
                self.items.appendleft(task)
        self.letters += given_up

    def check(self, user, block, timeout):
        if user.closed:
            raise ValueError
        if block:
            check_timeout(timeout)
