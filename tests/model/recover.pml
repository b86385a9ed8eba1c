/* recover: what a killed process leaves in the blocks, the positions and the runs, and how the next one puts it right
 * (csrc/fifo.h, recover.h, and the ownership in heap.h).
 *
 * Process 1 puts ITEMS items, process 2 gets until no more can come; process 3, a NEWCOMER, enters the process table
 * and then gets too, or with PUT_LATE puts one. Process 4 reaps at any time. With EXTENTS every item lies in a run of
 * its own. Process 5 cannot be killed: it waits until all others have ended, reaps, and looks at what is left. A block
 * has room for CAP records and the one that ends it. A freed run is given out again soon, with its old bytes.
 *
 * Properties
 *   order      each item is taken at most once, whole, and in its place; what is taken was committed
 *   positions  whoever takes the tail or head lock finds (after the repair, if it was orphaned) the positions that
 *              follow from the blocks, `puts` and `takes`
 *   memory     no run is given out that somebody holds or that can be reached; only the runs of dead holders are
 *              swept; when all have ended no run is lost
 *   deadlock   everybody ends
 *
 * Every store that others or the next owner can see is a step of its own, but for the fields of one record or block
 * header, which nobody can reach yet; a walk under its lock is one step, because what it reads does not change.
 *
 * Left out: lengths of runs, splitting and joining (runs are all alike; the map's words are in heap.h), hints, warm and
 * cold memory, the front list (a get from it is one store as well), the cut, a record that is half written (as good
 * as old bytes), several sizes of records.
 *
 * Seeded bugs: NO_OWN_BEFORE_UNLINK, OWN_AFTER_UNLINK, TABLE_ENTRY_FREED_BEFORE_SWEEP, NO_REPAIR, NO_MARK,
 * COMMIT_BEFORE_WRITE. */
#ifndef ITEMS
#define ITEMS 2
#endif
#ifndef CAP
#define CAP 1
#endif
#ifndef RUNS
#define RUNS 5
#endif

#define LOCKS 4
#define PROCS 0
#define TAIL 1
#define HEAD 2
#define HEAP 3
#define SPARED 5

/* The map: the word of a run. */
bool used[RUNS + 1], mark[RUNS + 1];
byte own[RUNS + 1];

/* What runs hold: a block, or the payload of an item. */
#define SLOTS (CAP + 1)
#define SLOT(run, pos) ((run) * SLOTS + (pos))
byte next[RUNS + 1], first[RUNS + 1], payload[RUNS + 1];
byte number[(RUNS + 1) * SLOTS], kind[(RUNS + 1) * SLOTS], content[(RUNS + 1) * SLOTS];
#define INLINE 1
#define EXTENT 2
#define END 3

byte puts, takes;
byte tail_block = 1, tail_pos;
byte head_block = 1, head_pos, puts_seen;

/* The process table. */
bool entered[4];
byte entry_of[4]; /* process */

/* Ghosts. */
byte holder[RUNS + 1]; /* 0: free or the queue's */
bool reachable[RUNS + 1];
bool taken[8];

hidden byte wb, wp, wn, r;

#define FORGET_LOCALS(v) skip
#define ON_DEATH(v) skip
#define ON_SLEEP skip
#define ON_WAKE(v) skip
#define AFTER_WAKE_ONE skip

#include "kernel.pml"
#include "killer.pml"

/* fifo.c: walk_to(), into wb and wp. Inside a d_step. */
inline walk_to(block, to)
{
    wb = block;
    wp = 0;
    wn = first[wb];
    assert(wn <= to);
    do
    :: wn < to ->
        if
        :: kind[SLOT(wb, wp)] == END ->
            wb = next[wb];
            wp = 0;
            assert(used[wb] && first[wb] == wn)
        :: else
        fi;
        assert(kind[SLOT(wb, wp)] != END && number[SLOT(wb, wp)] == wn);
        wp++;
        wn++
    :: else -> break
    od
}

/* recover.c: recover_lock_tail(), with fifo.c: fifo_repair_tail() */
inline recover_lock_tail()
{
    lock_until(TAIL);
#ifndef NO_REPAIR
    if
    :: orphan[TAIL] ->
        d_step { walk_to(tail_block, puts); block = wb; pos = wp };
        tail_block = block;
        tail_pos = pos;
        d_step { block = 0; pos = 0; lock_repaired(TAIL) }
    :: else
    fi;
#endif
    d_step { walk_to(tail_block, puts); assert(wb == tail_block && wp == tail_pos) }
}

/* recover.c: recover_lock_head(), with fifo.c: fifo_repair_head() */
inline recover_lock_head()
{
    lock_until(HEAD);
#ifndef NO_REPAIR
    if
    :: orphan[HEAD] ->
        puts_seen = takes;
        d_step { walk_to(head_block, takes); block = wb; pos = wp };
        head_block = block;
        head_pos = pos;
        d_step { block = 0; pos = 0; lock_repaired(HEAD) }
    :: else
    fi;
#endif
    d_step { walk_to(head_block, takes); assert(wb == head_block && wp == head_pos && puts_seen <= puts) }
}

/* heap.c: heap_alloc(): take() under the heap lock, in one store. The first free run; which one does not matter. */
inline heap_alloc(unit)
{
    d_step {
        owner[HEAP] == 0 ->
        r = 1;
        do
        :: r <= RUNS && used[r] -> r++
        :: else -> break
        od;
        assert(r <= RUNS);
        assert(holder[r] == 0 && !reachable[r]);
        used[r] = true;
        mark[r] = false;
        own[r] = me_owner;
        holder[r] = me;
        unit = r
    }
}

/* heap.c: heap_free(): one store, without the lock. */
inline heap_free(unit)
{
    d_step {
        assert(used[unit] && holder[unit] == me && !reachable[unit]);
        used[unit] = false;
        mark[unit] = false;
        holder[unit] = 0;
        unit = 0
    }
}

/* heap.c: heap_own(): also drops the mark */
inline heap_own(unit) { d_step { assert(used[unit]); own[unit] = me_owner; mark[unit] = false } }

#define LOCALS byte me_owner, block, pos, unit, extent, n

/* queue.c: enter_slowly(); procs.c: procs_enter() */
inline enter()
{
    lock_until(PROCS);
    d_step {
        lock_repaired(PROCS);
        me_owner = 1;
        do
        :: me_owner <= 3 && entered[me_owner] -> me_owner++
        :: else -> break
        od;
        assert(me_owner <= 3);
        entry_of[me_owner] = me
    };
    entered[me_owner] = true;
    lock_release(PROCS)
}

/* recover.c: recover_leave() */
inline recover_leave()
{
    lock_until(PROCS);
    d_step { lock_repaired(PROCS); entered[me_owner] = false };
    d_step { lock_release(PROCS); live[me] = false; awake--; me_owner = 0 }
}

/* queue.c: put() of item `me * 2 + n` and try_put(); fifo.c: fifo_push(), extend() */
inline put()
{
#ifdef EXTENTS
    heap_alloc(extent); /* stage() */
    payload[extent] = me * 2 + n;
#endif
    recover_lock_tail();
    if
    :: tail_pos + 1 > CAP ->
        heap_alloc(unit); /* new_block() */
        d_step { next[unit] = 0; first[unit] = puts };
        d_step { number[SLOT(tail_block, tail_pos)] = puts; kind[SLOT(tail_block, tail_pos)] = END };
        next[tail_block] = unit;
        d_step { tail_block = unit; holder[unit] = 0; reachable[unit] = true; unit = 0 };
        tail_pos = 0
    :: else
    fi;
#ifdef COMMIT_BEFORE_WRITE
    puts++;
#endif
    d_step {
        number[SLOT(tail_block, tail_pos)] = puts;
#ifdef EXTENTS
        kind[SLOT(tail_block, tail_pos)] = EXTENT;
        content[SLOT(tail_block, tail_pos)] = extent
#else
        kind[SLOT(tail_block, tail_pos)] = INLINE;
        content[SLOT(tail_block, tail_pos)] = me * 2 + n
#endif
    };
    d_step { /* R1 */
#ifndef COMMIT_BEFORE_WRITE
        puts++;
#endif
#ifdef EXTENTS
        holder[extent] = 0;
        reachable[extent] = true;
        extent = 0;
#endif
        n++
    };
    tail_pos++;
    lock_release(TAIL)
}

proctype putter(byte me)
{
    LOCALS;
    {
        if
        :: d_step { me != 3 -> me_owner = me }
        :: else -> enter()
        fi;
        do
        :: n < (me == 3 -> 1 : ITEMS) -> put()
        :: else -> break
        od;
        recover_leave()
    }
    DIES
}

#ifdef PUT_LATE
#define NO_MORE (!live[1] && !live[3])
#else
#define NO_MORE (!live[1])
#endif

#define TOOK(what) assert(!taken[what]); taken[what] = true

/* queue.c: try_get(); fifo.c: fifo_next(), fifo_step(); record.c: record_unpack() */
inline get()
{
    recover_lock_head();
    if
    :: takes == puts_seen ->
        d_step { wait = takes == puts; puts_seen = puts } /* A1 */
    :: else
    fi;
    if
    :: d_step { wait -> wait = false; lock_release(HEAD) } /* JNQ_EMPTY */
    :: else ->
        if
        :: kind[SLOT(head_block, head_pos)] == END ->
            unit = head_block;
#if !defined(NO_OWN_BEFORE_UNLINK) && !defined(OWN_AFTER_UNLINK)
            heap_own(unit);
#endif
            d_step {
                assert(used[next[unit]]);
                head_block = next[unit];
                holder[unit] = me;
                reachable[unit] = false
            };
#ifdef OWN_AFTER_UNLINK
            heap_own(unit);
#endif
            head_pos = 0
        :: else
        fi;
        d_step {
            assert(number[SLOT(head_block, head_pos)] == takes && kind[SLOT(head_block, head_pos)] != END);
            pos = content[SLOT(head_block, head_pos)]
        };
#ifdef EXTENTS
        heap_own(pos);
        d_step { /* R2 */
            takes++;
            assert(takes <= puts);
            holder[pos] = me;
            reachable[pos] = false;
            extent = pos;
            pos = 0
        };
#else
        d_step { takes++; assert(takes <= puts); TOOK(pos); pos = 0 }; /* R2 */
#endif
        head_pos++;
        lock_release(HEAD);
        if
        :: unit -> heap_free(unit)
        :: else
        fi;
#ifdef EXTENTS
        d_step { TOOK(payload[extent]) };
        heap_free(extent) /* jnq_release() */
#endif
    fi
}

proctype getter(byte me)
{
    LOCALS;
    bool wait;
    {
        if
        :: d_step { me != 3 -> me_owner = me }
        :: else -> enter()
        fi;
        do
        :: takes < puts -> get()
        :: NO_MORE && takes == puts -> break
        od;
        recover_leave()
    }
    DIES
}

/* recover.c: mark_all(). Inside a d_step. */
inline mark_all()
{
    walk_to(head_block, takes);
    r = wb;
    do
    :: wn < puts ->
        if
        :: kind[SLOT(wb, wp)] == END ->
            wb = next[wb];
            wp = 0;
            assert(used[r] && !mark[r]);
            mark[r] = true;
            r = wb;
            assert(used[r] && first[r] == wn)
        :: else
        fi;
        assert(number[SLOT(wb, wp)] == wn);
        if
        :: kind[SLOT(wb, wp)] == EXTENT ->
            assert(used[content[SLOT(wb, wp)]] && !mark[content[SLOT(wb, wp)]]);
            mark[content[SLOT(wb, wp)]] = true
        :: else
        fi;
        wp++;
        wn++
    :: else -> break
    od;
    assert(!mark[r]);
    mark[r] = true;
    if
    :: r != tail_block ->
        assert(kind[SLOT(r, wp)] == END && next[r] == tail_block && used[tail_block] && !mark[tail_block]);
        mark[tail_block] = true
    :: else
    fi
}

/* heap.c: heap_unmark_all(). Inside a d_step. */
inline heap_unmark_all()
{
    r = 1;
    do
    :: r <= RUNS -> mark[r] = false; r++
    :: else -> break
    od
}

/* recover.c: bury(), lock_rest(), inherit(); heap.c: heap_sweep() */
inline bury(dead)
{
#ifdef TABLE_ENTRY_FREED_BEFORE_SWEEP
    entered[dead] = false;
#endif
    recover_lock_tail();
    recover_lock_head();
    d_step { owner[HEAP] == 0 -> owner[HEAP] = me; lock_repaired(HEAP) };
    d_step { heap_unmark_all() };
#ifndef NO_MARK
    d_step { mark_all() };
#endif
    unit = 1;
    do
    :: unit <= RUNS ->
        d_step {
            if
            :: used[unit] && !mark[unit] && own[unit] == dead ->
                assert(holder[unit] && !live[holder[unit]]);
                used[unit] = false;
                holder[unit] = 0
            :: else
            fi;
            unit++
        }
    :: else -> break
    od;
    unit = 0;
    lock_release(HEAP);
    lock_release(HEAD);
    lock_release(TAIL);
#ifndef TABLE_ENTRY_FREED_BEFORE_SWEEP
    entered[dead] = false /* procs_remove() */
#endif
}

#define IS_DEAD(o) (entered[o] && !live[entry_of[o]]) /* procs.c: procs_dead() */

/* recover.c: recover_reap() */
inline recover_reap()
{
    lock_until(PROCS);
    d_step { lock_repaired(PROCS); n = 1 };
    do
    :: n <= 3 && IS_DEAD(n) -> bury(n); n++
    :: n <= 3 && !IS_DEAD(n) -> n++
    :: n > 3 -> n = 0; break
    od;
    lock_release(PROCS)
}

/* recover.c: recover_check(): I1 to I5, and that nothing is lost */
inline check()
{
    d_step {
        assert(takes <= puts);
        assert(!entered[1] && !entered[2] && !entered[3]);
        heap_unmark_all();
        mark_all();
        r = 1;
        do
        :: r <= RUNS ->
            assert(used[r] == mark[r] && mark[r] == reachable[r] && !holder[r]);
            r++
        :: else -> break
        od
    }
}

proctype reaper(byte me)
{
    LOCALS;
    {
        if
        :: me == 5 -> !live[1] && !live[2] && !live[3] && !live[4]
        :: else
        fi;
        recover_reap();
        if
        :: me == 5 -> check()
        :: else
        fi;
        leave()
    }
    DIES
}

init
{
    atomic {
        used[1] = true;
        reachable[1] = true;
        own[1] = 1;
        entered[1] = true;
        entered[2] = true;
        entry_of[1] = 1;
        entry_of[2] = 2;
        START(1, putter(1));
        START(2, getter(2));
#ifdef PUT_LATE
        START(3, putter(3));
#elif defined(NEWCOMER)
        START(3, getter(3));
#endif
        START(4, reaper(4));
        START(5, reaper(5));
#if DEATHS
        run killer()
#endif
    }
}
