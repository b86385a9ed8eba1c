/* objects: Python objects into a queue and out of it; the only part of the core that knows what an object is.
 *
 * What passes most often (int, float, str, bytes, bool, None, and what pickle makes of the rest) so needs one call of a
 * C function, no intermediate copy, and no Python code but the pickler's. Everything that is unusual (an error, a
 * signal, a task of JNQ_REDELIVER, an item that cannot be unpickled) is left to _queue.py.
 *
 * Adds to the extension module
 *   Port(handle, address, dumps, loads, assemble)
 *                           a queue as seen from here; `address` is that of the jnq_queue in the handle
 *     port[deadline]        takes an item; None is for ever. A subscription and not a call, because from Python 3.11 on
 *                           the interpreter runs signal handlers after a call, whose exception would lose the item.
 *     port[most, deadline]  a list of 1 to `most` items
 *     port.put(obj, deadline), port.task_done(n)
 *     port.put_many(source, deadline, put, ahead)
 *                           puts what a list (from number put[0] on) or an iterator gives, and adds to put[0] how many,
 *                           whatever it returns or raises. JNQ_INTERRUPTED: call it again, there may be more. Unless it
 *                           may draw ahead, each object is in the queue before the next one is drawn.
 *     port.buffer(bytes)    a memoryview of memory of the queue: a blank
 *   Loan                    an item that was taken and not unpickled; a buffer with its payload. When the last
 *                           reference is gone it goes back to the queue, with what was taken before it in a batch, but
 *                           for
 *     loan.settle(taken)    after which it counts as taken; or, if that is not True, is back. Only the first one does
 *                           anything; each returns whether it counts as taken
 *     loan.owed             false if it would not: it is settled, or was taken before a fork
 *     loan.taken = deque    the same for a task of JNQ_REDELIVER, whose loan.lease is appended to the deque. An
 *                           assignment and not a call, as port[deadline] is a subscription
 *     port.taken = loans, deque
 *                           the same for all of a list
 *   Declined                raised by port[...]: args are the result of jnq.h, the Loan if one was taken, and the
 *                           exception of its unpickling; which is raised itself in the child of a fork that was made by
 *                           that: there nothing was taken
 *   when_loaded(call)       if this thread is unpickling: lets the call be made when all that it takes is there, and
 *                           not at all if it goes back to the queue; else returns False
 *   load(loads, assemble, form, payload)
 *                           the object that a payload stands for, which was copied
 *   before_fork(), after_fork_in_parent(), after_fork_in_child()
 *                           see below
 *
 * State: the list of Loans, what could not go back yet, and what forks need; guarded by the GIL. What a thread is
 * unpickling; the thread's.
 *
 * A parcel (JNQ_PARCEL) is a pickle with the buffers that pickle protocol 5 keeps out of it:
 *   uint64_t: bytes of the pickle; uint64_t: number of buffers; for each its offset and its length; the pickle;
 *   the buffers, each at a multiple of 64 bytes
 * In an extent, the receiver's objects refer to the buffers where they are: each through a Loan, which keeps the extent
 * ours until the last of them is gone, whatever became of queue and sender. They are writable; nobody else can reach
 * the extent. If the receiver dies, recover_reap() frees it.
 *
 * A blank is memory that a process fills itself. If a parcel's only buffer lies in one, the blank is put as it is
 * (jnq_give()), with the rest of the parcel before it. It is a blank no longer then: put again, it is copied.
 *
 * Fork: parent and child would share these buffers, and the parent free them. So the child gives each a private copy
 * at the same address, before anything else runs in it, and uses the queue through another mapping from then on
 * (jnq_move()). Meanwhile the parent waits, so that it neither frees nor changes them; what other threads let go
 * of before it waits is freed afterwards. Threads may fork at once. A child without memory for its copies says so
 * and ends: it would see what its parent changes and frees.
 *
 * Foreign writes: a parcel's numbers are compared with its length before they are used, and the lengths in a batch that
 * was copied with the batch's. */
#ifndef JNQ_OBJECTS_H
#define JNQ_OBJECTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Adds the above to a module. Returns 0, or -1 with an exception. */
int objects_add(PyObject *module);

#endif
