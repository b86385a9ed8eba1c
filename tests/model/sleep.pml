/* sleep: put and get, and how they sleep until there is an item or room.
 *
 * PUTTERS processes put ITEMS items each, GETTERS processes get, GETS times or for ever; MAXSIZE 0 is an unbounded
 * queue. UNGETS items may be given back; with SHUTDOWN a process ends the queue. With DEEP the sleepers also sleep long
 * (event.h).
 *
 * Properties
 *   deadlock   the only end states are: everybody has finished or sleeps and his condition is false
 *   lost wake  a slice ends with the condition true only if a death explains it, one such slice for a death:
 *              somebody died after his step and before his wake, or was woken and died before he looked
 *   long sleep the same for a long sleep, and only if the dead one (or who woke it) had been stopped for a slice
 *              between event_alert() and his step, or if another death left those who sleep long uncalled
 *   counting   takes <= puts <= takes + MAXSIZE
 *
 * Left out: what lies in the queue (recover.pml), deadlines, the spin before the sleep (a look like any other), the
 * return to Python once a second (it only makes sleeps shorter).
 *
 * Locks. What a lock guards is one step here: taking it moves freely behind what others do, releasing it before, and
 * nothing that is loaded in between changes (takes < puts under the head lock) or matters. recover.pml has every lock
 * step.
 *
 * Seeded bugs: WAKE_BEFORE_PUBLISH, NO_RECHECK, DEEP_AT_ONCE, DEEP_WITHOUT_SLICE, and those of event.pml.
 * ONLY_WAKERS_DIE and ALERTERS_LIVE take one excuse of a long sleep away: that who was woken died, and that who had
 * lowered the flag died before he woke all. */
#ifndef PUTTERS
#define PUTTERS 1
#endif
#ifndef GETTERS
#define GETTERS 1
#endif
#ifndef ITEMS
#define ITEMS 1
#endif
#ifndef MAXSIZE
#define MAXSIZE 0
#endif
#ifndef GETS
#define GETS 0
#endif
#ifndef UNGETS
#define UNGETS 0
#endif

#define EVENTS 2
#define ITEMS_EVENT 0 /* sh->items */
#define SPACE_EVENT 1 /* sh->space */

#define LOCKS 0
#define ROOM (MAXSIZE == 0 || puts - takes + front < MAXSIZE)

byte puts, takes, front; /* front: the length of the front list */
bool ended;
byte ungets_left = UNGETS;

/* Ghosts. */
byte owes[6];     /* sleepers that would miss a wake-up if this process died now */
bool called[6];   /* woken by a step, has not looked yet */
byte excuses;     /* slices that deaths explain */
byte mid, slow;   /* sets: is between event_alert() and its step; has been there for a slice */
byte beside[6];   /* who has been there since this one fell asleep */
bool called_slow[6], deeply[6];
byte long_excuses; /* long sleeps that deaths explain */
bool alerting[6];  /* has lowered EVENT_DEEP and not yet woken who sleeps long */
bool uncalled;     /* somebody died there */

#define BIT(v) (1 << (v))
#define CAN_GET (puts - takes + front > 0 || ended)
#define CAN_PUT (MAXSIZE == 0 || puts - takes + front < MAXSIZE || ended)
#define CONDITION(ev) ((ev) == ITEMS_EVENT && CAN_GET || (ev) == SPACE_EVENT && CAN_PUT)

#ifdef DEEP
#define IS_SHORT(v, ev) (asleep[v] == (ev) + 1 && !deeply[v])
#define SOMEBODY_SHORT(ev) \
    (IS_SHORT(1, ev) || IS_SHORT(2, ev) || IS_SHORT(3, ev) || IS_SHORT(4, ev) || IS_SHORT(5, ev))
#define MISSED(ev) (CONDITION(ev) && (!deeply[me] || !SOMEBODY_SHORT(ev)))
#define BROKEN_SLEEP(ev) \
    assert(excuses > 0); \
    excuses--; \
    called[me] = true; \
    if \
    :: deeply[me] && uncalled \
    :: deeply[me] && !uncalled -> assert(long_excuses > 0); long_excuses--; called_slow[me] = true \
    :: else -> slow = slow | beside[me] \
    fi
#define ON_DEATH(v) \
    if \
    :: owes[v] || called[v] -> \
        excuses = excuses + owes[v] + called[v]; \
        if \
        :: slow & BIT(v) || called_slow[v] -> long_excuses = long_excuses + owes[v] + called[v] \
        :: else \
        fi \
    :: else \
    fi; \
    ALERTER_DIED(v); \
    called[v] = false; called_slow[v] = false; owes[v] = 0; deeply[v] = false; beside[v] = 0; \
    FORGET(v); \
    slow = slow & (255 - BIT(v))
#define ON_WAKE(v) \
    called[v] = called[v] || owes[me] > 0; \
    called_slow[v] = called_slow[v] || (owes[me] > 0 && SLOW_EXCUSES(me))
#ifdef ONLY_WAKERS_DIE /* not who they wake */
#define SLOW_EXCUSES(v) false
#else
#define SLOW_EXCUSES(v) (slow & BIT(v))
#endif
#ifdef ALERTERS_LIVE
#define ALERTER_DIED(v) alerting[v] = false
#else
#define ALERTER_DIED(v) uncalled = uncalled || alerting[v]; alerting[v] = false
#endif
#define FORGET(v) \
    mid = mid & (255 - BIT(v)); \
    beside[1] = beside[1] & (255 - BIT(v)); \
    beside[2] = beside[2] & (255 - BIT(v)); \
    beside[3] = beside[3] & (255 - BIT(v)); \
    beside[4] = beside[4] & (255 - BIT(v)); \
    beside[5] = beside[5] & (255 - BIT(v))
#define ON_TICK slow = slow | beside[me]
#define ON_SLEEP called[me] = false; called_slow[me] = false; beside[me] = mid
#define ON_ALERT FORGET(me); mid = mid | BIT(me)
#define STEPPED FORGET(me); called_slow[me] = false
#define ON_LOWERED ON_ALERT; alerting[me] = true
#define ON_CALLED alerting[me] = false
#define NOTIFIED owes[me] = 0; slow = slow & (255 - BIT(me))
#else
#define MISSED(ev) CONDITION(ev)
#define BROKEN_SLEEP(ev) assert(excuses > 0); excuses--; called[me] = true
#define ON_DEATH(v) \
    excuses = excuses + owes[v] + called[v]; \
    called[v] = false; owes[v] = 0
#define ON_WAKE(v) called[v] = called[v] || owes[me] > 0
#define ON_TICK skip
#define ON_SLEEP called[me] = false
#define ON_ALERT skip
#define STEPPED skip
#define ON_LOWERED skip
#define ON_CALLED skip
#define NOTIFIED owes[me] = 0
#endif
#define AFTER_WAKE_ONE owes[me] = 0
#define LOOKED called[me] = false

#include "kernel.pml"
#include "event.pml"
#include "killer.pml"

/* LOOK: counts.c: counts_queued(), its loads; SEEN, in the caller's atomic: what they say, and may_get() or may_put()
 * (queue.c; fifo.c: fifo_room()) into `holds`. Macros, because they have a label. Without FINE it is one step: `takes`
 * stood still while it was read, so that the result is exact when `puts` is loaded; FINE shows it. */
#define HOLDS(ev) (((ev) == ITEMS_EVENT && queued > 0) || ((ev) == SPACE_EVENT && queued < MAXSIZE))
#ifdef FINE
#define LOOK(again) \
    again: f = front; \
    t = takes; \
    queued = puts - t + f; \
    if :: takes != t -> goto again :: else fi; \
    if :: front != f -> goto again :: else fi
#define SEEN(ev) d_step { holds = HOLDS(ev) || ended; t = 0; f = 0; queued = 0 }
#else
#define LOOK(again) queued = puts - takes + front
#define SEEN(ev) d_step { holds = HOLDS(ev) || ended; queued = 0 }
#endif

#ifdef DEEP
#define FORGET_DEPTH was_deep = false; last_old[me] = false; waits_on[me] = 0; e_old[me] = false
#else
#define FORGET_DEPTH FORGET_E
#endif

/* queue.c: wait_for(), sleep_until(), once per proctype; it ends where the condition holds, or `leaving`, when a signal ended it. */
inline wait_for(ev)
{
    do
    ::
#ifdef NO_RECHECK
        LOOK(before);
        atomic {
            SEEN(ev);
            if
            :: holds -> holds = false; break
            :: else
            fi
        };
        event_prepare(ev);
#else
        event_prepare(ev);
        LOOK(before);
        atomic {
            SEEN(ev);
            if
            :: holds -> holds = false; FORGET_DEPTH; break
            :: else
            fi
        };
#endif
#ifdef DEEP
        d_step {
            is_deep = announced[ev] & EVENT_DEEP; /* event_is_deep() */
#ifdef DEEP_AT_ONCE
            deeply[me] = is_deep;
#else
            deeply[me] = is_deep && was_deep && !last_old[me];
#endif
            was_deep = is_deep;
            is_deep = false;
            last_old[me] = e_old[me]
        };
#endif
        event_sleep(ev);
#if SIGNALS
        if
        :: leaving -> break
        :: else
        fi;
#endif
#ifdef DEEP
        deeply[me] = false;
#endif
        LOOK(after);
        atomic {
            SEEN(ev);
            if
            :: holds -> holds = false; woken = false; FORGET_DEPTH; break
#ifdef DEEP
            :: else
#else
            :: else -> woken = false
#endif
            fi
        };
#ifdef DEEP
        if
        :: d_step { !woken -> announced[ev] = announced[ev] | EVENT_DEEP } /* event_deepen() */
#ifdef DEEP_WITHOUT_SLICE
        :: woken = false
#else
        :: d_step { woken -> woken = false; was_deep = false }
        :: !woken
#endif
        fi
#endif
    od
}

#define WAIT_LOCALS byte t, f, queued; bool holds, is_deep, was_deep

#ifdef DEEP
/* event_alert(), and the beginning of the time in which a waker should not be stopped. */
inline alert(ev)
{
    d_step { ON_ALERT };
    event_alert(ev)
}
#endif

/* queue.c: put(), put_patiently(), try_put() */
proctype putter(byte me)
{
    byte n;
    EVENT_LOCALS;
    WAIT_LOCALS;
    {
        do
        :: n < ITEMS ->
#ifdef DEEP
            alert(ITEMS_EVENT);
#endif
#ifdef WAKE_BEFORE_PUBLISH
            event_notify_one(ITEMS_EVENT);
#endif
            if
            :: ended -> break /* JNQ_SHUTDOWN */
            :: d_step { !ended && !ROOM -> LOOKED; STEPPED }; /* JNQ_FULL */
                wait_for(SPACE_EVENT);
#if SIGNALS
                if
                :: leaving -> break
                :: else
                fi
#endif
            :: d_step { /* fifo.c: fifo_push(): R1 */
                    !ended && ROOM ->
                    puts++;
                    assert(MAXSIZE == 0 || puts - takes + front <= MAXSIZE);
                    STEPPED;
                    LOOKED;
                    owes[me] = 1;
                    n++
                };
#ifndef WAKE_BEFORE_PUBLISH
                event_notify_one(ITEMS_EVENT)
#endif
            fi
        :: else -> break
        od;
        leave()
    }
    DIES
}

#if MAXSIZE
#define TOOK n = (GETS -> n + 1 : 0); STEPPED; LOOKED; owes[me] = 1
#else
#define TOOK n = (GETS -> n + 1 : 0); STEPPED; LOOKED
#endif

/* queue.c: jnq_get(), get_patiently(), try_get(), then perhaps jnq_unget() */
proctype getter(byte me)
{
    byte n;
    EVENT_LOCALS;
    WAIT_LOCALS;
    {
        do
        ::
#if GETS
            if
            :: n == GETS -> break
            :: else
            fi;
#endif
#if defined(DEEP) && MAXSIZE
            alert(SPACE_EVENT);
#endif
            if /* fifo.c: fifo_next() */
            :: front == 0 && takes == puts && ended -> break /* JNQ_SHUTDOWN */
            :: d_step { front == 0 && takes == puts && !ended -> LOOKED; STEPPED }; /* JNQ_EMPTY */
                wait_for(ITEMS_EVENT);
#if SIGNALS
                if
                :: leaving -> break
                :: else
                fi
#endif
            :: d_step { /* cells_pop(), or A1 and R2 */
                    front > 0 || takes < puts ->
                    if
                    :: front > 0 -> front--
                    :: else -> takes++
                    fi;
                    TOOK
                }
#if MAXSIZE
                ;
                event_notify_one(SPACE_EVENT)
#endif
#if UNGETS
                ;
                if /* unget_patiently() */
                :: d_step { ungets_left > 0 -> ungets_left--; front++; owes[me] = 1 }; /* cells.c: cells_push() */
                    event_notify_one(ITEMS_EVENT)
                :: true
                fi
#endif
            fi
        od;
        leave()
    }
    DIES
}

#ifdef SHUTDOWN
/* queue.c: shut_down(), not immediate */
proctype ender(byte me)
{
    EVENT_LOCALS;
    {
        d_step { ended = true; owes[me] = GETTERS + PUTTERS }; /* R4 */
        event_notify_all(ITEMS_EVENT);
        owes[me] = PUTTERS;
        event_notify_all(SPACE_EVENT);
        d_step { owes[me] = 0; live[me] = false; awake-- }
    }
    DIES
}
#endif

init
{
    atomic {
        START(1, putter(1));
#if PUTTERS > 1
        START(2, putter(2));
#endif
        START(3, getter(3));
#if GETTERS > 1
        START(4, getter(4));
#endif
#ifdef SHUTDOWN
        START(5, ender(5));
#elif PUTTERS > 2
        START(5, putter(5));
#elif GETTERS > 2
        START(5, getter(5));
#endif
#if DEATHS
        run killer()
#endif
    }
}
