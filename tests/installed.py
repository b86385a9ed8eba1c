"""What the children of test_install.py and test_libraries.py run, and the classes that they share with it."""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import os
from multiprocessing import queues
from pathlib import Path

import joinq

KINDS = ["Queue", "JoinableQueue", "SimpleQueue"]


class Counted(queues.Queue):
    """A program's own queue: the kind that is copied everywhere."""

    puts = 0

    def put(self, *args, **kwargs):
        """Put and count."""
        self.puts += 1
        super().put(*args, **kwargs)


class Bounded(queues.JoinableQueue):
    """Another one, which finds its context itself."""

    def __init__(self):
        super().__init__(3, ctx=multiprocessing.get_context("fork"))


class Ours(joinq.Queue):
    """A program's own queue, derived from ours."""


def kinds():
    """The kinds of queue that are ours when multiprocessing makes them."""
    return [kind for kind in KINDS if isinstance(getattr(multiprocessing, kind)(), getattr(joinq, kind))]


def make_queues(channel, queue):
    """Tell what is ours here and in a child of this process."""
    from joinq import _install

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    grandchild = context.Process(target=lambda: theirs.send(kinds()))
    multiprocessing.current_process()._config["daemon"] = False  # daemons may have no children
    grandchild.start()
    result = {
        "child": kinds(),
        "grandchild": ours.recv(),
        "on_death": _install._options and _install._options[0],
        "arrived": type(queue).__name__,
    }
    grandchild.join()
    return result


def look_at_parent(channel):
    """Tell whether the parent, a fork server, has our extension."""
    channel.send("_jnq" in Path(f"/proc/{os.getppid()}/maps").read_text())


def pass_on(channel, queue):
    """Tell whose a queue is, and what came through it."""
    channel.send((type(queue).__module__, queue.get()))


def take_and_wait(channel, queue):
    """Take a task and wait for the end."""
    queue.get()
    channel.send("taken")
    channel.recv()


# Of test_libraries.py -----------------------------------------------------------------------


def square(number):
    """A task."""
    return number * number


state = None


def initialize(value):
    """An initializer of a pool."""
    global state
    state = value


def initialized():
    """What the initializer has set."""
    return state


def die():
    """A task that ends its worker."""
    os._exit(1)


def log_to(channel, queue):
    """Log 50 messages to a queue."""
    logger = logging.getLogger("child")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.handlers.QueueHandler(queue))
    for number in range(50):
        logger.info("message %d", number)


def log_with(channel, logger):
    """Log 50 messages with loguru's logger."""
    for number in range(50):
        logger.info(f"m{number}")
    logger.complete()


class Squares:
    """A data set, as torch wants it."""

    def __len__(self):
        return 100

    def __getitem__(self, number):
        import torch

        return torch.tensor(number * number)
