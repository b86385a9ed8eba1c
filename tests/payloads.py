"""
What the tests send: items that show whether they arrived whole, and objects that misbehave while they are pickled.
"""

from __future__ import annotations

import _thread
import os
import pickle
import signal
import time
import zlib
from multiprocessing.reduction import ForkingPickler
from typing import NamedTuple

from probes import LIMIT

SIZES = (10, 1024, 100 * 1024)


class Item(NamedTuple):
    """One message: who made it, its number, its bytes and their checksum."""

    producer: int
    number: int
    payload: bytes
    checksum: int


def make_item(producer, number, sizes=SIZES):
    """Item ``number`` of ``producer``; the sizes take turns."""
    size = sizes[number % len(sizes)]
    text = b"%d/%d;" % (producer, number)
    payload = (text * (size // len(text) + 1))[:size]
    return Item(producer, number, payload, zlib.crc32(payload))


def check_item(item):
    """Fail unless the item is what its producer made."""
    assert isinstance(item, Item), item
    text = b"%d/%d;" % (item.producer, item.number)
    assert item.payload.startswith(text[: len(item.payload)]), item[:2]
    assert zlib.crc32(item.payload) == item.checksum, item[:2]
    return item


def check_every_item_once(taken, producers, count):
    """Fail unless the consumers' lists hold every item once, each producer's in order."""
    for numbers in taken:
        for producer in range(producers):
            mine = [number for who, number in numbers if who == producer]
            assert mine == sorted(mine), f"items of producer {producer} out of order"
    everything = sorted(item for numbers in taken for item in numbers)
    expected = [(who, number) for who in range(producers) for number in range(count)]
    assert everything == expected, set(expected) ^ set(everything)


def checksum(payload):
    return len(payload), zlib.crc32(payload)


class Point:
    """A class of the tests' own, to travel through a queue."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __eq__(self, other):
        return type(other) is Point and (other.x, other.y) == (self.x, self.y)

    __hash__ = None


def identity(value):
    return value


def fail(message):
    raise LookupError(message)


def interrupt():
    raise KeyboardInterrupt


class Signalling:
    """Trips SIGUSR2 when it is unpickled: its arrival is the last moment before signal handlers run again."""

    def __reduce__(self):
        return _thread.interrupt_main, (signal.SIGUSR2,)


interruptions = []
"""Signals that interrupt_once still has to raise."""


def interrupt_once(value, padding):
    if interruptions:
        signal.raise_signal(interruptions.pop())
    return value


def give_way(value):
    """Let other threads run."""
    time.sleep(0.0001)
    return value


kept = []
"""What an item leaves behind while it is unpickled."""


class Boxed:
    """Some buffers, which travel outside of the pickle; `then` fails or interrupts while they are unpickled."""

    def __init__(self, *buffers, then=""):
        self.buffers = list(buffers)
        self.then = then

    def __reduce_ex__(self, protocol):
        if protocol < 5:  # on its way to a puppet
            return Boxed, (*self.buffers,)
        return unbox, (self.then, *map(pickle.PickleBuffer, self.buffers))


def unbox(then, *buffers):
    if then:
        kept.extend(buffers)
    if then == "fail":
        fail("no way back")
    if then == "interrupt":
        interrupt_once(None, None)
    return Boxed(*map(memoryview, buffers))


def fork_and_check():
    """Fork; the parent keeps how its child ended, the child goes on unpickling."""
    fork_and_check.parent = os.getpid()
    pid = os.fork()
    if pid:
        kept.append(os.waitpid(pid, 0)[1])


inner = None
"""A queue for items that use one while they are pickled or unpickled."""


def get_inner(name, padding):
    return name, inner.get(timeout=LIMIT), len(padding)


class Pickled:
    """Pickles as a call of ``function``: made to fail, or to look on, while unpickling."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Pickling:
    """Calls ``function`` while it is pickled, and pickles as what that returns."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return identity, (self.function(*self.args),)


class Celsius:
    """Only multiprocessing's own pickler knows how to pickle one (see below)."""

    def __init__(self, degrees):
        self.degrees = degrees

    def __reduce__(self):
        raise TypeError("pickled without ForkingPickler's reducers")


def register_celsius():
    """What torch and friends do when they are imported."""
    ForkingPickler.register(Celsius, lambda thing: (Celsius, (thing.degrees,)))
