/* ready: descriptors by which poll(2) can tell whether a call would block.
 *
 * For each of enum jnq_wait there is, from the moment when somebody asks for it, one pipe that all processes share: it
 * is filled or empty, and so readable, or for puts not writable. Whoever changes the state of the queue fills or
 * empties it before his call returns. Processes find each other's pipe through /proc/PID/fd/NUMBER; nothing is sent,
 * and until somebody asks the cost is one load per call.
 *
 * State            written by        guard   order  if the writer dies here
 *   asked          ask, set          lock    sc     a bit too many: costs a failing open() for each change
 *   shown          set               lock    sc     the next holder of the lock looks into the pipe
 *   again          changers          none    sc     the next change, or the watcher
 *   pipe, dev,     ask, watcher      lock    plain  a descriptor that does not fit is not used, and `asked` lowered
 *     pid, fd
 *
 * Why no change is missed: who has changed the state compares it with `shown`. Who holds the lock sets `shown` to what
 * he saw, then the pipe, and looks at the state again. So either the one sees the new `shown`, or the other the new
 * state. Who finds the lock busy for a millisecond goes on: he has set `again` before, at which its holder looks after
 * he released it.
 *
 * Death: a process killed between its step and the pipe leaves a pipe that does not tell the truth, and those who
 * sleep in poll(2) do not run. So in each process that has asked a thread looks every EVENT_SLICE_NS (watch.h): at the
 * pipe, and whether it can still be found. That also serves those who may not open it, having another user than its
 * maker, and those whose processes may not.
 *
 * Foreign writes: a descriptor is written to or read from only if it is the pipe that we, or /proc, say it is. */
#ifndef JNQ_READY_H
#define JNQ_READY_H

#include "atomics.h"
#include "layout.h"

/* For the creator. Returns 0 or an errno. */
int ready_init(struct jnq_queue *q);

/* Exact at one moment of the call. No lock. */
bool ready_to_get(struct jnq_queue *q);
bool ready_to_put(struct jnq_queue *q);

/* Gives the descriptor, making it if there is none that fits; it needs watch_begin(). Returns JNQ_OK, JNQ_INTERRUPTED
 * (its lock is busy), JNQ_CORRUPT or an errno. */
int ready_fd(struct jnq_queue *q, enum jnq_wait what, int64_t until, int *fd);

/* Lets the pipes that somebody asked for show the state. Neither tail, head nor heap may be locked. */
void ready_show(struct jnq_queue *q);

/* Puts right what others may have left. */
void ready_look(struct jnq_queue *q);

/* Closes the descriptors of a handle. */
void ready_close(struct jnq_queue *q);

/* After each step that may change what ready_show() shows. */
static inline void ready_changed(struct jnq_queue *q)
{
    if (load_sc(&q->sh->asked))
        ready_show(q);
}

#endif
