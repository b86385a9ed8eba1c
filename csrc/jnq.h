/* jnq: a first-in first-out queue with an unfinished-task count, in memory that processes share.
 *
 * This is the whole contract between the C core and Python. The text between the two marker lines is
 * what the C compiler, cffi and the reader see alike.
 *
 * Results: 0 is done, a negative number an outcome of ours (enum below), a positive number an errno.
 *
 * Deadlines are absolute nanoseconds of CLOCK_MONOTONIC for the whole call. JNQ_NOW does not wait,
 * JNQ_FOREVER has no deadline.
 *
 * JNQ_INTERRUPTED: nothing happened; run signal handlers, then make the same call with the same
 * deadline. It is returned on a signal and, so that no signal is missed, once a second.
 *
 * Threads: every function may be called by many threads on one handle. A call that sleeps, or copies
 * much, gives up the GIL through gil.h; no other call does.
 *
 * Fork: a handle stays valid in the child, which enters itself into the process table at its first
 * call; functions that can return JNQ_CROWDED return JNQ_NAMESPACE there if the child is in another namespace.
 * Death: a process may die at any instruction of any function; see DESIGN.md. */
#ifndef JNQ_H
#define JNQ_H

#include <stdint.h>

/* [cdef */
typedef struct jnq_queue jnq_queue;

enum jnq_result {
    JNQ_OK = 0,
    JNQ_LARGE = -1,         /* done, and the payload is lent from shared memory */
    JNQ_EMPTY = -2,         /* no item before the deadline */
    JNQ_FULL = -3,          /* no room before the deadline */
    JNQ_TIMEOUT = -4,       /* the awaited state did not come before the deadline */
    JNQ_INTERRUPTED = -5,   /* see above */
    JNQ_SHUTDOWN = -6,      /* the queue was shut down */
    JNQ_TOO_MANY_DONE = -7, /* more tasks reported done than were put */
    JNQ_MISMATCH = -8,      /* the segment is not one that this build can use */
    JNQ_CORRUPT = -9,       /* the segment breaks an invariant that only foreign writes can break */
    JNQ_CROWDED = -10,      /* the process table has no free entry */
    JNQ_NO_MEMORY = -11,    /* the system has no memory for it */
    JNQ_NAMESPACE = -12,    /* this process is in another pid or time namespace than the queue's creator */
};

#define JNQ_NOW 0
#define JNQ_FOREVER 0x7fffffffffffffff
#define JNQ_INTEGER_ZERO 0x4000000000000000 /* how jnq_get() answers the integer 0 */
#define JNQ_INTEGER_MIN 0x2000000000000000  /* no smaller answer is an integer */
#define JNQ_INLINE_BYTES 8176               /* longest payload that is copied instead of lent */

/* Where jnq_get() leaves an item. The caller owns it and reuses it; one box serves one call at a time, and must not be
 * copied. */
typedef struct {
    uint64_t taken;      /* 1 while it holds an item that was neither released nor given back */
    uint64_t bytes;      /* length of the payload */
    const char *payload; /* copied: `copy`; JNQ_LARGE: in the segment, until jnq_release() */
    uint64_t unit;       /* JNQ_LARGE: which extent; else 0 */
    jnq_queue *queue;    /* whose */
    uint32_t fork;       /* of the process that took it */
    uint32_t kind;       /* of the record it came in */
    char copy[8176];
} jnq_box;

/* A consistent-enough copy of the queue's counters, for people. */
typedef struct {
    uint64_t puts, takes, dones, queued, unfinished;
    uint64_t maxsize;
    uint64_t segment_bytes; /* address space reserved */
    uint64_t used_bytes;    /* held by items, blocks and lent payloads */
    uint64_t reserve_bytes; /* free and still backed by memory */
    uint64_t processes;     /* entries in use in the process table, the dead not yet found included */
    uint64_t recoveries;    /* locks taken over from a process that died holding them */
    uint64_t deaths;        /* dead processes removed from the process table */
} jnq_counters;

/* "futex" or "semaphore": how this build sleeps. */
const char *jnq_door(void);

/* What a wake-up that died with its sender can cost, in nanoseconds: see event.h. */
int64_t jnq_slice_ns(void);

/* Makes a queue in the empty file `fd` (a memfd, or an unlinked file). maxsize 0 is unbounded. Requires that nobody
 * else uses the file. Returns JNQ_OK and *out, which owns fd from then on, JNQ_MISMATCH (not a regular
 * file), or an errno (ENOMEM: neither address space nor memory for it; EEXIST: the file is not empty). */
int jnq_create(int fd, uint64_t maxsize, jnq_queue **out);

/* Joins the queue in `fd`. Returns JNQ_OK and *out, which owns fd from then on, JNQ_MISMATCH, JNQ_CROWDED,
 * JNQ_NAMESPACE, JNQ_CORRUPT, or an errno (EBUSY: its lock stayed busy). */
int jnq_attach(int fd, jnq_queue **out);

/* The file descriptor, for handing it to another process, or -1 if the program has closed it behind our back. */
int jnq_fileno(jnq_queue *q);

/* Leaves the queue, closes fd and frees the handle, as soon as no box holds a payload that was lent through it. Requires
 * that nobody uses the handle afterwards. In the child of a fork only the child's view ends. */
void jnq_detach(jnq_queue *q);

/* Appends one item; the payload is copied. Takes effect at R1 in fifo.c: before it nothing happened,
 * after it everything did. Returns JNQ_OK, JNQ_FULL, JNQ_SHUTDOWN, JNQ_INTERRUPTED, JNQ_CORRUPT,
 * JNQ_CROWDED or JNQ_NO_MEMORY (the queue is as before). Blocks only while the queue is full. */
int jnq_put(jnq_queue *q, const char *payload, uint64_t bytes, int64_t deadline);

/* The same for an item that is an integer from -JNQ_INTEGER_MIN to JNQ_INTEGER_MIN, without a payload. */
int jnq_put_integer(jnq_queue *q, int64_t value, int64_t deadline);

/* Takes the oldest item into *box. Takes effect at R2 in fifo.c. Returns the length of the payload (>= 0), which was
 * copied; or JNQ_INTEGER_ZERO + value; or JNQ_LARGE (then jnq_release() must follow), JNQ_EMPTY, JNQ_SHUTDOWN (empty, and shut down),
 * JNQ_INTERRUPTED, JNQ_CORRUPT, JNQ_CROWDED, JNQ_NO_MEMORY. Blocks only while the queue is empty. */
int64_t jnq_get(jnq_queue *q, jnq_box *box, int64_t deadline);

/* Ends the use of what the box holds; an empty box is allowed. Never blocks on another process's work. In the child of
 * a fork that came after the get, it only empties the box. */
void jnq_release(jnq_box *box);

/* Puts the item in the box back in front of the queue, as if it had not been taken; after
 * shutdown(immediate) it is discarded as the queued items were. The box is empty then. Returns JNQ_OK,
 * or JNQ_INTERRUPTED, JNQ_NO_MEMORY, JNQ_CORRUPT (the box still holds it). In the child of a fork that came after the
 * get, it only empties the box. */
int jnq_unget(jnq_queue *q, jnq_box *box);

/* Makes a box that jnq_unget() takes of a payload of at most JNQ_INLINE_BYTES that this process had taken. */
void jnq_rebox(jnq_queue *q, jnq_box *box, const char *payload, uint64_t bytes);

/* Reports n >= 1 tasks done; all or none. Returns JNQ_OK or JNQ_TOO_MANY_DONE. Never blocks. */
int jnq_task_done(jnq_queue *q, uint64_t n);

/* Waits until no task is unfinished, or none was at some moment since the first call with this
 * *since. The caller sets *since to 0 before the first call and keeps it for the repeated ones.
 * Returns JNQ_OK, JNQ_TIMEOUT, JNQ_INTERRUPTED or JNQ_CORRUPT. */
int jnq_join(jnq_queue *q, uint64_t *since, int64_t deadline);

/* Ends the queue: puts are refused from now on, gets when it is empty. With `immediate` the queued
 * items are discarded and count as done. Wakes every waiter. Returns JNQ_OK, JNQ_CORRUPT, JNQ_CROWDED,
 * or JNQ_INTERRUPTED. */
int jnq_shutdown(jnq_queue *q, int immediate);

/* Exact at one moment of the call. Neither locks nor blocks. */
uint64_t jnq_qsize(jnq_queue *q);
uint64_t jnq_unfinished(jnq_queue *q);
uint64_t jnq_maxsize(jnq_queue *q);

/* Fills *out; the figures are read one after another. */
void jnq_count(jnq_queue *q, jnq_counters *out);

/* Looks for dead processes among all entries of the process table and frees what they held. Returns
 * JNQ_OK, JNQ_INTERRUPTED, JNQ_CORRUPT or JNQ_CROWDED. */
int jnq_reap(jnq_queue *q);

/* Evaluates every invariant of layout.h with all locks held. Returns 0, or the number of the first
 * invariant that does not hold (negative if the locks could not be had). For tests. */
int jnq_check(jnq_queue *q);
/* cdef] */

#endif
