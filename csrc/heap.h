/* heap: gives out runs of units (pages) of the segment, and gives their memory back to the system.
 *
 * State            written by      guard      order    if the writer dies here
 *   map[first]     alloc           heap lock  acq/rel  one store makes a run used; see below
 *   map[first]     free, own,      the run    acq/rel  none: one store frees it, or changes its owner
 *                  lease
 *   MARK bits      recover_reap      all locks  sc       cleared before every use
 *   recent, top,   alloc, free     heap lock  plain    repair() drops the hints
 *     rover
 *   free_warm,     alloc, free     none       sc       estimates: off by a run until heap_sweep() counts
 *     used
 *   map_ready      alloc           heap lock  plain    too low: memory is readied twice
 *   keep, passed,  alloc, cool     none       relaxed  guesses
 *     there
 *
 * The map has one word per unit. The word of a run's first unit holds its length, whether it is free, whether all of it
 * is backed by memory (warm), and its owner, or for a free run who has freed it, or its first part, if that is known;
 * the words inside a run mean nothing. To split a run, the word of the second part is written first, then the one that
 * makes the first part shorter; to join two, the one that makes the first longer. So each is one store, and the map
 * tiles the heap at every moment (I3). Only a hint could lead to a word inside a run: joining drops the hint to the
 * second part, a death all hints.
 *
 * Ownership: the owner of a used run that can be reached (from the blocks or the front list) is the queue,
 * whatever the word says. The owner of one that cannot be reached is the process it names: it is about to make
 * it reachable, has just made it unreachable, or lends it to Python. So before a process unlinks a run it makes
 * itself the owner, and a process's death frees what it owns and nobody can reach (recover_reap).
 *
 * A lease is a used run, a cell, that cannot be reached, and whose word says so: its owner has the task in it in hand.
 * When the owner dies it is not freed but redelivered. The bit means nothing in a run that can be reached.
 *
 * Given runs (jnq_give()): who has put one may go on looking at it, so it must not be freed before both the giver and
 * the taker are done with it. The map word says that it is one (GIVEN), its first word who the giver is:
 *   giver          is                            next
 *   X              looked at by owner number X   0 if X is done with it, or dead; X | DONE if the taker is done first
 *   0              the taker's alone             the taker frees it
 *   X | DONE       the giver's alone             the giver frees it; if X is dead, who reaps it
 * Each change is one compare-and-swap, so exactly one of them frees the run. A taker that dies is done with it; the run
 * is the giver's then, if that still looks at it.
 *
 * State            written by      guard      order    if the writer dies here
 *   map GIVEN      heap_give       the run    rel      not put yet: freed, as X is dead
 *   giver          heap_give,      none       cas sc   see above
 *                  heap_ungive, free, reap
 *
 * Memory: units are backed before anybody writes to them, so that a lack of memory is an error and not SIGBUS.
 * Freed runs stay warm up to RESERVE_BYTES in all, or as much as is in use if that is more (a backlog that
 * comes and goes then runs on warm pages); beyond that, memory goes back bit by bit with every run that is freed.
 * Where large items pass one after the other, which shows when half as many again come as are ever there together,
 * what some of them take (up to KEEP_BYTES) stays warm, too, until the queue was empty for a second or a process left.
 *
 * Foreign writes: no word of the map and no hint is followed before run_at() has seen that the run lies in the heap.
 * Each walk goes forward by the length of such a run, so it ends.
 *
 * Waiting: never, but for heap_await(), which spins for PATIENCE_NS at most. Freeing does not even need the lock (a
 * busy one only costs the hint). The system calls that ready or return memory are made by the owner of the run, without
 * the lock.
 *
 * Not provided: alignment other than units, growth of a run. */
#ifndef JNQ_HEAP_H
#define JNQ_HEAP_H

#include "layout.h"

#define RESERVE_BYTES (8u << 20)
#define KEEP_BYTES (512u << 20)

/* Makes the whole heap one cold free run. For the creator. Returns 0 or JNQ_NO_MEMORY. */
int heap_init(struct jnq_queue *q);

/* A used run of at least `bytes`, backed by memory and ours, in *unit (never 0). Tries for the lock until the
 * deadline. Returns JNQ_OK, JNQ_INTERRUPTED (lock busy), JNQ_CORRUPT or JNQ_NO_MEMORY. */
int heap_alloc(struct jnq_queue *q, uint64_t bytes, int64_t until, uint64_t *unit);

/* The same for a put: with JNQ_REDELIVER it also leaves memory for the lease without which what is put could not be
 * taken. Where the system has none, so much stays when the heap gives back what is free. */
int heap_alloc_to_put(struct jnq_queue *q, uint64_t bytes, int64_t until, uint64_t *unit);

/* Frees a used run. Requires that it is ours and cannot be reached. A given one only if its giver is done with it.
 * Nothing, if foreign writes left no used run
 * there. */
void heap_free(struct jnq_queue *q, uint64_t unit);

/* Makes a run of ours one that is given, before it is put; ends that, if it was not put. */
void heap_give(struct jnq_queue *q, uint64_t unit);
void heap_take_back(struct jnq_queue *q, uint64_t unit);

/* For the giver: it is done with the run, and frees it if the taker is, too. */
void heap_ungive(struct jnq_queue *q, uint64_t unit);

/* The bytes before the payload of a run that is given; 0 in others. */
uint64_t heap_preface(struct jnq_queue *q, uint64_t unit);

/* Makes us the owner. Requires the lock under which the run is reached. The same holds. */
void heap_own(struct jnq_queue *q, uint64_t unit);

/* Makes the run a lease of the owner, or (0) ends that. Requires the head lock. */
void heap_lease(struct jnq_queue *q, uint64_t unit, uint32_t owner);

/* What used runs take, and the most that they ever took, without the lock: wrong after a death until the next sweep. */
void heap_glance(struct jnq_queue *q, uint64_t *used_bytes, uint64_t *peak_bytes);

/* Whose lease the run is, or 0. */
uint32_t heap_leaser(struct jnq_queue *q, uint64_t unit);

/* For who finds that large items no longer pass: the memory that was kept for them goes back, or a part of it; then it
 * is still kept, and the next one goes on. */
bool heap_is_kept(struct jnq_queue *q);
void heap_cool(struct jnq_queue *q);

/* For who is about to put so many bytes. If readers are draining the queue, waits a moment for what they free where
 * nothing is warm, because backing fresh memory takes so long that they may be faster; or where a little more is in use
 * than the caches hold, because the reader of what has left them would fall behind even more. Waits as long as backing
 * would take, so that growing takes at most twice as long; the next time not, if that was in vain. Requires that no
 * lock is held. */
void heap_await(struct jnq_queue *q, uint64_t bytes);

/* The bytes of the used run that begins at `unit`, or 0 if none does. */
uint64_t heap_bytes(struct jnq_queue *q, uint64_t unit);

/* The heap lock for the functions below: JNQ_OK, JNQ_INTERRUPTED or JNQ_CORRUPT. */
int heap_lock(struct jnq_queue *q, int64_t until);
void heap_unlock(struct jnq_queue *q);

/* Requires the heap lock, all of these. */
bool heap_owns_any(struct jnq_queue *q, uint32_t owner);
void heap_unmark_all(struct jnq_queue *q);
/* Marks a run that can be reached, which is no lease then. False: no used run begins there, or it is marked. */
bool heap_mark(struct jnq_queue *q, uint64_t unit);
void heap_sweep(struct jnq_queue *q, uint32_t owner); /* frees the owner's unmarked runs, counts anew */
/* The owner's unmarked leases: their number, and the first `room` of them. */
uint64_t heap_leases(struct jnq_queue *q, uint32_t owner, uint64_t *units, uint64_t room);
/* What used runs and warm free runs take. */
void heap_count(struct jnq_queue *q, uint64_t *used_bytes, uint64_t *reserve_bytes);
/* I3, and I5: the owner of every unmarked used run is `known`. Returns 0 and the number of unmarked leases, or the
 * number of the broken one. */
int heap_check(struct jnq_queue *q, bool (*known)(struct jnq_queue *, uint32_t), uint64_t *leases);

#endif
