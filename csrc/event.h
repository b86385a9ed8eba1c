/* event: the one door to sleeping, and the only place that reads a clock.
 *
 * An event lets processes wait until a condition over shared words holds. Two implementations, chosen
 * at build time: event_futex.c (Linux) and event_sem.c (POSIX process-shared semaphores).
 *
 * State            written by        guard  order  if the writer dies here
 *   seq            wakers            none   sc     sleepers look again after their slice
 *   announced      sleepers, wakers  none   sc     a dead sleeper costs the next waker one call
 *   answered       wakers            none   sc     too old: costs the next waker one call
 *   all, sem       semaphore door    none   sc     as seq; a lost token delays by one slice
 *   woken_ns       wakers            none   relaxed  a guess that spin.h learns from
 *
 * Waiting, and why no wake-up is lost
 *   sleeper: e = event_prepare(): e := seq, then announced += 2;  look at the condition;  event_sleep(e)
 *   waker:   make the condition true;  event_notify(): if announced != answered { seq += 1; wake }
 * Sleeper and waker use sequentially consistent steps, so either the sleeper sees the condition or the
 * waker sees the announcement. A sleeper that is not yet asleep when seq moves does not fall asleep.
 * Announcements are not taken back, and sleepers are not counted, because a death could falsify both: when the
 * kernel finds nobody to wake after seq has moved, every announcement that the waker had seen is over (its sleeper has
 * been woken, is dead, or carries an old seq), and the waker notes that number in `answered`.
 *
 * Death: a waker killed between its step and its wake, or a sleeper that is woken and killed before it looks, leaves
 * sleepers asleep; they look again after EVENT_SLICE_NS. Nothing has to be repaired.
 *
 * Long sleeps. Looking so often costs an idle process up to 0.1 % of a CPU. So who has slept in vain for a second
 * raises EVENT_DEEP, and after one more slice sleeps for EVENT_LONG_NS at a time. Before the step that makes a
 * condition true, a waker that finds the flag lowers it and wakes all (event_alert): they look, find nothing, and
 * sleep in slices again. A waker that missed the flag because it was raised just then makes its step within that one
 * more slice. Only if it was stopped for longer than a slice just between the two, or another waker was killed just
 * between lowering the flag and waking all, and then it or who it wakes is killed as above, a sleeper waits for
 * EVENT_LONG_NS.
 *
 * Not provided: fairness between sleepers. */
#ifndef JNQ_EVENT_H
#define JNQ_EVENT_H

#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

#define EVENT_SLICE_NS 80000000  /* 80 ms: with the time to wake, below the promised 100 */
#define EVENT_LONG_NS 400000000  /* a long sleep */
#define EVENT_DEEP_NS 1000000000 /* of vain sleep before it */
#define EVENT_DEEP 1u            /* in `announced` */

#ifdef JNQ_DOOR_SEM
#define EVENT_DOOR 2
#else
#define EVENT_DOOR 1
#endif

struct jnq_event {
    uint32_t seq;
    uint32_t announced; /* twice the number of announcements, and EVENT_DEEP */
    uint32_t answered;
    uint32_t all;          /* semaphore door: seq of the last wake for all */
    union {                /* both builds keep the room */
        sem_t sem;         /* semaphore door */
        uint64_t woken_ns; /* futex door: when somebody was last woken */
        char room[32];
    };
};

enum event_result {
    EVENT_WOKEN,       /* or no longer worth sleeping: look at the condition */
    EVENT_TIMEOUT,     /* `until_ns` has passed */
    EVENT_INTERRUPTED, /* a signal handler ran in this thread */
};

/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t event_now(void);

/* The same to some milliseconds, but quickly. */
int64_t event_coarse_now(void);

/* Milliseconds since the epoch, for people. */
uint64_t event_wall_ms(void);

/* Sleeps about so long, or less. For a lock that is held by somebody who is not running. */
void event_pause(int64_t ns);

/* Readies a zeroed event. Returns 0 or an errno. */
int event_init(struct jnq_event *ev);

/* Announces a sleep; the condition must be looked at between this and event_sleep(). */
uint32_t event_prepare(struct jnq_event *ev);

/* Sleeps until a wake that follows event_prepare(), the time, or a signal. May return EVENT_WOKEN for no
 * reason. Requires that no lock is held. */
enum event_result event_sleep(struct jnq_event *ev, uint32_t e, int64_t until_ns);

/* Raises EVENT_DEEP. */
void event_deepen(struct jnq_event *ev);

bool event_is_deep(struct jnq_event *ev);

/* Lowers EVENT_DEEP and wakes all if it is up; before the caller's step. Costs one load when nobody sleeps long. */
void event_alert(struct jnq_event *ev);

/* Wakes up to n sleepers, after the caller's step. Costs one load when nobody sleeps: then false. */
bool event_notify(struct jnq_event *ev, uint64_t n);

/* When a waker last found somebody to wake, or tried to; 0 if that is not known. */
int64_t event_woken_ns(struct jnq_event *ev);

/* Wakes every sleeper. */
void event_notify_all(struct jnq_event *ev);

#endif
