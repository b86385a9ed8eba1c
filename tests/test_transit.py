"""
A queue under way: through pipes, queues, pools and managers, while senders, receivers and the keeper die.

What a test runs in a process of its own is in START, or in workers.py.
"""

from __future__ import annotations

import gc
import os
import pickle
import re
import signal
import socket
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.reduction import ForkingPickler

import payloads
import probes
import pytest
import workers
from payloads import Pickled
from probes import LIMIT

import joinq
from joinq import _keeper, _transit

KINDS = ["JoinableQueue", "Queue", "SimpleQueue"]


def filled(kind="JoinableQueue", **options):
    """A queue with three items, one of them large; one of its tasks was taken."""
    q = getattr(joinq, kind)(**options)
    for item in ("taken", 1, "two", b"x" * 100_000):
        q.put(item)
    assert q.get() == "taken"
    return q


def check(q):
    """It is what filled() made."""
    if hasattr(q, "join"):
        assert q.unfinished_tasks == 4
        q.task_done()
    assert [q.get() for _ in range(3)] == [1, "two", b"x" * 100_000]
    assert q.empty()
    if hasattr(q, "join"):
        q.task_done(3)
        q.join(0)
        with pytest.raises(ValueError, match="too many"):
            q.task_done()
    return True


def keeper():
    """The pid of this process's keeper."""
    return probes.keeper_of(_transit._lines["ours"].keeper)


def kept():
    """How many queues the keeper has, when it has heard what this process has said."""
    line = _transit._lines["ours"]
    with _transit._connect(line.keeper) as connection:
        _transit._ask(connection, 0)
    return len(probes.segment_inodes(keeper()))


def dropped(q):
    """The pickle of a queue that is gone from this process."""
    data = pickle.dumps(q)
    del q
    gc.collect()
    return data


# Pickling ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_queue_outlives_its_object_in_its_pickle(kind, protocol):
    """What was pickled is the same queue, also when nobody had it any more."""
    data = pickle.dumps(filled(kind), protocol)
    gc.collect()
    q = pickle.loads(data)
    assert type(q) is getattr(joinq, kind)
    assert check(q)


@pytest.mark.parametrize("dumps", [pickle.dumps, ForkingPickler.dumps])
def test_pickle_may_be_loaded_again_while_somebody_has_the_queue(dumps):
    """The same queue in the same process is one queue, whether the sender has it or only a receiver."""
    q = joinq.Queue()
    data = bytes(dumps(q))
    first, second = pickle.loads(data), pickle.loads(data)
    first.put(1)
    assert (second.get(), q.empty()) == (1, True)
    del q, first
    gc.collect()
    third = pickle.loads(data)
    third.put(2)
    assert second.get() == 2


def test_state_travels():
    """maxsize and on_death arrive."""
    q = pickle.loads(dropped(joinq.JoinableQueue(2, on_death="redeliver")))
    q.put(1)
    q.put(2)
    assert (q.full(), q._maxsize) == (True, 2)
    with pytest.raises(joinq.Full):
        q.put_nowait(3)
    with q.task() as item:
        assert item == 1
    assert q.unfinished_tasks == 1


def test_queue_that_nobody_has_is_gone():
    """Once it was received and dropped, a further pickle of it is an error that says so."""
    data = dropped(joinq.Queue())
    pickle.loads(data)
    gc.collect()
    with pytest.raises(FileNotFoundError, match="no process has it"):
        pickle.loads(data)


def test_other_queue_in_a_file_of_the_same_number_is_not_mistaken():
    """Numbers of files come again; then the queue that was sent is gone."""
    q, other = joinq.Queue(), joinq.Queue()
    assert _transit.lib.jnq_id(q._handle) != _transit.lib.jnq_id(other._handle)
    earlier = _transit.pack(q._handle)._replace(queue=_transit.lib.jnq_id(other._handle))
    with pytest.raises(FileNotFoundError, match="gone"):
        _transit.unpack(earlier)
    del q
    gc.collect()
    assert kept() > 0  # the file is there
    with pytest.raises(FileNotFoundError, match="gone"):
        _transit.unpack(earlier)


def test_queue_whose_descriptor_the_program_closed_cannot_be_sent():
    """The error says so, and a descriptor that has the number now is not taken for it."""
    q = joinq.Queue()
    fd = _transit.lib.jnq_fileno(q._handle)
    os.dup2(0, fd)
    with pytest.raises(OSError, match="closed the file descriptor"):
        pickle.dumps(q)
    os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_other_users_get_a_clear_error():
    """A process of another user is told why it cannot have the queue."""
    q = joinq.Queue()
    data = pickle.dumps(q)
    child = os.fork()
    if not child:
        os.setuid(65534)
        joinq._native._handles.clear()
        try:
            pickle.loads(data)
        except PermissionError as error:
            os._exit("same user" in str(error))
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


# Ways -------------------------------------------------------------------------------------


def test_pipes_and_queues(ctx):
    """Through a pipe, the stdlib's queues, and ours; the sender drops it at once."""
    here, there = ctx.Pipe()
    with here, there:
        here.send(filled())
        gc.collect()
        assert check(there.recv())
    ways = [
        joinq.JoinableQueue(),
        joinq.Queue(),
        joinq.SimpleQueue(),
        ctx.Queue(),
        ctx.JoinableQueue(),
        ctx.SimpleQueue(),
    ]
    for way in ways:
        way.put({"key": filled()})
        gc.collect()
        assert check(way.get()["key"])
    for way in ways[3:5]:
        way.close()
        way.join_thread()


def test_queue_in_itself():
    """A queue can be an item of itself."""
    q = filled()
    q.put(q)
    data = dropped(q)
    del q
    gc.collect()
    q = pickle.loads(data)
    assert [q.get() for _ in range(3)] == [1, "two", b"x" * 100_000]
    again = q.get()
    again.put("back")
    assert q.get() == "back"


def test_manager(ctx):
    """In a manager's list and dict, from which others take it."""
    with ctx.Manager() as manager:
        items, table = manager.list([filled()]), manager.dict()
        gc.collect()
        table["key"] = items.pop()
        assert check(table.pop("key"))


@pytest.mark.parametrize("kind", KINDS)
def test_pool(ctx, kind):
    """As an argument, as a result, and for the initializer."""
    q = joinq.Queue()
    with ctx.Pool(2, workers.keep_argument, (q,)) as pool:
        assert pool.apply(check, (filled(kind),))
        assert check(pool.apply(filled, (kind,)))
        assert all(pool.map(workers.put_argument, range(10)))
        assert sorted(q.get(timeout=LIMIT) for _ in range(10)) == list(range(10))
        pool.close()
        pool.join()


def test_executor(ctx):
    """As an argument and as a result of submit()."""
    with ProcessPoolExecutor(2, ctx) as executor:
        assert executor.submit(check, filled()).result(LIMIT)
        assert check(executor.submit(filled).result(LIMIT))


# Deaths of senders and receivers ----------------------------------------------------------------


@pytest.mark.parametrize("end", ["return", "exit", "kill"])
@pytest.mark.parametrize("way", ["pipe", "ours", "stdlib"])
def test_sender_ends_right_after_it_has_sent(ctx, launch, way, end):
    """The queue arrives with its items and its count, however its only owner has ended, before it is received."""
    through = {"pipe": None, "ours": joinq.Queue(), "stdlib": ctx.SimpleQueue()}[way]
    child = launch(workers.send_a_queue, filled, through, end)
    child.process.join(LIMIT)
    assert child.process.exitcode == {"return": 0, "exit": 7, "kill": -signal.SIGKILL}[end]
    q = through.get() if through else child.channel.recv()
    assert check(q)


def test_grandchild_sends_past_its_dead_parent(ctx, launch):
    """A sender's parent may be dead, too."""
    through = joinq.Queue()
    child = launch(workers.let_a_child_send, ctx.get_start_method(), filled, through, daemon=False)
    child.process.join(LIMIT)
    assert child.process.exitcode == -signal.SIGKILL
    assert check(through.get(timeout=LIMIT))


def test_receiver_killed_before_it_has_attached(launch):
    """The message can be handed to another one."""
    data = dropped(filled())
    child = launch(workers.puppet, None)
    child.send(data)
    child.kill()
    assert check(pickle.loads(data))


def test_receiver_killed_after_it_has_attached(launch):
    """Then the queue ends with it, if it was the only one, and the keeper has nothing left."""
    before = kept_or_none()
    data = dropped(filled())
    child = launch(workers.hold_pickle, data)
    assert child.receive() == "attached"
    assert kept() == before
    again = pickle.loads(data)  # of the child
    del again
    gc.collect()
    child.kill()
    with pytest.raises(FileNotFoundError, match="gone"):
        pickle.loads(data)


def test_who_only_looks_at_a_queue_does_not_keep_it(launch):
    """As `top` does: then it ends with the last one who has it."""
    data = dropped(filled())
    child = launch(workers.hold_pickle, data)
    assert child.receive() == "attached"
    others = probes.segments()
    again = pickle.loads(data)
    (fd,) = probes.segments() - others
    look = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    try:
        del again
        gc.collect()
        child.kill()
        with pytest.raises(FileNotFoundError, match="gone"):
            pickle.loads(data)
    finally:
        os.close(look)


def kept_or_none():
    pickle.loads(pickle.dumps(joinq.Queue()))
    gc.collect()
    return kept()


def test_redelivered_queue_is_still_there(launch):
    """A task that holds a queue is taken by one that dies of it, and redelivered: the queue is still there."""
    tasks = joinq.JoinableQueue(on_death="redeliver")
    tasks.put(filled())
    gc.collect()
    child = launch(workers.puppet_that_keeps, tasks)
    assert child.call("get") is None
    child.kill()
    before = kept()
    with tasks.task(timeout=LIMIT) as q:
        assert check(q)
        assert kept() == before
    assert kept() == before - 1


def take_a_batch_that_fails(outer):
    """In a function of its own, so that nothing of the exception is left."""
    with pytest.raises(LookupError):
        outer.get_many(9)


def take_what_is_interrupted(outer):
    payloads.interruptions.append(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        outer.get_many(9)


def get_and_fail():
    payloads.inner.get(False)
    payloads.fail("no way")


GONE_BACK = {
    "an item after it fails": ([Pickled(payloads.fail, "no way")], take_a_batch_that_fails),
    "an item after it is interrupted": ([Pickled(payloads.interrupt_once, 1, "")], take_what_is_interrupted),
    "an item that takes one from another queue fails": ([Pickled(get_and_fail)], take_a_batch_that_fails),
}


@pytest.mark.parametrize(("others", "take"), GONE_BACK.values(), ids=GONE_BACK)
def test_queue_that_goes_back_is_still_there(others, take):
    """A queue that only a message has is unpickled, and goes back with what it came with: it is under way again."""
    outer = joinq.Queue()
    payloads.inner = joinq.Queue()
    payloads.inner.put(joinq.Queue())
    before = kept()
    outer.put_many([filled(), *others])
    gc.collect()
    take(outer)
    gc.collect()
    assert check(outer.get())
    assert kept() == before
    payloads.inner = None


def test_queue_in_an_item_that_is_interrupted_is_still_there():
    """The item goes back, although the queue in it was unpickled."""
    outer = joinq.Queue()
    outer.put([filled(), Pickled(payloads.interrupt_once, 1, "")])
    gc.collect()
    before = kept()
    take_what_is_interrupted(outer)
    gc.collect()
    assert kept() == before
    assert check(outer.get()[0])
    assert kept() == before - 1


def test_queue_in_a_dead_letter_is_still_there(launch):
    """A task that was given up can be looked at again and again."""
    tasks = joinq.JoinableQueue(on_death="redeliver", max_deliveries=1)
    tasks.put(filled())
    gc.collect()
    child = launch(workers.puppet_that_keeps, tasks)
    child.call("get")
    child.kill()
    with pytest.warns(joinq.DeadLetterWarning):
        tasks.join(LIMIT)
    (letter,) = tasks.dead_letters()
    assert letter.item.qsize() == 3
    gc.collect()
    assert check(letter.item)


# The keeper ------------------------------------------------------------------------------------

START = """
import gc, os, pickle, signal, sys, threading
import joinq, probes, test_transit, workers
from joinq import _transit
from test_transit import check, dropped, filled, keeper, kept
"""


def run(script):
    """Run a script after START; it must end well and say nothing on stderr."""
    done = workers.run_script(START + script)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_keeper_holds_nothing_of_the_program():
    """It is nobody's child, of a session of its own, without the program's descriptors, deaf to Ctrl-C."""
    run(
        """
import resource
from pathlib import Path
others = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
data = dropped(filled())
pid = keeper()
stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
assert int(stat[1]) != os.getpid(), "it is our child"
assert os.getsid(pid) != os.getsid(0)
assert kept() == 1  # it has read what it was sent
links = sorted(os.readlink(f"/proc/{pid}/fd/{fd}").split(":")[0] for fd in os.listdir(f"/proc/{pid}/fd"))
assert [link for link in links if link != "socket"] == ["/dev/null"] * 3 + ["/memfd"], links
assert os.readlink(f"/proc/{pid}/cwd") == "/"
soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
assert soft == hard
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    os.kill(pid, number)
assert kept() == 1
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    pass
else:
    sys.exit("we have a child")
assert check(pickle.loads(data))
assert kept() == 0
"""
    )


@pytest.mark.parametrize("last", ["pass", "os._exit(0)", "os.kill(os.getpid(), 9)"])
@pytest.mark.parametrize("received", [False, True])
def test_keeper_ends_with_the_program(ctx, last, received):
    """Whether the program ends in order or not, with queues under way or not, in children or not: nothing is left."""
    done = workers.run_script(
        START
        + f"""
import multiprocessing
if __name__ == "__main__":
    through = joinq.Queue()
    ctx = multiprocessing.get_context({ctx.get_start_method()!r})
    child = ctx.Process(target=workers.send_a_queue, args=(None, filled, through, "return"))
    child.start()
    child.join()
    data = [dropped(filled()), through.get]
    if {received}:
        pickle.loads(data[0])
        data[1]()
    print(keeper(), flush=True)
    {last}
"""
    )
    assert (done.stderr, len(done.stdout.split())) == ("", 1)
    workers.wait_dead(int(done.stdout))


def test_child_receives_what_its_killed_parent_sent(ctx, tmp_path):
    """A child that was there before the first sending is enough for what is under way to be kept."""
    result = tmp_path / "result"
    os.mkfifo(result)
    script = f"""
import multiprocessing
if __name__ == "__main__":
    here, there = multiprocessing.get_context({ctx.get_start_method()!r}).Pipe()
    child = multiprocessing.get_context({ctx.get_start_method()!r}).Process(
        target=workers.orphan, args=(there, check, {str(result)!r})
    )
    child.start()
    assert here.recv() == "ready"
    here.send(filled())
    gc.collect()
    print(keeper(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    program = workers.start_script(START + script)
    assert result.read_text() == "True"
    with program:
        assert program.wait(LIMIT) == -signal.SIGKILL
        pid = int(program.stdout.readline())
    workers.wait_dead(pid)


@pytest.mark.parametrize("sender", ["parent", "sibling"])
def test_process_of_fork_receives_what_another_sent_that_is_gone(sender):
    """multiprocessing knows nothing of who is forked by os.fork(); it is enough for what is under way all the same."""
    out = run(
        f"""
import multiprocessing
there, here = multiprocessing.Pipe(False)
pids, told = os.pipe()
receiver = os.fork()
if not receiver:
    pid, sender = map(int, os.read(pids, 100).split())
    workers.wait_dead(sender)
    probes.wait_until(lambda: not probes.runs(pid), "the keeper has heard of it")
    print(check(there.recv()), flush=True)
    os._exit(0)
sender = os.fork() if {sender == "sibling"} else 0
if not sender:
    here.send(filled())
    gc.collect()
    os.write(told, f"{{keeper()}} {{os.getpid()}}".encode())
    os._exit(0)
os.waitpid(receiver, 0)
os.waitpid(sender, 0)
"""
    )
    assert out == "True\n"


def test_next_sending_replaces_a_killed_keeper(launch):
    """What it held is found with its sender; what is sent next has a new keeper."""
    q = filled()
    data = pickle.dumps(q)
    first = keeper()
    os.kill(first, signal.SIGKILL)
    workers.wait_dead(first)
    child = launch(workers.load_and_call, data, check)
    assert child.result() is True
    assert check(pickle.loads(dropped(filled())))
    assert keeper() != first


def test_process_without_descriptors_left_loses_nothing():
    """It can neither send nor say what it has received; what is under way stays there."""
    run(
        """
import resource
data, other = dropped(filled()), pickle.dumps(q := joinq.Queue())
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
assert pickle.loads(other)._handle is q._handle
try:
    pickle.dumps(q)
except OSError as error:
    assert "Too many open files" in str(error), error
else:
    sys.exit("no error")
for fd in taken:
    os.close(fd)
assert kept() == 2  # so it has heard all
assert check(pickle.loads(data))
"""
    )


def test_keeper_that_does_not_listen_keeps_its_queues():
    """A stopped keeper is replaced, but not dead: what it has is there when it goes on."""
    run(
        """
data = dropped(filled())
first = keeper()
os.kill(first, signal.SIGSTOP)
_transit._PATIENCE = 0.01
q = joinq.Queue()
while keeper() == first:
    pickle.dumps(q)
gc.collect()
os.kill(first, signal.SIGCONT)
_transit._PATIENCE = probes.LIMIT
probes.wait_until(lambda: not probes.runs(first), "the keeper has heard all, and sleeps or has ended")
assert check(pickle.loads(data))
"""
    )


def test_queue_is_found_with_whoever_has_it(launch):
    """Neither sender nor keeper are left: it is found with somebody else of this user."""
    child = launch(workers.pickle_for_another, filled)
    data = child.receive()
    other = launch(workers.hold_pickle, data)
    assert other.receive() == "attached"
    child.send(None)
    child.result()
    pid = probes.keeper_of(re.search(rb"\0joinq-[0-9a-f]{32}", data)[0])
    os.kill(pid, signal.SIGKILL)
    workers.wait_dead(pid)
    assert check(pickle.loads(data))


def test_nothing_is_left_of_messages_that_nobody_receives():
    """Sending one queue again and again takes nothing of the sender, and one descriptor of the keeper."""
    run(
        """
q = filled()

def some(count):
    for _ in range(count):
        pickle.dumps(q)
    gc.collect()
    return len(probes.descriptors()), len(os.listdir("/proc/self/task")), kept()

before = some(10)
assert before[2] == 1
assert some(200) == before
resident = probes.resident(keeper())
some(20_000)
grown = probes.resident(keeper()) - resident
assert grown < 2**21, f"{grown} bytes more"
assert some(1) == before
"""
    )


def test_200_rounds_leave_nothing(launch):
    """Queues that are sent back and forth leave no descriptor in sender, receiver and keeper."""
    child = launch(workers.echo_queues)

    def round_trip():
        q = filled()
        child.send(q)
        del q
        back = child.receive()
        assert check(back)

    def counts():
        gc.collect()
        child.send("descriptors")
        return len(probes.descriptors()), child.receive(), kept()

    for _ in range(5):
        round_trip()
    before = counts()
    for _ in range(200):
        round_trip()
    assert counts() == before
    child.send(None)
    child.result()


def test_program_that_closes_all_descriptors():
    """A daemon closes what it does not know, and opens its own: those are left alone, and sending still works."""
    run(
        """
import socket
pickle.loads(pickle.dumps(joinq.Queue()))
first = keeper()
os.closerange(3, 1000)
mine = [end for _ in range(50) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)]
gc.collect()
assert check(pickle.loads(dropped(filled())))
assert keeper() != first
for end in mine:
    end.setblocking(False)
    try:
        sys.exit(f"said to the program: {end.recv(100)}")
    except BlockingIOError:
        pass
for end in mine:
    end.close()
workers.wait_dead(first)
"""
    )


def test_child_that_closes_all_descriptors():
    """What had the number of its parent's sentinel is not the keeper's to hold: it ends with the program."""
    out = run(
        """
import multiprocessing

def send():
    os.closerange(3, 1000)
    assert check(pickle.loads(dropped(filled())))
    print(keeper(), flush=True)

child = multiprocessing.get_context("fork").Process(target=send)
child.start()
child.join()
assert not child.exitcode
"""
    )
    workers.wait_dead(int(out))


def test_arrival_that_is_heard_before_the_sending():
    """Two processes speak by different connections, so the keeper may read the second one's first."""
    sender, senders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    receiver, receivers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    class Late(_keeper.Keeper):
        def accept(self):
            if sender.fileno() >= 0 and len(self.connections) == 1:  # the receiver was heard
                _transit._say(sender, _keeper.KEEP, 1, 2, fd)
                sender.close()

    with open(os.devnull) as file, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, receiver:
        fd = file.fileno()
        keeper = Late(listener, senders)
        keeper.connect(receivers)
        _transit._say(receiver, _keeper.ARRIVED, 1, 2)
        receiver.close()
        keeper.live()
    assert (sender.fileno(), keeper.kept) == (-1, {})


def test_threads_that_send_at_once_share_a_keeper():
    """The first sendings race for the keeper; one wins, and the others' have ended."""
    run(
        """
barrier = threading.Barrier(4)
results = []

def send():
    barrier.wait()
    results.append(dropped(filled()))

threads = [threading.Thread(target=send) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert all(check(pickle.loads(data)) for data in results)
links = [link for link in probes.descriptors().values() if link.startswith("socket")]
assert len(links) == 1, links
"""
    )


def test_children_share_their_parents_keeper(ctx, launch):
    """Forked or not, a child that has got a queue sends by the keeper of its parent."""
    q = joinq.Queue()
    pickle.loads(pickle.dumps(q))
    child = launch(workers.address_of_keeper, q)
    assert child.result() == _transit._lines["ours"].keeper


def test_start_of_a_keeper_beside_a_fork():
    """Another thread may fork at any moment: its child holds whatever is open then, and is not waited for."""
    run(
        """
children, pipe = [], os.pipe

def pipe_and_fork():
    ends = pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(15)
        signal.pause()
    children.append(pid)
    return ends

os.pipe = pipe_and_fork
assert check(pickle.loads(dropped(filled())))
assert children
for pid in children:
    assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it was waited for"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""
    )


def test_program_without_standard_streams():
    """The numbers of its sockets may be those of the keeper's standard streams."""
    out = run(
        """
out = os.dup(1)
os.closerange(0, 3)
data = dropped(filled())
os.write(out, str(check(pickle.loads(data))).encode())
"""
    )
    assert out == "True"


def test_sending_at_exit():
    """A queue can be sent by an exit function."""
    out = run(
        """
import atexit
q = filled()
atexit.register(lambda: print(check(pickle.loads(pickle.dumps(q)))))
"""
    )
    assert out == "True\n"


def test_keeper_that_cannot_be_started_is_an_error():
    """No Python to run it with: the error says what cannot be started, and nothing is left open."""
    run(
        """
import multiprocessing
q = joinq.Queue()
before = probes.descriptors().keys()
multiprocessing.set_executable("/nonexistent/python")
for _ in range(3):
    try:
        pickle.dumps(q)
    except OSError as error:
        assert "cannot be started" in str(error), error
    else:
        sys.exit("no error")
assert probes.descriptors().keys() == before
"""
    )
