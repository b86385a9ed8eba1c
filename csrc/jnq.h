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
    JNQ_LEASED = -13,       /* done, and the task is ours until jnq_finish(); its payload is lent until then */
    JNQ_NOT_OURS = -14,     /* this process does not have the task */
    JNQ_LOST = -15,         /* every unfinished task was taken by a process that died */
};

/* What becomes of the tasks that a process had taken and not reported done when it died. */
enum jnq_on_death {
    JNQ_IGNORE = 0,    /* they stay unfinished */
    JNQ_RAISE = 1,     /* the same, but jnq_join() answers JNQ_LOST when nobody can finish them */
    JNQ_REDELIVER = 2, /* they go back to the front of the queue, or to the dead letters */
};

/* How a record holds an item: its payload follows, lies in an extent, or it is one of several. JNQ_END holds none. */
enum jnq_kind {
    JNQ_INLINE = 1,
    JNQ_EXTENT = 2,
    JNQ_END = 3,
    JNQ_CHUNK = 4,
    JNQ_GIVEN = 5, /* of a box: its extent was put, and is others' too */
};

/* What the payload of an item is. The core looks only at the lengths of those that have a fixed one. */
enum jnq_form {
    JNQ_PICKLE = 0,
    JNQ_INTEGER = 1, /* int64_t */
    JNQ_FLOAT = 2,   /* double */
    JNQ_NONE = 3,    /* nothing */
    JNQ_FALSE = 4,
    JNQ_TRUE = 5,
    JNQ_BYTES = 6,
    JNQ_UCS1 = 7, /* text: one, two or four bytes a character */
    JNQ_UCS2 = 8,
    JNQ_UCS4 = 9,
    JNQ_PARCEL = 10, /* a pickle and its buffers: see python/objects.c */
    JNQ_FORMS = 11,
};

enum jnq_wait { JNQ_IN_GET = 0, JNQ_IN_PUT = 1, JNQ_IN_JOIN = 2 };

/* What the program calls the queue. Nothing here depends on it. */
enum jnq_class { JNQ_UNKNOWN = 0, JNQ_JOINABLE = 1, JNQ_QUEUE = 2, JNQ_SIMPLE = 3 };

#define JNQ_NOW 0
#define JNQ_FOREVER 0x7fffffffffffffff
#define JNQ_INLINE_BYTES 8176  /* longest payload that is copied instead of lent */
#define JNQ_PREFACE_BYTES 4032 /* of an extent that is given */

#define JNQ_NAME_BYTES 48   /* room for a process's name, with its final zero */
#define JNQ_LABEL_BYTES 64  /* the same for a queue's */
#define JNQ_LETTER_DEATHS 3 /* so many deaths are remembered of a task */

/* Where jnq_get() leaves an item. The caller owns it and reuses it; one box serves one call at a time, and must not be
 * copied. */
typedef struct {
    uint64_t taken;      /* 1 while it holds an item that was neither released nor given back */
    uint64_t bytes;      /* length of the payload */
    const char *payload; /* copied: `copy`; JNQ_LARGE: in the segment, until jnq_release() */
    uint64_t unit;       /* JNQ_LARGE: which extent; else 0 */
    uint64_t lease;      /* JNQ_LEASED: the task, for jnq_finish(); else 0 */
    uint64_t number;     /* JNQ_LEASED: of the task, for jnq_finish() */
    jnq_queue *queue;    /* whose */
    uint32_t fork;       /* of the process that took it */
    uint32_t kind;       /* enum jnq_kind, of the record it came in */
    uint64_t form;       /* enum jnq_form */
    char copy[8176];
} jnq_box;

/* A part of a payload. */
typedef struct {
    const char *start;
    uint64_t bytes;
} jnq_piece;

/* An item of a batch: this, and so many bytes of payload, padded to a multiple of 8. */
typedef struct {
    uint32_t bytes;
    uint32_t form;
} jnq_packed;

/* A copy of the queue's counters, for people. */
typedef struct {
    uint64_t puts, takes, dones, queued, unfinished;
    uint64_t gets;      /* items that were taken and have not gone back to the queue */
    uint64_t discarded; /* items that shutdown(immediate) has thrown away */
    uint64_t maxsize;
    uint64_t segment_bytes; /* address space reserved */
    uint64_t used_bytes;    /* held by items, blocks and lent payloads */
    uint64_t reserve_bytes; /* free and still backed by memory */
    uint64_t processes;     /* entries in use in the process table, the dead not yet found included */
    uint64_t recoveries;    /* locks taken over from a process that died holding them */
    uint64_t deaths;        /* processes found that had died otherwise than in order */
    uint64_t redeliveries;  /* tasks of dead processes that went back to the queue */
    uint64_t dead_letters;  /* tasks that killed so many of their takers that they did not */
    uint64_t put_bytes;     /* of a measured queue, else 0: payload bytes ever put, */
    uint64_t backlog;       /* and the most items that were ever queued */
    uint64_t peak_bytes;    /* the most that used_bytes has been */
    uint64_t waiting[3];    /* threads that wait, by enum jnq_wait */
    uint64_t blocked_ns[3]; /* how long threads have waited, all together; a wait under way is counted once a second */
    uint64_t wakes;         /* how often one that slept was woken */
    uint64_t foreign;       /* 1: whose the unfinished tasks are cannot be told any more (JNQ_RAISE) */
} jnq_counters;

/* An attached process, for people. Times are nanoseconds ago, 0 if there is nothing to say. */
typedef struct {
    uint64_t start; /* of the process, in clock ticks since boot */
    uint32_t pid;
    uint32_t dead;          /* 1: its process is dead */
    uint32_t exit;          /* 0, or what it announced with jnq_depart(): 1 clean, 2 failed */
    uint32_t status;        /* of a dead one, as wait(2) has it; 0: not known */
    uint32_t unsure;        /* 1: it died while it reported tasks done; they may count as in hand, or not */
    uint64_t tasks;         /* taken and not reported done */
    uint64_t oldest_ns;     /* the oldest of them was taken so long ago, or longer if there are more than 8 */
    uint32_t waiting[3];    /* threads that are blocked, by enum jnq_wait */
    uint64_t waiting_ns[3]; /* for how long the first of them */
    uint64_t puts;          /* items that it has put, */
    uint64_t gets;          /* and taken, but for those that it gave back */
    uint64_t idle_ns;       /* it was last noted to do something so long ago: see procs.h */
    char name[48];          /* UTF-8, zero-terminated */
} jnq_holder;

/* A process that has died otherwise than in order. */
typedef struct {
    uint64_t time_ms; /* when it was found, milliseconds since the epoch */
    uint64_t tasks;   /* that it had in hand, as far as that is known */
    uint32_t pid;
    uint32_t status; /* as in jnq_holder */
    uint32_t failed; /* 1: it has announced that it failed */
    char name[48];
} jnq_death;

/* What a queue is from its beginning on, and whether it has ended. */
typedef struct {
    uint64_t id; /* as jnq_id() */
    uint64_t maxsize;
    uint32_t on_death; /* enum jnq_on_death */
    uint32_t max_deliveries;
    uint32_t kind;     /* enum jnq_class */
    uint32_t shutdown; /* as jnq_is_shutdown() */
    char name[64];     /* UTF-8, zero-terminated */
} jnq_traits;

/* How many deaths were noticed, how many tasks of the dead were redelivered, and how many given up. */
typedef struct {
    uint64_t deaths, redeliveries, letters;
} jnq_tidings;

/* A dead letter. */
typedef struct {
    const char *payload; /* in the segment, as long as the handle lives */
    uint64_t bytes;
    uint64_t number;     /* of the task */
    uint32_t form;       /* enum jnq_form */
    uint32_t deaths;     /* takers that it has killed */
    uint32_t pid[3];     /* the last of them, oldest first; 0: none */
    uint64_t time_ms[3]; /* when they were found dead, milliseconds since the epoch */
} jnq_letter;

/* "futex" or "semaphore": how this build sleeps. */
const char *jnq_door(void);

/* What a wake-up that died with its sender can cost, in nanoseconds: see event.h. */
int64_t jnq_slice_ns(void);

/* Makes a queue in the empty file `fd` (a memfd, or an unlinked file). maxsize 0 is unbounded. Requires that nobody
 * else uses the file. on_death is one of enum jnq_on_death; with JNQ_REDELIVER a task that has killed
 * max_deliveries takers becomes a dead letter. Returns JNQ_OK and *out, which owns fd from then on, JNQ_MISMATCH (not a
 * regular file), or an errno (ENOMEM: neither address space nor memory for it; EEXIST: the file is not empty). */
int jnq_create(int fd, uint64_t maxsize, int on_death, uint32_t max_deliveries, jnq_queue **out);

/* Joins the queue in `fd`. Returns JNQ_OK and *out, which owns fd from then on, JNQ_MISMATCH, JNQ_CROWDED,
 * JNQ_NAMESPACE, JNQ_CORRUPT, or an errno (EBUSY: its lock stayed busy). */
int jnq_attach(int fd, jnq_queue **out);

/* Lets the queue be measured: see jnq_counters. Requires that nobody else has it yet. */
void jnq_measure(jnq_queue *q);

/* Gives the queue a class and a name, cut off at JNQ_LABEL_BYTES - 1. Requires the same. */
void jnq_label(jnq_queue *q, int kind, const char *name);

void jnq_read_traits(jnq_queue *q, jnq_traits *out);

/* The name by which others shall know this process, cut off at JNQ_NAME_BYTES - 1, from its next entry into a process
 * table on (attach, create, first use after a fork). */
void jnq_name_process(const char *name);

/* Announces that this process is about to end, in order or not; the first announcement counts. */
void jnq_depart(jnq_queue *q, int failed);

/* One of enum jnq_on_death. */
int jnq_on_death(jnq_queue *q);

/* The file descriptor, for handing it to another process, or -1 if the program has closed it behind our back. */
int jnq_fileno(jnq_queue *q);

/* A random number that tells the queue from all others, whatever became of their files. */
uint64_t jnq_id(jnq_queue *q);

/* In the child of a fork, while it has no other thread: lets the handle use another mapping, and unmaps the old one but
 * for these n ranges of pages, in order; they get private copies of what they hold. Returns 0 or an errno (then the
 * ranges are still shared). */
int jnq_move(jnq_queue *q, const jnq_piece *pages, uint64_t n);

/* Leaves the queue, closes fd and frees the handle, as soon as no box holds a JNQ_LARGE payload that was lent through
 * it. Leases go back to the queue. Requires that nobody uses the handle afterwards. In the child of a fork only the
 * child's view ends. */
void jnq_detach(jnq_queue *q);

/* Appends one item, a pickle; the payload is copied. Takes effect at R1 in fifo.c: before it nothing happened,
 * after it everything did. Returns JNQ_OK, JNQ_FULL, JNQ_SHUTDOWN, JNQ_INTERRUPTED, JNQ_CORRUPT,
 * JNQ_CROWDED or JNQ_NO_MEMORY (the queue is as before). Blocks only while the queue is full. */
int jnq_put(jnq_queue *q, const char *payload, uint64_t bytes, int64_t deadline);

/* The same for an integer. */
int jnq_put_integer(jnq_queue *q, int64_t value, int64_t deadline);

/* The same for any form, its payload in pieces: they are copied one after the other. */
int jnq_put_pieces(jnq_queue *q, int form, const jnq_piece *pieces, uint64_t n, int64_t deadline);

/* Appends a batch of n items in their order: `batch` begins with a jnq_packed; each takes at most JNQ_INLINE_BYTES with
 * its header and padding. Takes effect item by item or several at a time, and counts them in *put as soon as they are
 * in, also when the answer is not JNQ_OK. Returns as jnq_put(), JNQ_FULL and JNQ_SHUTDOWN also after a part of them. */
int jnq_put_batch(jnq_queue *q, const char *batch, uint64_t n, uint64_t *put, int64_t deadline);

/* Makes an empty extent of ours, in the box as JNQ_LARGE is: so many bytes at box->payload, which begins a page.
 * Returns JNQ_OK (jnq_release() must follow), JNQ_INTERRUPTED, JNQ_CORRUPT, JNQ_CROWDED, JNQ_NAMESPACE or
 * JNQ_NO_MEMORY. */
int jnq_blank(jnq_queue *q, uint64_t bytes, jnq_box *box);

/* Appends an item whose payload is the preface, padded to JNQ_PREFACE_BYTES, and what is in a box of jnq_blank(), which
 * is not copied: from then on it is the taker's, too, and lasts until both are done with it. A box is given once.
 * Returns as jnq_put(). */
int jnq_give(jnq_queue *q, jnq_box *box, int form, const char *preface, uint64_t bytes, int64_t deadline);

/* Takes the oldest item into *box. Takes effect at R2 in fifo.c. Returns the length of the payload (>= 0), which was
 * copied; or JNQ_LARGE (then jnq_release() must follow); with JNQ_REDELIVER always JNQ_LEASED instead; or JNQ_EMPTY,
 * JNQ_SHUTDOWN (empty, and shut down), JNQ_INTERRUPTED, JNQ_CORRUPT, JNQ_CROWDED, JNQ_NO_MEMORY. Blocks only while the
 * queue is empty. */
int64_t jnq_get(jnq_queue *q, jnq_box *box, int64_t deadline);

/* Takes up to `most` of the oldest items into `batch`, packed as jnq_put_batch() wants them and in one step, as long as
 * they fit into `room` bytes and none is in an extent or was given back. Not with JNQ_REDELIVER. Returns how many, at
 * least 1; or 0 if the next item can only be taken with jnq_get(); or as jnq_get() what is not a length. Blocks only
 * while the queue is empty. A foreign write in this very moment can make garbage of what is in the batch, lengths
 * included. */
int64_t jnq_get_batch(jnq_queue *q, char *batch, uint64_t room, uint64_t most, int64_t deadline);

/* Ends the use of what the box holds, but no lease; an empty box is allowed. Never blocks on another process's work.
 * In the child of a fork that came after the get, it only empties the box. */
void jnq_release(jnq_box *box);

/* Puts the item in the box back in front of the queue, as if it had not been taken; after
 * shutdown(immediate) it is discarded as the queued items were, and nothing happens if it was finished. The box is
 * empty then. Returns JNQ_OK, or JNQ_INTERRUPTED, JNQ_NO_MEMORY, JNQ_CORRUPT (the box still holds it). In the child
 * of a fork that came after the get, it only empties the box. */
int jnq_unget(jnq_queue *q, jnq_box *box);

/* The same, but what a JNQ_LARGE box holds stays as it is until jnq_release(): a copy of it is put back. */
int jnq_unget_copy(jnq_queue *q, jnq_box *box);

/* jnq_unget() for a leased task without its box. */
int jnq_unlease(jnq_queue *q, uint64_t lease, uint64_t number);

/* Waits until another thread has emptied the box, for 10 seconds at most. Not ended by signals. */
void jnq_await(jnq_box *box);

/* Makes a box that jnq_unget() takes of a payload of at most JNQ_INLINE_BYTES that this process had taken. */
void jnq_rebox(jnq_queue *q, jnq_box *box, int form, const char *payload, uint64_t bytes);

/* Reports n >= 1 tasks done; all or none. Returns JNQ_OK or JNQ_TOO_MANY_DONE. Never blocks. Not with
 * JNQ_REDELIVER. */
int jnq_task_done(jnq_queue *q, uint64_t n);

/* Reports a leased task done. Returns JNQ_OK, JNQ_NOT_OURS (finished before, or taken before a fork), JNQ_INTERRUPTED
 * or JNQ_CORRUPT. */
int jnq_finish(jnq_queue *q, uint64_t lease, uint64_t number);

/* Waits until no task is unfinished, or none was at some moment since the first call with this
 * *since. The caller sets *since to 0 before the first call and keeps it for the repeated ones.
 * Returns JNQ_OK, JNQ_TIMEOUT, JNQ_INTERRUPTED, JNQ_CORRUPT, or with JNQ_RAISE JNQ_LOST: no task is queued, no living
 * process has taken one and not reported it done, and nobody has ever reported another's task done, or ended in order
 * with one in hand. */
int jnq_join(jnq_queue *q, uint64_t *since, int64_t deadline);

/* Ends the queue: puts are refused from now on, gets when it is empty. With `immediate` the queued
 * items are discarded and count as done. Wakes every waiter. Returns JNQ_OK, JNQ_CORRUPT, JNQ_CROWDED,
 * or JNQ_INTERRUPTED. */
int jnq_shutdown(jnq_queue *q, int immediate);

/* Gives a descriptor for poll(2), select(2) and the like: readable exactly while jnq_get() would not block
 * (JNQ_IN_GET), writable exactly while jnq_put() would not (JNQ_IN_PUT), readable exactly while no task is unfinished
 * (JNQ_IN_JOIN). It is the handle's, is to be neither read, written nor closed, and may be another one after the
 * program has closed it. The first call makes it, and a thread in this process that puts it right, within 100 ms, when
 * somebody dies on the way, or may not open it. Until then it costs nothing. Valid in the child of a fork, which should
 * ask, too, for the sake of the thread. Returns JNQ_OK, JNQ_INTERRUPTED, JNQ_CORRUPT, JNQ_CROWDED, JNQ_NAMESPACE, or an
 * errno. */
int jnq_pollable(jnq_queue *q, int what, int *fd);

/* Says that this process will not put any more, nor its children; or that it may, as it does at first. */
void jnq_end_writing(jnq_queue *q);
void jnq_begin_writing(jnq_queue *q);

/* How many living processes have used the queue and not said so. */
int jnq_writers(jnq_queue *q);

/* Exact at one moment of the call. Neither locks nor blocks. */
uint64_t jnq_qsize(jnq_queue *q);
uint64_t jnq_unfinished(jnq_queue *q);
uint64_t jnq_maxsize(jnq_queue *q);

/* 1 after jnq_shutdown() in any process. */
int jnq_is_shutdown(jnq_queue *q);

/* 1 if this process, not one that it was forked from, has put something. */
int jnq_has_put(jnq_queue *q);

/* Fills *out, without a lock: puts, takes, dones and what follows from them as of one moment, if they stand still for
 * some nanoseconds during one of many looks; the others one after another. The bytes are as heap_glance() says, and
 * reserve_bytes is 0. */
void jnq_glance(jnq_queue *q, jnq_counters *out);

/* The same, and the bytes exactly: under the heap's lock, for as long as a walk through it takes. */
void jnq_count(jnq_queue *q, jnq_counters *out);

/* Takes a picture of the queue in `fd`, which only has to be readable, and stays the caller's. Neither locks, writes
 * nor maps anything, so the queue is not disturbed, whoever is killed when, and whatever the file holds only makes the
 * picture wrong. *out is for jnq_glance(), jnq_read_traits(), jnq_read_holder() and jnq_forget(), and does not change.
 * Returns JNQ_OK, JNQ_EMPTY (there is no queue in the file), JNQ_MISMATCH (it is one that another build has made),
 * JNQ_NAMESPACE, or an errno. */
int jnq_look(int fd, jnq_queue **out);

/* Frees the picture. */
void jnq_forget(jnq_queue *q);

/* The entry `number` (1 and up) of the process table, the dead whose tasks are lost included. Returns JNQ_OK,
 * JNQ_EMPTY (not in use) or JNQ_TIMEOUT (there is none so high). */
int jnq_read_holder(jnq_queue *q, uint32_t number, jnq_holder *out);

/* The death `number`, 1 and up to jnq_counters.deaths. JNQ_OK, or JNQ_EMPTY: only the last few are remembered. */
int jnq_read_death(jnq_queue *q, uint64_t number, jnq_death *out);

/* 1 if this process has made dead letters since it was last asked. */
int jnq_news(jnq_queue *q);

/* 1 if there are tidings since this process attached, or was last told; with `own` only if it has caused some. Then
 * *before is what they were then, and all of them count as told; but with NULL they do not. Requires the GIL. */
int jnq_untold(jnq_queue *q, int own, jnq_tidings *before);

/* The next dead letter, newest first: *cursor is 0 at first. Returns JNQ_OK, JNQ_EMPTY (no more) or JNQ_CORRUPT. */
int jnq_read_letter(jnq_queue *q, uint64_t *cursor, jnq_letter *out);

/* Looks for dead processes among all entries of the process table and frees what they held. Returns
 * JNQ_OK, JNQ_INTERRUPTED, JNQ_CORRUPT, JNQ_NAMESPACE or JNQ_NO_MEMORY (of this process: tasks are redelivered
 * later). */
int jnq_reap(jnq_queue *q);

/* Evaluates every invariant of layout.h with all locks held. Returns 0, or the number of the first
 * invariant that does not hold (negative if the locks could not be had). For tests. */
int jnq_check(jnq_queue *q);
/* cdef] */

#endif
