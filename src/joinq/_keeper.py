"""The keeper: a process that holds the queues that are under way, so that they outlive their senders.

Run by _transit.py as a script of its own: it imports nothing of joinq, and nothing of the program's. It is nobody's
child, no signal from a terminal reaches it, and it has no descriptor of the program but those that it was sent.

Each connection is a Unix socket that keeps messages apart. A process of the program has one for as long as it lives,
and its forked children share it. _transit.py says when it says what.

It ends when no connection is left and no queue is under way, or nobody who could receive one: of the processes that
are not connected, those that it was told to watch.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import socket
import struct
import sys
import time

# What is said: a word, the queue, and the ticket.
MESSAGE = struct.Struct("=cQQ")
KEEP = b"K"  # with the queue's descriptor: it is under way with that ticket
ARRIVED = b"A"  # the receiver has it
GIVE = b"G"  # answered with HERE and the queue's descriptor, or with NOT_HERE
WATCH = b"W"  # with a descriptor that hangs up when that process dies, or then has the events in place of a ticket
HERE = b"+"
NOT_HERE = b"-"

# Who never receives anything must cost no more than that: so many tickets of a queue are told apart. If there are
# more, it is kept to the end.
TICKETS_MAX = 10_000

# More than a socket can hold: whoever never stops talking must not keep the others waiting.
AT_A_TIME = 1000


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


class Kept:
    """A queue that is under way."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.tickets: set[int] = set()
        self.overflown = False


class Keeper:
    """What the process knows, and its life."""

    def __init__(self, listener: socket.socket, connection: socket.socket) -> None:
        self.kept: dict[int, Kept] = {}
        self.connections: dict[int, socket.socket] = {}
        self.watched: set[int] = set()
        self.poll = select.poll()
        self.listener = listener
        listener.setblocking(False)
        self.poll.register(listener, select.POLLIN)
        self.connect(connection)

    def connect(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connections[connection.fileno()] = connection
        self.poll.register(connection, select.POLLIN)

    def disconnect(self, connection: socket.socket) -> None:
        self.poll.unregister(connection)
        del self.connections[connection.fileno()]
        connection.close()

    def live(self) -> None:
        while self.connections or (self.kept and self.watched):
            for fd, _ in self.poll.poll():
                if fd in self.watched:
                    self.poll.unregister(fd)
                    self.watched.remove(fd)
                    os.close(fd)
            requests = self.listen()
            while requests:
                # What was said before a request, perhaps on another connection, counts before it does.
                later = self.listen()
                for request in requests:
                    self.answer(*request)
                requests = later

    def listen(self) -> list[tuple[socket.socket, bytes, int, int]]:
        """Hears all that was said so far; gives what is to be answered."""
        self.accept()
        requests = []
        for connection in list(self.connections.values()):
            for _ in range(AT_A_TIME):
                try:
                    data, fds, _, _ = socket.recv_fds(connection, MESSAGE.size, 1, socket.MSG_CMSG_CLOEXEC)
                except BlockingIOError:
                    break
                except OSError:  # the other end has died with our answer unread
                    data, fds = b"", []
                if len(data) != MESSAGE.size:  # the end, or nobody of ours
                    self.disconnect(connection)
                    for fd in fds:
                        os.close(fd)
                    break
                word, queue, ticket = MESSAGE.unpack(data)
                if word == KEEP and fds:
                    self.keep(queue, ticket, fds[0])
                elif word == WATCH and fds:
                    self.watched.add(fds[0])
                    self.poll.register(fds[0], ticket)
                else:
                    requests.append((connection, word, queue, ticket))
        return requests

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptor left for them
                time.sleep(0.1)
                return
            if peer_uid(connection) == os.geteuid():
                self.connect(connection)
            else:
                connection.close()

    def keep(self, queue: int, ticket: int, fd: int) -> None:
        kept = self.kept.setdefault(queue, Kept(fd))
        if kept.fd != fd:
            os.close(fd)
        if len(kept.tickets) < TICKETS_MAX:
            kept.tickets.add(ticket)
        else:
            kept.overflown = True

    def answer(self, connection: socket.socket, word: bytes, queue: int, ticket: int) -> None:
        kept = self.kept.get(queue)
        if word == ARRIVED and kept:
            kept.tickets.discard(ticket)
            if not kept.tickets and not kept.overflown:
                os.close(self.kept.pop(queue).fd)
        elif word == GIVE:
            try:
                if kept:
                    socket.send_fds(connection, [HERE], [kept.fd])
                else:
                    connection.send(NOT_HERE)
            except OSError:  # who asked is gone
                pass


def main(listener: int, connection: int) -> None:
    """Becomes the keeper, in a process that nobody waits for; this one ends when it is there."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.setsid()
    os.chdir("/")
    # A program that has closed its standard streams may have given us the sockets in their place.
    sockets = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in (listener, connection)]
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for fd in {null, listener, connection} - {0, 1, 2}:
        os.close(fd)
    if os.fork():
        os._exit(0)
    Keeper(*(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd) for fd in sockets)).live()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
