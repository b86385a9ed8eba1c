/* procs: the table of attached processes, and who of them is dead.
 *
 * State            written by       guard       order    if the writer dies here
 *   entry pid,     enter            procs lock  plain    not live yet: the entry is still free
 *     start
 *   entry live     enter, leave,    procs lock  rel/acq  none: the one step
 *                  reap
 *   count          enter            procs lock  plain    one entry too few is known: it was not live yet
 *   ready          enter            procs lock  plain    too low: memory is readied twice
 *   rover, deaths  enter, remove    procs lock  plain    a hint, and a figure for people
 *
 * An entry is one handle of one process: {pid, start time}, which no later process can have. Its number, index + 1,
 * is the owner in the heap's map. Dead is: no such pid, another start time, or a zombie. A process that is
 * stopped, slow, or cannot be looked at is alive.
 *
 * Waiting: never; nor do these functions lock. All but the first three require the procs lock.
 *
 * Namespaces: in another pid namespace a pid means another process or none, and so do the thread numbers that stand in the
 * locks and that the kernel compares when an owner dies; in another time namespace a process has another start time.
 * Those who live would be taken for dead, and the dead owner of a lock for somebody else. So only processes of the
 * creator's namespaces may enter; the rest is refused before it takes a lock.
 *
 * Not provided: the same, where there is no /proc to read the namespaces from. */
#ifndef JNQ_PROCS_H
#define JNQ_PROCS_H

#include "layout.h"

/* For the creator. Returns 0 or an errno. */
int procs_init(struct jnq_queue *q);

/* True if q->owner is an entry of this process; false after a fork. One load. */
bool procs_entered(struct jnq_queue *q);

/* True if this process is in another pid or time namespace than the creator. No system call once it is entered. */
bool procs_foreign(struct jnq_queue *q);

/* Assigns q->owner a free entry. Returns JNQ_OK, JNQ_CROWDED, JNQ_NO_MEMORY or another errno. */
int procs_enter(struct jnq_queue *q);

/* Frees an entry. */
void procs_remove(struct jnq_queue *q, uint32_t owner);

/* True if the entry is in use. */
bool procs_known(struct jnq_queue *q, uint32_t owner);

/* True if the entry is in use, and its process is certainly dead. */
bool procs_dead(struct jnq_queue *q, uint32_t owner);

uint32_t procs_count(struct jnq_queue *q); /* no entry behind this one is in use */
uint64_t procs_live(struct jnq_queue *q);

#endif
