/* counts: what is queued and what is unfinished, derived from the words that each change in one step.
 *
 *   puts   items ever put          R1
 *   takes  items ever taken        R2  (items given back stand in the front list; its length is part of one word)
 *   dones  tasks reported done     R3
 *   cut    R5: set by shutdown(immediate) to 1 + the tasks that were not queued; from then on nothing is queued, and
 *          as many tasks as were not queued are all the tasks there are
 *
 * A zero, and the edge of it. join() returns if the count is zero or was zero since it was called. A zero at
 * `puts` == P is recorded in zero_at (which only grows) by the task_done() that makes it, before anybody is woken, and,
 * in case that process dies right there, by the next put, before it ends the zero (it holds the tail lock, so `puts`
 * stands still, and looks at dones only while somebody is in join()). A zero that is made after that put has looked,
 * and so lasts for some of its instructions, may be missed: put and task_done() go on at once, and the put counts as
 * the first, though counts_unfinished() may have seen the zero. A joiner that came when puts was P0 > dones
 * returns when zero_at >= P0. Both witnesses are exact: after seeing dones == D a load of puts that gives D
 * proves that the count was zero then, because both only grow and dones <= puts. */
#ifndef JNQ_COUNTS_H
#define JNQ_COUNTS_H

#include "layout.h"

/* Whose the unfinished tasks are (JNQ_RAISE): each entry of the process table knows how many tasks its process took
 * and how many it reported done. A report by a process that has none in hand, or the end in order of one that has, sets
 * `foreign` for good: then tasks are handed on in ways that cannot be seen.
 *
 * State            written by       guard  order  if the writer dies here
 *   dones of the   task_done        none   sc     before R3 with a report under way, after R3 without: what dies in
 *     entry                                       between is unsure
 *   foreign        task_done, reap  none   sc     none: only ever set */

/* The number of tasks there ever were. */
uint64_t counts_tasks(struct jnq_queue *q);

/* Both exact at one moment of the call. */
uint64_t counts_queued(struct jnq_queue *q);
uint64_t counts_unfinished(struct jnq_queue *q);

/* Fills in what is derived from the words: all of one moment of the call, if they stand still for one of many looks,
 * else of about the same. */
void counts_read(struct jnq_queue *q, jnq_counters *out);

/* True if the words are the same in both: between two looks at a queue they have then not moved. */
bool counts_same(const struct jnq_shared *a, const struct jnq_shared *b);

/* False only after foreign writes: then a wait for these counts might have no end. */
bool counts_plausible(struct jnq_queue *q);

/* Adds n to dones; JNQ_OK or JNQ_TOO_MANY_DONE. Takes effect at R3; records and announces a zero. Not with
 * JNQ_REDELIVER. */
int counts_done(struct jnq_queue *q, uint64_t n);

/* Tasks reported done, and dead letters. */
uint64_t counts_finished(struct jnq_queue *q);

/* Records and announces a zero, if so many finished are one: after a step under the head lock that finished tasks. */
void counts_announce(struct jnq_queue *q, uint64_t finished);

/* For a put, under the tail lock, before R1: records a zero that the put will end. */
void counts_before_put(struct jnq_queue *q);

/* For a joiner: announces it, and gives the `since` to wait with. */
uint64_t counts_join(struct jnq_queue *q);

/* True if the count is zero or was since. */
bool counts_zero(struct jnq_queue *q, uint64_t since);

#endif
