/* kernel: what the machine and the system do under the protocol: processes that die, robust locks, the futex.
 *
 * Steps. Every access of the C code to a shared word is one step of the model, and between any two steps any other
 * process may move, or this one may die. The words are sequentially consistent here because the code uses its
 * sc operations for them (csrc/atomics.h), or a lock orders the accesses. Work on local variables is joined to a step.
 *
 * Death: the killer ends any live process between any two of its steps, DEATHS times at the most. Its locks become
 * free and are reported as orphaned to the next who takes them, until one calls lock_repaired(). A sleeper
 * that dies is no longer found by a wake.
 *
 * The futex. futex_wait compares the word and falls asleep in one step. futex_wake wakes any one sleeper, or all, and
 * says how many.
 *
 * Time. A slice ends only when nobody else can move (awake == 0) and the sleeper's condition holds: so every slice
 * that ends is a wake-up that was missing, and the model asserts that a death explains it. TICKS slices may end at any
 * moment besides, and SIGNALS signals may end a wait.
 *
 * The file that includes this one says what its ghosts do: ON_DEATH(v), ON_SLEEP, ON_WAKE(v), AFTER_WAKE_ONE, and with
 * event.pml MISSED(ev), BROKEN_SLEEP(ev), ON_TICK. */
#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef TICKS
#define TICKS 0
#endif
#ifndef SIGNALS
#define SIGNALS 0
#endif

#ifndef PROCESSES
#define PROCESSES 6 /* numbers 1 to 5; 0 is nobody. Only 1 to 5 sleep. */
#endif

bool live[PROCESSES];
byte asleep[PROCESSES]; /* 1 + the event it sleeps on */
byte awake;             /* live processes that do not sleep */
byte deaths_left = DEATHS, ticks_left = TICKS, signals_left = SIGNALS;

#if LOCKS
byte owner[LOCKS];
bool orphan[LOCKS];

/* lock.c: lock_until(). A lock that stays busy is tried again, which is the same as waiting. orphan[l] is the answer
 * LOCK_ORPHANED. */
inline lock_until(l)
{
    d_step { owner[l] == 0 -> owner[l] = me }
}

/* lock.c: lock_repaired(), lock_release() */
inline lock_repaired(l) { orphan[l] = false }
inline lock_release(l) { owner[l] = 0 }
#endif

#define FALL_ASLEEP(ev) asleep[me] = (ev) + 1; awake--; ON_SLEEP
#define WAKE_UP(v) asleep[v] = 0; awake++

#define WAKE_ONE(v, ev) :: asleep[v] == (ev) + 1 -> WAKE_UP(v); ON_WAKE(v); woke = 1
#define WAKE_EACH(v, ev) if :: asleep[v] == (ev) + 1 -> WAKE_UP(v); ON_WAKE(v); woke++ :: else fi

/* event_futex.c: door_wake(ev, 1). The kernel may choose any sleeper. */
inline door_wake_one(ev)
{
    atomic {
        if
        WAKE_ONE(1, ev)
        WAKE_ONE(2, ev)
        WAKE_ONE(3, ev)
        WAKE_ONE(4, ev)
        WAKE_ONE(5, ev)
        :: else -> woke = 0
        fi;
        AFTER_WAKE_ONE
    }
}

/* event_futex.c: door_wake_all() */
inline door_wake_all(ev)
{
    d_step {
        woke = 0;
        WAKE_EACH(1, ev);
        WAKE_EACH(2, ev);
        WAKE_EACH(3, ev);
        WAKE_EACH(4, ev);
        WAKE_EACH(5, ev);
        woke = 0
    }
}

/* A process that has nothing more to do. */
inline leave()
{
    d_step { live[me] = false; awake-- }
}

#define DIES unless { !live[me] }

#define START(v, what) live[v] = true; awake++; run what
