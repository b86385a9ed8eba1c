/* procs: the table of attached processes, and who of them is dead.
 *
 * State            written by       guard       order    if the writer dies here
 *   entry pid,     enter            procs lock  plain    not live yet: the entry is still free
 *     start, name
 *   entry state    enter, leave,    procs lock  rel/acq  none: the one step
 *                  reap
 *   entry takes    see note.h       head lock
 *   entry puts     put              tail lock   relaxed  this put is missing from it
 *   entry dones    task_done        none        sc       the reports under way in it tell: it is unsure
 *   entry          get, put, join   none        relaxed  this wait, or its last second, is missing
 *     blocked_ns
 *   entry wakes    get, put, join   none        relaxed  this wake-up is missing
 *   entry status   reap             procs lock  relaxed  not known; or the next one finds it
 *   entry others   its process      none        relaxed  figures for people; exit: none
 *   count          enter            procs lock  plain    one entry too few is known: it was not live yet
 *   ready          enter            procs lock  plain    too low: memory is readied twice
 *   rover, deaths, enter, reap      procs lock  plain    hints, and a figure for people
 *     graves
 *   obits          reap             procs lock  plain    not told yet: the next one writes it again; after
 *                                                        `deaths` and before the state: told twice
 *
 * What the processes of an entry have counted stays in it: blocked_ns and wakes go on from where the last one has left
 * them, so their sums over the table are those of all processes that there ever were, however these have ended. What
 * is one process's own begins at 0.
 *
 * Last activity: a clock would cost each put and get more than all the rest that is counted. So active_ns is noted in
 * every SEEN_EVERYth of them, and in those that wake somebody up; besides, a wait tells when it began and ended, and
 * where tasks in hand are known (not with JNQ_IGNORE) each get its time. Who has put less than SEEN_EVERY items since,
 * into a queue where nobody slept, seems to have been idle: its `puts` tells the difference between two looks.
 *
 * With JNQ_RAISE the entry of a process that died with tasks in hand stays, as a grave, for as long as tasks are
 * unfinished; but not more than GRAVES_MAX of them.
 *
 * An entry is one handle of one process: {pid, start time}, which no later process can have. Its number, index + 1,
 * is the owner in the heap's map. Dead is: no such pid, another start time, or a zombie. A process that is
 * stopped, slow, or cannot be looked at is alive.
 *
 * Waiting: never; nor do these functions lock. Those that name an owner or enter require the procs lock.
 *
 * Namespaces: in another pid namespace a pid means another process or none, and so do the thread numbers that stand
 * in the locks and that the kernel compares when an owner dies; in another time namespace a process has another start
 * time. Those who live would be taken for dead, and the dead owner of a lock for somebody else. So only processes of
 * the creator's namespaces may enter; the rest is refused before it takes a lock.
 *
 * Not provided: the same, where there is no /proc to read the namespaces from. */
#ifndef JNQ_PROCS_H
#define JNQ_PROCS_H

#include "layout.h"

#define GRAVES_MAX 64
#define SEEN_EVERY 16

/* For the creator. Returns 0 or an errno. */
int procs_init(struct jnq_queue *q);

/* The name for entries to come. */
void procs_name(const char *name);

/* True if q->owner is an entry of this process; false after a fork. One load. */
bool procs_entered(struct jnq_queue *q);

/* True if this process is in another pid or time namespace than the creator. No system call once it is entered. */
bool procs_foreign(struct jnq_queue *q);

/* Assigns q->owner a free entry. Returns JNQ_OK, JNQ_CROWDED, JNQ_NO_MEMORY or another errno. */
int procs_enter(struct jnq_queue *q);

/* Frees an entry. */
void procs_remove(struct jnq_queue *q, uint32_t owner);

/* Makes an entry a grave. False if there are too many. */
bool procs_bury(struct jnq_queue *q, uint32_t owner);

bool procs_is_grave(struct jnq_queue *q, uint32_t owner);

/* Frees all graves. */
void procs_forget(struct jnq_queue *q);

/* The entry, or NULL if there never was one so numbered. Without the procs lock it may be another's the next moment. */
struct jnq_proc *procs_entry(struct jnq_queue *q, uint32_t owner);

/* True if the entry is that of a process not yet found dead. */
bool procs_known(struct jnq_queue *q, uint32_t owner);

/* True if the owner has taken tasks and not reported them done, or is just reporting some. */
bool procs_holds(struct jnq_queue *q, uint32_t owner);

/* True if the entry is in use, and its process has not said that it will not put any more. */
bool procs_writes(struct jnq_queue *q, uint32_t owner);

/* True if there is certainly no such process, or it is dead and only not yet waited for. */
bool procs_ended(uint32_t pid);

/* Copies out what people want to know. */
void procs_read(struct jnq_queue *q, uint32_t owner, jnq_holder *out);

/* Notes that this thread begins to wait in such a call. False if there is no entry to note it in. */
bool procs_wait(struct jnq_queue *q, enum jnq_wait in, int64_t now);

/* Notes that it no longer waits, if it was noted. */
void procs_wait_end(struct jnq_queue *q, enum jnq_wait in, int64_t now);

/* Notes that the call is over: a wait that follows at once is not its continuation. */
void procs_call_end(struct jnq_queue *q, enum jnq_wait in);

/* Counts a wait of a thread of ours, and a wake-up. Nothing without an entry. */
void procs_waited(struct jnq_queue *q, enum jnq_wait in, int64_t ns);
void procs_woken(struct jnq_queue *q);

/* Counts n items that we have just put (tail lock), or taken where nothing else counts them: with JNQ_IGNORE (head
 * lock), fewer than 0 if they were given back. */
void procs_put(struct jnq_queue *q, uint64_t n);
void procs_take(struct jnq_queue *q, int64_t n);

/* Notes that this process is doing something. Out of the way of those that seldom need it. */
__attribute__((noinline, cold)) void procs_active(struct jnq_queue *q);

/* What all processes that there ever were have counted, and who waits now. */
void procs_sum(struct jnq_queue *q, jnq_counters *out);

/* Notes how a process that is still a zombie has ended. For who has found it dead; procs lock. */
void procs_note_status(struct jnq_queue *q, uint32_t owner);

/* Counts a death, and remembers whose, with so many tasks in hand. Procs lock. */
void procs_tell(struct jnq_queue *q, uint32_t owner, uint64_t tasks);

/* The tasks that the owner has in hand, as far as that is known. */
uint64_t procs_tasks(struct jnq_queue *q, uint32_t owner);

/* jnq_read_death(). */
int procs_obit(struct jnq_queue *q, uint64_t number, jnq_death *out);

/* True if the entry is in use, and its process is certainly dead. */
bool procs_dead(struct jnq_queue *q, uint32_t owner);

uint32_t procs_count(struct jnq_queue *q); /* no entry behind this one is in use */

#endif
