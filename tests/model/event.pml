/* event: csrc/event.h, event.c and event_futex.c, step by step. What wait_for() of queue.c does with them stands in the
 * models that wait.
 *
 * Only whether two values of `seq`, or two of `announced`, are the same matters to the code, and it never meets an old
 * value again (2^31 additions must lie between). So of seq the model keeps whether what a process remembers is still
 * the value, and numbers the values of `announced` that are remembered anywhere in the order of where they stand.
 * That is exact but for the wrap, and keeps the number of states small.
 *
 * Seeded bugs: ANSWERED_UNCONDITIONALLY, ANSWER_RELOADED, E_AFTER_ANNOUNCING, NO_ALERT. */
#define EVENT_DEEP 1

bool e_old[PROCESSES];    /* seq has moved since this process loaded it into e */
bool last_old[PROCESSES]; /* the same for last_e */
byte waits_on[PROCESSES]; /* 1 + the event of e and last_e */

/* Twice a number, and EVENT_DEEP. */
byte announced[EVENTS] = 2;
byte answered[EVENTS] = 2;
byte a[PROCESSES]; /* what event_notify() remembers; 0 when it does not */

hidden byte x, i, names[16];

#define FORGET_LOCALS(v) e_old[v] = false; last_old[v] = false; waits_on[v] = 0; a[v] = 0; rename()

#define OUTDATE(v, ev) if :: waits_on[v] == (ev) + 1 -> e_old[v] = true; last_old[v] = true :: else fi

/* add_sc(&ev->seq, 1) */
inline add_seq(ev)
{
    d_step {
        OUTDATE(1, ev);
        OUTDATE(2, ev);
        OUTDATE(3, ev);
        OUTDATE(4, ev);
        OUTDATE(5, ev)
    }
}

#define RENAME(word) \
    if \
    :: word && names[word >> 1] == 0 -> x++; names[word >> 1] = x \
    :: else \
    fi; \
    if \
    :: word -> word = names[word >> 1] << 1 | (word & EVENT_DEEP) \
    :: else \
    fi

inline rename()
{
    i = 0;
    do
    :: i < 16 -> names[i] = 0; i++
    :: else -> break
    od;
    x = 0;
    i = 0;
    do
    :: i < EVENTS ->
        RENAME(announced[i]);
        RENAME(answered[i]);
        i++
    :: else -> break
    od;
    i = 1;
    do
    :: i < PROCESSES ->
        RENAME(a[i]);
        i++
    :: else -> break
    od;
    i = 0
}

/* add_sc(&ev->announced, 2): a number that nobody remembers */
inline add_announced(ev)
{
    d_step { announced[ev] = 15 << 1 | (announced[ev] & EVENT_DEEP); rename() }
}

#ifdef DEEP
#define FORGET_E e_old[me] = false
#else
#define FORGET_E e_old[me] = false; waits_on[me] = 0
#endif

/* Local variables that these steps work on. */
#define EVENT_LOCALS byte woke; bool woken, leaving

/* e = load_sc(&ev->seq); last_e == e, if it is still asked, is !last_old */
inline load_seq(ev)
{
    d_step { e_old[me] = false; waits_on[me] = (ev) + 1 }
}

/* event.c: event_prepare() */
inline event_prepare(ev)
{
#ifdef E_AFTER_ANNOUNCING
    add_announced(ev);
    load_seq(ev)
#else
    load_seq(ev);
    add_announced(ev)
#endif
}

/* event.c: event_alert() */
inline event_alert(ev)
{
#ifdef NO_ALERT
    skip
#else
    if
    :: announced[ev] & EVENT_DEEP -> /* event_is_deep() */
        d_step { announced[ev] = announced[ev] & 254; ON_LOWERED };
        add_seq(ev);
        door_wake_all(ev);
        d_step { ON_CALLED }
    :: else
    fi
#endif
}

/* event.c: event_notify(ev, 1) */
inline event_notify_one(ev)
{
    d_step { a[me] = announced[ev]; rename() };
    if
    :: d_step { a[me] == answered[ev] -> NOTIFIED; a[me] = 0; rename() }
    :: else ->
        add_seq(ev);
        door_wake_one(ev);
#ifdef ANSWERED_UNCONDITIONALLY
        d_step { answered[ev] = a[me]; NOTIFIED; woke = 0; a[me] = 0; rename() }
#else
        if
#ifdef ANSWER_RELOADED
        :: d_step { woke == 0 -> answered[ev] = announced[ev]; NOTIFIED; a[me] = 0; rename() }
#else
        :: d_step { woke == 0 -> answered[ev] = a[me]; NOTIFIED; a[me] = 0; rename() }
#endif
        :: d_step { else -> NOTIFIED; woke = 0; a[me] = 0; rename() }
        fi
#endif
    fi
}

/* event.c: event_notify_all() */
inline event_notify_all(ev)
{
    d_step { a[me] = announced[ev]; rename() };
    if
    :: d_step { a[me] == answered[ev] -> a[me] = 0; rename() }
    :: d_step { else -> a[me] = 0; rename() };
        add_seq(ev);
        door_wake_all(ev)
    fi
}

/* event_futex.c: event_sleep(). Leaves `woken` true for EVENT_WOKEN, `leaving` for EVENT_INTERRUPTED. Once per
 * proctype, because of the label. */
inline event_sleep(ev)
{
    if
    :: d_step { e_old[me] -> woken = true; FORGET_E } /* EAGAIN */
    :: d_step { !e_old[me] -> FALL_ASLEEP(ev); FORGET_E };
end_asleep:
        if
        :: d_step { live[me] && !asleep[me] -> woken = true }
        :: d_step { asleep[me] && awake == 0 && MISSED(ev) -> BROKEN_SLEEP(ev); WAKE_UP(me) }
#if TICKS
        :: d_step { asleep[me] && ticks_left > 0 -> ticks_left--; ON_TICK; WAKE_UP(me) }
#endif
#if SIGNALS
        :: d_step { asleep[me] && signals_left > 0 -> signals_left--; WAKE_UP(me); leaving = true }
#endif
        fi
    fi
}
