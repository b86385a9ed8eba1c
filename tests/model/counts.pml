/* counts: what is unfinished, and how join() waits for a zero that may be over when it looks (csrc/counts.h).
 *
 * PUTTERS processes put PUTS items each, WORKERS processes take items and report them done, TAKES at the most or until
 * no more can come, JOINERS processes join once; with CUT a process calls shutdown(immediate), with OBSERVER one reads
 * `unfinished`.
 *
 * Properties
 *   exact      `unfinished` is what the count was at some moment of the call; dones <= puts always; no task_done() for
 *              an item that was taken is refused
 *   join only  join() returns only if the count was zero at some moment since it was called
 *   join will  a zero that a put finds when it comes to look, and ends, is recorded for who was in join() by then, and
 *              whoever sleeps in join() while the count is zero, or his zero is recorded, is woken; a slice has
 *              to help only after a death
 *   deadlock   the only end states are: everybody has finished, or joins and has no such zero
 *
 * STRICT_ZERO asks for more: that no zero is missed, not even one that lasts only while a put is between its look and
 * R1. That does not hold (counts_announce(): "a put was faster, and did not see the zero"), and need not: that put and
 * that task_done() go on at the same time, so the put may as well count as the first.
 *
 * Locks. A critical section is one step where nothing that others write without the lock is loaded in it: taking a
 * lock moves freely behind, and releasing it before what others do; recover.pml has every lock step.
 *
 * Left out: sleeping for items (get waits as if by magic; sleep.pml), EVENT_DEEP, task_done(n) for n > 1 and for items
 * that were not taken, giving back.
 *
 * Seeded bugs: COUNT_AFTER_PUBLISH, NO_ZERO_RECORD_BEFORE_PUT, JOINING_NOT_REREAD, WAKE_BEFORE_RECORD, RECORD_ANYWAY,
 * NO_RECHECK. */
#ifndef PUTTERS
#define PUTTERS 1
#endif
#ifndef PUTS
#define PUTS 1
#endif
#ifndef WORKERS
#define WORKERS 1
#endif
#ifndef TAKES
#define TAKES 9
#endif
#ifndef JOINERS
#define JOINERS 1
#endif

#define PROCESSES 8
#define EVENTS 1
#define ZERO 0 /* sh->zero */
#define LOCKS 2
#define TAIL 0
#define HEAD 1
#define FOR_EVER 255 /* UINT64_MAX */

byte puts, takes, dones, zero_at, cut, puts_seen;
bool joining, ended;
#ifdef COUNT_AFTER_PUBLISH
byte published;
#define PUBLISHED published
#else
#define PUBLISHED puts
#endif

/* Ghosts. */
byte since[PROCESSES];    /* of who is in join(); 255 when he is not */
bool was_zero[PROCESSES]; /* the count was zero since he called */
bool owed[PROCESSES];     /* there was a zero that must not be missed */
byte values;                  /* the set of values that the count had since the observer's call */
byte owes[PROCESSES], excuses;

#define TASKS (cut -> cut - 1 : puts)
#define UNFINISHED (dones < TASKS -> TASKS - dones : 0)
#define IN_JOIN(v) (since[v] != 255)
#define JOINED(v) (IN_JOIN(v) && (UNFINISHED == 0 || zero_at >= since[v]))

#define NOTE_ZERO(v) if :: IN_CALL(v) && UNFINISHED == 0 -> was_zero[v] = true :: else fi
#define IN_CALL(v) called[v]
bool called[PROCESSES];

#ifdef STRICT_ZERO
bool zero_in_join; /* there was a zero while process 1 was in join(), after it had announced itself */
#define NOTE_STRICTLY if :: IN_JOIN(1) && UNFINISHED == 0 -> zero_in_join = true :: else fi;
#else
#define NOTE_STRICTLY
#endif

/* To follow every step that changes the count. */
#ifdef OBSERVER
#define CHANGED NOTE_STRICTLY NOTE_ZERO(1); NOTE_ZERO(2); assert(dones <= puts); values = values | 1 << UNFINISHED
#else
#define CHANGED NOTE_STRICTLY NOTE_ZERO(1); NOTE_ZERO(2); assert(dones <= puts)
#endif

#define MISSED(ev) JOINED(me)
#define BROKEN_SLEEP(ev) assert(excuses > 0); excuses--
#define ON_DEATH(v) \
    excuses = excuses + owes[v]; \
    owes[v] = 0; called[v] = false; was_zero[v] = false; owed[v] = false; since[v] = 255
#define ON_SLEEP skip
#define ON_WAKE(v) skip
#define AFTER_WAKE_ONE skip
#define NOTIFIED skip
#define ON_TICK skip

#include "kernel.pml"
#include "event.pml"
#include "killer.pml"

/* counts.c: counts_tasks() */
inline counts_tasks(tasks)
{
#ifdef CUT
    if
    :: d_step { cut > 0 -> tasks = cut - 1 }
    :: else -> tasks = puts
    fi
#else
    tasks = puts
#endif
}

/* counts.c: record_zero() */
inline record_zero(at_puts)
{
    known = zero_at;
    do
    :: known >= (at_puts) -> break
    :: known < (at_puts) ->
        if /* cas_sc() */
        :: d_step { zero_at == known -> zero_at = (at_puts); known = 0 }; break
        :: d_step { zero_at != known -> known = zero_at }
        fi
    od;
    known = 0
}

#define OWE(v) if :: IN_JOIN(v) -> owed[v] = true :: else fi
#define KEPT(v) assert(!IN_JOIN(v) || !owed[v] || zero_at >= since[v])

#define OWE_JOINERS if :: UNFINISHED == 0 -> BOTH(OWE) :: else fi

#if JOINERS > 1
#define BOTH(what) what(1); what(2)
#else
#define BOTH(what) what(1)
#endif

/* queue.c: try_put(); fifo.c: fifo_push() */
proctype putter(byte me)
{
    byte n, known;
    {
        do
        :: n < PUTS ->
            lock_until(TAIL);
            if
            :: atomic { ended -> owner[TAIL] = 0; break } /* JNQ_SHUTDOWN */
            :: else
            fi;
#ifdef NO_ZERO_RECORD_BEFORE_PUT
            d_step { OWE_JOINERS };
#else
            if /* counts.c: counts_before_put() */
            :: d_step { !joining -> OWE_JOINERS }
            :: d_step { else -> OWE_JOINERS };
                if
                :: dones == puts -> /* puts stands still */
                    record_zero(puts);
                    joining = false
                :: else
                fi
            fi;
#endif
#ifdef COUNT_AFTER_PUBLISH
            published++;
#endif
            d_step { puts++; n++; CHANGED; BOTH(KEPT); owner[TAIL] = 0 } /* R1 */
        :: else -> break
        od;
        leave()
    }
    DIES
}

#define NO_MORE (!(live[3] || (PUTTERS > 1 && live[6])) || ended)

/* counts.c: counts_announce() */
inline counts_announce(done)
{
    counts_tasks(tasks);
    if
    :: tasks <= done ->
#ifdef WAKE_BEFORE_RECORD
        event_notify_all(ZERO);
#endif
#ifdef CUT
        if
        :: cut > 0 -> record_zero(FOR_EVER)
        :: else -> record_zero(done)
        fi;
#else
        record_zero(done);
#endif
#ifndef WAKE_BEFORE_RECORD
        event_notify_all(ZERO)
#endif
    :: else ->
#ifdef RECORD_ANYWAY
        record_zero(done);
        event_notify_all(ZERO)
#else
        if
        :: zero_at < done /* a put was faster, and did not see the zero */
        :: else -> event_notify_all(ZERO)
        fi
#endif
    fi
}

/* queue.c: jnq_get() and jnq_task_done(q, 1); counts.c: counts_done() */
proctype worker(byte me)
{
    byte n, done, tasks, known;
    EVENT_LOCALS;
    {
        do
        :: d_step { /* fifo.c: fifo_next(), fifo_step(): A1, R2 */
                owner[HEAD] == 0 && !cut && takes < PUBLISHED && n < TAKES ->
                n = (TAKES < 9 -> n + 1 : 0);
                if
                :: takes == puts_seen -> puts_seen = PUBLISHED
                :: else
                fi;
                takes++
            };
            done = dones;
            do
            :: tasks = puts_seen; /* load_relaxed() */
                if
                :: cut || tasks <= done || tasks - done <= 1 -> counts_tasks(tasks)
                :: else
                fi;
                if
                :: done > tasks || 1 > tasks - done -> /* JNQ_TOO_MANY_DONE */
                    assert(cut);
                    goto refused
                :: else
                fi;
                if /* cas_sc() */
                :: d_step {
                        dones == done -> dones++; CHANGED; done++;
                        owes[me] = (UNFINISHED == 0 -> JOINERS : 0)
                    }; /* R3 */
                    break
                :: d_step { dones != done -> done = dones }
                fi
            od;
            if
            :: tasks == done || cut ->
                counts_announce(done)
            :: else
            fi;
refused:
            atomic { owes[me] = 0; done = 0; tasks = 0 }
        :: n >= TAKES || NO_MORE && (takes == PUBLISHED || cut) -> break
        od;
        leave()
    }
    DIES
}

/* counts.c: counts_join() */
inline counts_join()
{
#ifdef JOINING_NOT_REREAD
    joining = true;
    d_step { loaded = puts; since[me] = (since[me] == 255 -> loaded : since[me]); loaded = 0 }
#else
    do
    :: joining = true;
        loaded = puts;
        if
        :: d_step { joining -> since[me] = (since[me] == 255 -> loaded : since[me]); loaded = 0 }; break
        :: else
        fi
    od
#endif
}

/* counts.c: counts_zero() with counts_unfinished(), into `holds`. The label is its user's. */
#define COUNTS_ZERO(again) \
    again: loaded = dones; \
    counts_tasks(tasks); \
    if \
    :: dones != loaded -> goto again \
    :: else -> d_step { holds = loaded >= tasks; tasks = 0; loaded = 0 } \
    fi; \
    if \
    :: holds \
    :: else -> holds = zero_at >= since[me] \
    fi

/* queue.c: jnq_join(), wait_for(). Where a slice ends for nothing the call is made again with the same `since`. */
proctype joiner(byte me)
{
    byte loaded, tasks;
    bool holds;
    EVENT_LOCALS;
    {
        d_step { called[me] = true; NOTE_ZERO(me) };
        counts_join();
        COUNTS_ZERO(at_once);
        do
        :: holds -> break
        :: else ->
#ifdef NO_RECHECK
            COUNTS_ZERO(before);
            if
            :: holds -> break
            :: else
            fi;
            event_prepare(ZERO);
#else
            event_prepare(ZERO);
            COUNTS_ZERO(before);
            if
            :: holds -> break
            :: else
            fi;
#endif
            event_sleep(ZERO);
#if TICKS
            if
            :: !woken -> counts_join()
            :: else
            fi;
#endif
            woken = false;
            COUNTS_ZERO(after)
        od;
        atomic {
            assert(was_zero[me]);
            called[me] = false; was_zero[me] = false; owed[me] = false; since[me] = 255;
            FORGET_E;
            live[me] = false; awake--
        }
    }
    DIES
}

#ifdef CUT
/* queue.c: shut_down(), immediate */
proctype ender(byte me)
{
    EVENT_LOCALS;
    {
        d_step { owner[TAIL] == 0 -> owner[TAIL] = me };
        d_step { owner[HEAD] == 0 -> owner[HEAD] = me };
        ended = true; /* R4 */
        d_step { cut = takes + 1; CHANGED; owes[me] = JOINERS; owner[HEAD] = 0; owner[TAIL] = 0 }; /* R5 */
        event_notify_all(ZERO);
        d_step { owes[me] = 0; live[me] = false; awake-- }
    }
    DIES
}
#endif

#ifdef OBSERVER
/* counts.c: counts_unfinished() */
proctype observer(byte me)
{
    byte loaded, tasks;
    {
        d_step { values = 1 << UNFINISHED };
again:
        loaded = dones;
        counts_tasks(tasks);
        if
        :: dones != loaded -> goto again
        :: else -> assert(values & 1 << (loaded < tasks -> tasks - loaded : 0))
        fi;
        leave()
    }
    DIES
}
#endif

#ifdef STRICT_ZERO
active proctype strict()
{
end_strict:
    d_step { awake == 0 && asleep[1] && zero_in_join && !JOINED(1) -> assert(false) }
}
#endif

init
{
    atomic {
        since[1] = 255;
        since[2] = 255;
        START(1, joiner(1));
        START(3, putter(3));
        START(4, worker(4));
#if WORKERS > 1
        START(5, worker(5));
#endif
#if JOINERS > 1
        START(2, joiner(2));
#endif
#if PUTTERS > 1
        START(6, putter(6));
#endif
#ifdef CUT
        START(7, ender(7));
#endif
#if defined(OBSERVER) && PUTTERS > 1
        START(7, observer(7));
#elif defined(OBSERVER)
        START(6, observer(6));
#endif
#if DEATHS
        run killer()
#endif
    }
}
