/* spin: a waiter looks at its condition for some microseconds before it sleeps, where that has lately paid.
 *
 * State            written by   guard  order    if the writer dies here
 *   sh->spinning   spinners     none   sc       none: the slot is free once its time has passed
 *   sh->coming     putters      none   relaxed  none: a time that passes
 *   q->copy_ns     putters      none   relaxed  private: gone with it
 *   q->spins       waiters      none   relaxed  private: gone with it. A guess that threads race for
 *   q->wake_ns     waiters      none   relaxed  the same
 *   cpus, looked   waiters      none   relaxed  the same
 *
 * A slot holds the time until which its spinner spins, or one that has passed: then it is free. Of the slots of a queue
 * the first CPUs - 1 are used (as many CPUs as this thread may run on), so there is always one on which the other side
 * can run, and on one CPU nobody spins. Nor does a process that has the queue for itself.
 *
 * What is learnt, for each handle and direction: whether spinning pays, and how long. Each wait tells how long it took
 * until its condition held; after a sleep, until it was woken (event_woken_ns()), from where on it tells what a sleep
 * costs. Spinning would have paid if the first is not much more than the second. So a wait that slept also teaches to
 * spin, and nothing has to be tried out; where waking is quick, spins are short. If both sides of a busy pair
 * sleep, each waits for as long as the other takes to wake, and a little: "not much more" lets both of them find out.
 *
 * Who copies a large item into the queue says when it will be there, by what copies have taken before. Whoever waits
 * for an item spins through that, whatever was learnt: the CPU that copies is at work, and a sleep would cost more than
 * the wait. Not where others needed the CPU for a while.
 *
 * A spinner that is not served at once offers its CPU, by sched_yield(), to whoever is ready to run there: that may be
 * the one that it waits for. Where the offer was used, the next spinner makes it first. So a pair that the system has
 * put on one CPU takes turns without sleeping and waking. Whoever gets the CPU back late knows that it is needed, and
 * sleeps.
 *
 * Invariants: none that anything depends on; what the words say can only cost time.
 *   - At most CPUs - 1 slots are in use. A spinner looks at the clock after each SPIN_LOOKS looks, and gives up
 *     when its time has passed; one that finds that out late has been off its CPU, and is no longer counted.
 *
 * Ordering: none. The condition is looked at with the operations of its words; a spinner has announced nothing.
 *
 * Waiting: nobody waits for a slot, and nothing is woken. Why no wake-up is lost: spinning comes before the
 * announcement of a sleep (event.h) and changes nothing that wakers look at. Whoever has spun in vain announces its
 * sleep, looks at the condition again, and only then sleeps. To others a spinner is a process that is in no call.
 *
 * Death: a dead spinner's slot is taken for at most SPIN_MAX_NS more. So is one of a spinner that is stopped.
 *
 * Foreign writes: a slot with a time further away than twice SPIN_MAX_NS is free; what is coming later than anybody
 * would spin counts as nothing.
 *
 * Not provided: a common bound for all queues of a program; knowledge of CPUs that are busy with other programs, or of
 * a quota of CPU time. */
#ifndef JNQ_SPIN_H
#define JNQ_SPIN_H

#include "layout.h"

#define SPIN_MAX_NS 150000 /* nobody spins longer */
#define SPIN_WAKE_NS 20000 /* what a sleep costs, until that is known */
#define SPIN_LOOKS 16      /* between two looks at the clock: about a microsecond */

/* A condition over shared words: looked at without a lock. */
typedef bool condition(struct jnq_queue *q, uint64_t arg);

/* For a new handle. */
void spin_init(struct jnq_queue *q);

/* True once the condition holds, if it does so before the deadline and while it pays to spin; *now goes on meanwhile.
 * Requires that no lock is held, nor the GIL. */
bool spin_until(struct jnq_queue *q, enum jnq_wait in, condition *holds, uint64_t arg, int64_t deadline, int64_t *now);

/* Learns from a wait that did not end in spin_until(): it began and ended then, with the condition or without;
 * `woken` is when somebody was last woken for it, 0 if that is not known. */
void spin_slept(struct jnq_queue *q, enum jnq_wait in, bool held, int64_t began, int64_t woken, int64_t now);

/* Around the copying of so many units (1 or more) into the queue; the first returns when it began, for the second. */
int64_t spin_copying(struct jnq_queue *q, uint64_t units);
void spin_copied(struct jnq_queue *q, uint64_t units, int64_t began);

#endif
