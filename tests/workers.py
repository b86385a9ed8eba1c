"""
What the tests' child processes run.

A module of its own, so that a child started with spawn or forkserver can import it. Every function that a child runs
takes the child's end of the pipe to the test first; what it returns is sent last.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import functools
import gc
import itertools
import logging
import multiprocessing
import os
import pickle
import queue as queue_module
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from typing import NamedTuple

from payloads import SIZES, Celsius, Item, check_item, checksum, make_item, register_celsius
from probes import LIMIT, descriptors, segments, state, thread_sleeps, wait_until

import joinq
from joinq import _native
from joinq._native import ffi, lib


class Failure(NamedTuple):
    """A child's last message when its function raised."""

    traceback: str


def main(channel, function, *args):
    """Run ``function`` in a child that shows its stacks on SIGUSR1 and cannot live for ever."""
    faulthandler.register(signal.SIGUSR1, file=2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(15 * LIMIT))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = function(channel, *args)
    except (Escape, Exit):
        raise
    except BaseException:
        result = Failure(traceback.format_exc())
    channel.send(result)


class Escape(BaseException):
    """What main() lets pass, to end the process with a traceback."""


class Exit(SystemExit):
    """What main() lets pass, to end the process."""


def puppet(channel, queue):
    """Do with ``queue`` what the test says, until it says None."""
    for name, args, kwargs in iter(channel.recv, None):
        channel.send("begun")
        try:
            attribute = getattr(queue, name)
            outcome = attribute(*args, **kwargs) if callable(attribute) else attribute
        except (Exception, KeyboardInterrupt) as error:
            channel.send((False, error))
        else:
            channel.send((True, outcome))


# Producers and consumers ------------------------------------------------------------------


def put_items(channel, queue, producer, count, sizes=SIZES):
    """Put ``count`` items and end."""
    for number in range(count):
        queue.put(make_item(producer, number, sizes))


@functools.lru_cache(maxsize=2)
def supply(producer):
    """Items made beforehand, and inherited by forked children, whose loops then spend their time in put()."""
    return [make_item(producer, number) for number in range(300)]


def put_forever(channel, queue, producer):
    """A producer that ends only by being killed."""
    for item in supply(producer):
        queue.put(item)
    for number in itertools.count(len(supply(producer))):
        queue.put(make_item(producer, number))


def put_again_and_again(channel, queue, items):
    """A producer of the same items, that ends only by being killed."""
    while True:
        for item in items:
            queue.put(item)


def put_on_demand(channel, queue, producer, sizes=SIZES):
    """Put as many more items as the test asks for, each time it asks."""
    number = 0
    for count in iter(channel.recv, None):
        for _ in range(count):
            queue.put(make_item(producer, number, sizes))
            number += 1


def put_value(channel, queue, value):
    queue.put(value)


def put_celsius(channel, queue, degrees):
    register_celsius()
    queue.put(Celsius(degrees))


def consume(channel, queue, threads=1):
    """Take items until None; return (producer, number) of each, by thread."""
    taken = [[] for _ in range(threads)]

    def loop(mine):
        for item in iter(queue.get, None):
            mine.append(check_item(item)[:2])
            queue.task_done()
        queue.task_done()

    run_threads([(loop, mine) for mine in taken])
    return taken


def consume_in_batches(channel, queue, most):
    """Take items until None, so many at a time, or singly by get(); return them."""
    taken = []
    while taken[-1:] != [None]:
        got = queue.get_many(most) if most > 1 else [queue.get()]
        rest = got[got.index(None) + 1 :] if None in got else []
        queue.put_many(rest)  # the others'
        taken += got[: len(got) - len(rest)]
        if hasattr(queue, "task_done"):
            queue.task_done(len(got))
    return taken[:-1]


def produce(channel, queue, producers, count, sizes=SIZES):
    """One thread per number in ``producers`` puts ``count`` items."""
    run_threads([(put_items, None, queue, one, count, sizes) for one in producers])


def get_forever(channel, queue):
    """A consumer that reports each item before it finishes it, and other values afterwards."""
    channel.send("ready")
    while True:
        value = queue.get()
        if isinstance(value, Item):
            channel.send(check_item(value)[:2])
            queue.task_done()
        else:
            queue.task_done()
            channel.send(value)
        if value is None:
            return


def get_one(channel, queue):
    return queue.get(timeout=LIMIT)


def get_checksum(channel, queue):
    return [checksum(queue.get(timeout=LIMIT)) for _ in range(2)]


def get_marks(channel, queue, places):
    """The type and the length of an item, and the bytes at some places."""
    item = queue.get(timeout=LIMIT)
    return type(item), len(item), bytes(item[place] for place in places)


def echo(channel, source, target):
    """Pass on whatever comes until None; return how many values came."""
    count = 0
    for value in iter(source.get, None):
        target.put(value)
        count += 1
    return count


def wait_for_a_queue_of_its_own(channel, tasks):
    """Take a task, and then wait for an item that nobody puts."""
    inner = joinq.Queue(name="inner")
    tasks.get()
    channel.send("taken")
    inner.get()


def take_and_join(channel, tasks, subtasks):
    tasks.get()
    subtasks.join()


def loop_over_tasks(channel, tasks):
    return list(tasks.tasks())


def die_in_a_loop_over_tasks(channel, tasks):
    for task in tasks.tasks():
        channel.send(task)
        signal.pause()


def tell_of_processes(channel, queue):
    queue.qsize()
    channel.recv()
    return joinq.processes()


def log_of_join(channel, queue):
    """What the logger says during a join() that fails."""
    texts = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())
    logging.getLogger("joinq").addHandler(handler)
    try:
        queue.join(LIMIT)
    except joinq.LostTasks:
        pass
    return texts


def square(channel, tasks, results):
    """The worker of every tutorial; return how many tasks it did."""
    done = 0
    for number in iter(tasks.get, None):
        results.put(number * number)
        tasks.task_done()
        done += 1
    tasks.task_done()
    return done


def square_until_shut_down(channel, tasks, results):
    """A worker that needs no sentinel; return how many tasks it did."""
    done = 0
    while True:
        try:
            number = tasks.get()
        except joinq.ShutDown:
            return done
        results.put(number * number)
        tasks.task_done()
        done += 1


def put_get_join(channel, queue, who, count):
    """Put one, take one, and now and then join; return (producer, number) of what was taken."""
    taken = []
    for number in range(count):
        queue.put(make_item(who, number))
        taken.append(check_item(queue.get())[:2])
        queue.task_done()
        if number % 10 == 0:
            queue.join()
    return taken


def talk(channel, queue):
    """Use a connection and a socket that come through the queue."""
    connection, socket = queue.get()
    with connection, socket:
        connection.send("by connection")
        socket.sendall(b"by socket")


def count_segments(channel, *queues):
    return len(segments())


# Signals ----------------------------------------------------------------------------------


def puppet_that_reports_signals(channel, queue):
    signal.signal(signal.SIGUSR2, lambda signum, frame: channel.send("handled"))
    puppet(channel, queue)


def puppet_with_handler(channel, queue, name, *args):
    """A puppet whose handler makes a call on the queue."""
    signal.signal(signal.SIGUSR2, lambda signum, frame: getattr(queue, name)(*args))
    puppet(channel, queue)


def time_in_a_storm(channel, queue, timeout, name, *args):
    """Make a call with a timeout while signals arrive; return its error, its time, their number."""
    signals = []
    signal.signal(signal.SIGALRM, lambda signum, frame: signals.append(signum))
    start = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.005)
    try:
        getattr(queue, name)(*args, timeout=timeout)
        error = None
    except Exception as raised:
        error = type(raised).__name__
    elapsed = time.monotonic() - start
    signal.setitimer(signal.ITIMER_REAL, 0)
    return error, elapsed, len(signals)


def signal_a_thread_while_blocked(channel, queue, blocked, release):
    """Block in the main thread while another one gets a signal whose handler releases it."""

    def handler(signum, frame):
        getattr(queue, release[0])(*release[1:])

    def signal_myself():
        wait_until(lambda: state(os.getpid()) == "S", "the main thread sleeps")
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)

    signal.signal(signal.SIGUSR2, handler)
    threading.Thread(target=signal_myself, daemon=True).start()
    return getattr(queue, blocked[0])(*blocked[1:])


# Threads, forks and generations -----------------------------------------------------------


def run_threads(calls):
    """Run each (function, *args) in a thread of its own; raise what the first one raised."""
    errors = []

    def guarded(function, *args):
        try:
            function(*args)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]


def move_one(source, target):
    target.put(source.get_nowait())


def release_from_a_thread(channel, queue, blocked, release):
    """Block in one thread; in the other compute a while, then make the releasing call."""
    outcome = []
    blocker = threading.Thread(target=lambda: outcome.append(getattr(queue, blocked[0])(*blocked[1:])), daemon=True)
    blocker.start()
    wait_until(lambda: thread_sleeps(blocker), "the thread is blocked")
    assert sum(range(100_000)) == 4_999_950_000
    getattr(queue, release[0])(*release[1:])
    blocker.join(LIMIT)
    return outcome[0]


@contextlib.contextmanager
def left_by_the_parent_alone():
    """A block in which children are forked, which end where it does: with exit code 0, or 1 if it raises there."""
    parent, status = os.getpid(), 1
    try:
        yield
        status = 0
    finally:
        if os.getpid() != parent:
            os._exit(status)


def fork(function):
    """Fork a child that runs a function and nothing else; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.alarm(int(LIMIT))
        function()
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)


def wait_for(pid):
    """The exit status of a forked child, or minus the signal that ended it."""
    status = os.waitpid(pid, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def fork_among_threads(channel, queue, count):
    """Fork children while threads put and get all the time; return how the children ended."""
    stop = threading.Event()

    def use():
        while not stop.is_set():
            queue.put(make_item(0, 0, (10,)))
            queue.put(make_item(0, 1, (50_000,)))
            for _ in range(2):
                check_item(queue.get(timeout=LIMIT))
                queue.task_done()

    def use_once():
        queue.put(make_item(1, 2))
        check_item(queue.get(timeout=LIMIT))
        queue.task_done()
        assert queue.qsize() >= 0

    threads = [threading.Thread(target=use, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    endings = [wait_for(fork(use_once)) for _ in range(count)]
    stop.set()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()
    queue.join()
    assert queue.qsize() == 0
    return endings


def fork_beside_a_blocked_thread(channel, queue, name):
    """Fork while a thread is blocked; let the child release it; return how the child ended."""
    call, release = {
        "get": (queue.get, lambda: queue.put("item", timeout=LIMIT)),
        "put": (lambda: queue.put("item"), lambda: queue.get(timeout=LIMIT)),
        "join": (queue.join, queue.task_done),
    }[name]
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    wait_until(lambda: thread_sleeps(thread), "the thread is blocked")
    ending = wait_for(fork(release))
    thread.join(LIMIT)
    assert not thread.is_alive()
    return ending


def grandparent(channel, queue, value):
    """Let a child of this process put the value; return the child's exit code."""
    child = multiprocessing.Process(target=put_value, args=(None, queue, value))
    child.start()
    child.join(LIMIT)
    return child.exitcode


def create_queue_for(channel, ends, method):
    """Make a queue, give it to one puppet per pipe end, and wait to be killed or told to go."""
    queue = joinq.JoinableQueue(2)
    ctx = multiprocessing.get_context(method)
    for end in ends:
        ctx.Process(target=main, args=(end, puppet, queue)).start()
    channel.send("done")
    channel.recv()
    os._exit(0)


class Named(joinq.JoinableQueue):
    """A subclass with an argument and an attribute of its own."""

    def __init__(self, name, **kwargs):
        super().__init__(**kwargs)
        self.name = name

    def shout(self):
        item = self.get()
        self.task_done()
        return f"GOT {item}"


# No memory --------------------------------------------------------------------------------


def refuse_memory():
    """
    Let the system refuse this process new pages of files, as it does when there are none left.

    A seccomp filter, which cannot be taken back. Returns whether this system can do that.
    """
    numbers = {"x86_64": (28, 285), "aarch64": (233, 47)}.get(os.uname().machine)
    if sys.byteorder != "little" or numbers is None:
        return False
    madvise, fallocate = numbers
    load, equal, answer = 0x20, 0x15, 0x06
    populate_write, allow, no_memory = 23, 0x7FFF0000, 0x00050000 | errno.ENOMEM
    program = b"".join(
        struct.pack("HBBI", code, if_true, if_false, value)
        for code, if_true, if_false, value in [
            (load, 0, 0, 0),  # the number of the system call
            (equal, 2, 0, madvise),
            (equal, 4, 0, fallocate),
            (answer, 0, 0, allow),
            (load, 0, 0, 32),  # madvise's advice
            (equal, 1, 0, populate_write),
            (answer, 0, 0, allow),
            (answer, 0, 0, no_memory),
        ]
    )
    code = ctypes.create_string_buffer(program)
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None)
    set_no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    return (
        libc.prctl(set_no_new_privileges, 1, 0, 0, 0) == 0 and libc.prctl(set_seccomp, filter_mode, header, 0, 0) == 0
    )


def puppet_without_memory(channel, queue):
    channel.send(refuse_memory())
    puppet(channel, queue)


def put_until_memory_error(channel, queue, size):
    """Put items until there is no memory for the next; return their number."""
    if not refuse_memory():
        return None
    number = 0
    while True:
        item = make_item(0, number, (size,))
        try:
            queue.put(item)
        except MemoryError:
            return number
        number += 1


def give_back_without_memory(channel, queue, take):
    """Put until there is no memory, and interrupt some gets; return how many were put, and what is got afterwards."""
    if not refuse_memory():
        return None
    put = 0
    with contextlib.suppress(MemoryError):
        while True:
            queue.put(InterruptOnce(put))
            put += 1
    for _ in range(5):
        with contextlib.suppress(KeyboardInterrupt):
            take(queue)
    InterruptOnce.armed = False
    got = []
    for _ in range(put):
        got.append(queue.get(timeout=LIMIT).load)
        queue.task_done()
    queue.join(0)
    return put, got


def take_one(queue):
    return [queue.get_nowait()]


def take_some(queue):
    return queue.get_many(3, block=False)


def take_beside_refused_puts(channel, queue, fragments):
    """Take items of a queue whose free memory is in pieces, while puts are refused; return what was got, or None."""
    taken = []
    for _ in range(2 * fragments):
        queue.put(bytes(20_000))
        taken.append(queue.task())
        taken[-1].__enter__()
    for task in taken[::2]:
        task.__exit__()
    queue.put_many(range(6))
    if not refuse_memory():
        return None
    got = []
    for _ in range(6):
        with queue.task(False) as item:
            got.append(item)
            with contextlib.suppress(MemoryError):
                queue.put(bytes(50 << 20))
        with contextlib.suppress(MemoryError):
            queue.put(bytes(50 << 20))
    return got


def create_without_memory(channel):
    """Try to make a queue; return what that raised, and the file descriptors it left open."""
    if not refuse_memory():
        return None
    before = descriptors()
    try:
        joinq.JoinableQueue()
    except Exception as error:
        return type(error).__name__, descriptors().keys() - before.keys()
    return "nothing", None


# Fresh interpreters -----------------------------------------------------------------------


def run_script(script, *options):
    """Run Python source in a fresh interpreter that can import this module."""
    return subprocess.run(
        [sys.executable, *options, "-W", "error", "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def start_script(script):
    """The same, without waiting for its end."""
    return subprocess.Popen([sys.executable, "-W", "error", "-c", script], env=environment(), stdout=subprocess.PIPE)


def environment():
    """In which this module can be imported."""
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": path}


# Queues under way -----------------------------------------------------------------------------


def send_a_queue(channel, make, through, end):
    """Make a queue, send it away (through None: to the test), drop it, and end in some way."""
    (channel.send if through is None else through.put)(make())
    gc.collect()
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdout.flush()
    if end == "exit":
        os._exit(7)
    raise Exit(0)


def let_a_child_send(channel, method, make, through):
    """Start a child that sends a queue, and be killed while it waits for that."""
    ctx = multiprocessing.get_context(method)
    ctx.Process(target=send_after_parent, args=(os.getpid(), make, through)).start()
    signal.pause()


def send_after_parent(parent, make, through):
    """Kill the parent, then send a queue and end."""
    os.kill(parent, signal.SIGKILL)
    wait_dead(parent)
    through.put(make())


def wait_dead(pid):
    """Wait until a process is gone, or nothing but its exit code is left."""
    wait_until(lambda: state(pid) in "ZX", f"process {pid} is dead")


def hold_pickle(channel, data):
    """Load a queue and keep it until told to end."""
    q = pickle.loads(data)
    channel.send("attached")
    channel.recv()
    return q is None


def puppet_that_keeps(channel, queue):
    """A puppet that does not send back what it gets."""
    kept = []
    for name, args, kwargs in iter(channel.recv, None):
        channel.send("begun")
        kept.append(getattr(queue, name)(*args, **kwargs))
        channel.send((True, None))


def orphan(channel, check, path):
    """Receive a queue when the parent is dead, and write what check() says of it."""
    channel.send("ready")
    multiprocessing.parent_process().join()
    with open(path, "w") as result:
        result.write(str(check(channel.recv())))


def load_and_call(channel, data, function):
    """What the function says of a pickled object."""
    return function(pickle.loads(data))


def pickle_for_another(channel, make):
    """Send the pickle of a queue, and keep the queue until told."""
    q = make()
    channel.send(pickle.dumps(q))
    channel.recv()
    return q is None


def echo_queues(channel):
    """Send each queue back, without keeping it."""
    for thing in iter(channel.recv, None):
        if thing == "descriptors":
            gc.collect()
            thing = len(descriptors())
        channel.send(thing)
        del thing


def address_of_keeper(channel, queue):
    """By which keeper this process sends."""
    from joinq import _transit

    pickle.loads(pickle.dumps(queue))
    return _transit._lines["ours"].keeper


_argument = None


def keep_argument(argument):
    """Initialize a pool's worker."""
    global _argument
    _argument = argument


def put_argument(item):
    """Put into the queue that the initializer was given."""
    _argument.put(item)
    return True


# Deaths ------------------------------------------------------------------------------------


def take_and_end(channel, queue, count, how):
    """Take tasks, say so, and end as told: by a signal, by os._exit(), with an exception, or in order."""
    for _ in range(count):
        queue.get()
    channel.send("taken")
    if how == "exception":
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, the process ends with it
        raise Escape
    if how == "sys.exit(3)":
        raise Exit(3)
    if how == "os._exit(0)":
        os._exit(0)
    if how != "in order":
        os.kill(os.getpid(), signal.Signals[how])
    return "ended"


def leave_to_a_thread(channel, queue):
    """Return, and leave a thread behind that has a task in hand."""

    def run():
        queue.get()
        channel.send("taken")
        threading.Event().wait()

    threading.Thread(target=run).start()
    return "returned"


def join_and_report(channel, queue, timeout):
    """Join, in a process that is not the parent of the others."""
    try:
        queue.join(timeout)
    except Exception as error:
        return error
    return "joined"


def take_in_threads(channel, queue):
    """Two threads take two tasks each and finish the other way round: what is left unfinished in between."""
    taken, go = queue_module.SimpleQueue(), [threading.Event(), threading.Event()]
    seen = []

    def run(index):
        taken.put((index, [queue.get(), queue.get()]))
        go[index].wait()
        queue.task_done()
        queue.task_done()
        try:
            queue.task_done()
        except ValueError:
            taken.put("refused")

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(2)]
    for thread in threads:
        thread.start()
    for _ in threads:
        taken.get(timeout=LIMIT)
    for index in (1, 0):
        go[index].set()
        assert taken.get(timeout=LIMIT) == "refused"
        threads[index].join()
        seen.append(queue.unfinished_tasks)
    return seen


def finish_in_forked_child(channel, queue):
    """Take a task; a forked child cannot finish it, the parent can."""
    queue.get()

    def child():
        try:
            queue.task_done()
        except ValueError:
            os._exit(7)

    code = wait_for(fork(child))
    queue.task_done()
    return code


def drop_queue(channel, queue):
    """Take a task, give up the queue as the garbage collector would, and live on."""
    queue.get()
    channel.send("taken")
    assert channel.recv() == "drop"
    del _native._handles[_native._identity(lib.jnq_fileno(queue._handle))]  # the collector would, too
    ffi.release(queue._handle)
    channel.send("dropped")
    assert channel.recv() is None


class InterruptOnce:
    """Raises what Ctrl-C does when it is unpickled, while it is armed."""

    armed = True

    def __init__(self, load=""):
        self.load = load

    def __setstate__(self, state):
        self.__dict__.update(state)
        if InterruptOnce.armed:
            raise KeyboardInterrupt


class Unloadable:
    """Cannot be unpickled."""

    def __reduce__(self):
        return (divmod, (1, 0))


# Ends and pools ---------------------------------------------------------------------------


def squared(number):
    """For pools."""
    return number * number


def nap_and_tell(seconds):
    """For pools: so that all workers get something to do."""
    time.sleep(seconds)
    return os.getpid()


def die(*ignored):
    """For pools."""
    os.kill(os.getpid(), signal.SIGKILL)


def read_to_the_end(channel, queue):
    """Close the writing end, and take items until there is no other."""
    queue._writer.close()
    channel.send("ready")
    items = []
    try:
        while True:
            items.append(queue.get())
    except EOFError:
        return items


def receive_to_the_end(channel, end):
    """Take items from a reading end until there is no other."""
    items = []
    try:
        while True:
            items.append(end.recv())
    except EOFError:
        return items


def receive(channel, end, items):
    """Take items from a reading end."""
    return [end.recv() for _ in range(items)]


def transmit(channel, end, items):
    """Put items into a writing end."""
    for item in items:
        end.send(item)


def keep_pool(channel, method):
    """Have a pool, tell the pids of its workers, and wait."""
    with joinq.get_context(method).Pool(3) as pool:
        pids = set()
        while len(pids) < 3:
            pids.update(pool.map(nap_and_tell, [0.01] * 12, chunksize=1))
        channel.send(pids)
        channel.recv()


def identity(channel, queue):
    """What an inherited queue says of its origin."""
    return queue._opid, queue._maxsize


def polls(channel, queue):
    """Wait in poll(2) for an item, and take it."""
    poll = select.poll()
    poll.register(queue.fileno(), select.POLLIN)
    channel.send("ready")
    poll.poll()
    return queue.get()


def name_of(channel, q):
    return q.name


def put_numbers(channel, q, n):
    for number in range(n):
        q.put(number)


def finish_numbers(channel, q, n):
    for _ in range(n):
        q.get()
        q.task_done()


def hide_descriptor(channel, q):
    """Close the queue's descriptor, as programs do that close all they do not know."""
    q.qsize()
    os.close(lib.jnq_fileno(q._handle))
    channel.send("hidden")
    channel.recv()


def rename_and_use(channel, q, name):
    """Use the queue for the first time under this name."""
    multiprocessing.current_process().name = name
    _native._introduce()
    q.put(1)
    channel.send("used")
    channel.recv()
