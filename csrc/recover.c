#include "recover.h"

#include "atomics.h"
#include "cells.h"
#include "counts.h"
#include "fifo.h"
#include "heap.h"
#include "lock.h"
#include "note.h"
#include "procs.h"
#include "ready.h"

#define TICK_NS 300000000
#define TICK_ENTRIES 2
#define TICK_HOLDERS 32
#define TICK_LOCK_NS 20000000

static int lock_and_repair(struct jnq_queue *q, pthread_mutex_t *lock, int (*repair)(struct jnq_queue *), int64_t until)
{
    enum lock_result held = lock_until(lock, until);
    if (held == LOCK_BUSY && until && lock_is_forged(lock, q->bytes))
        held = LOCK_BROKEN;
    if (held == LOCK_BROKEN)
        store_sc(&q->sh->broken, 1);
    int rc = load_relaxed(&q->sh->broken) ? JNQ_CORRUPT : JNQ_OK;
    if (held == LOCK_BUSY || held == LOCK_BROKEN)
        return rc ? rc : JNQ_INTERRUPTED;
    if (held == LOCK_ORPHANED) {
        rc = repair(q);
        add_sc(&q->sh->recoveries, 1);
        if (rc)
            store_sc(&q->sh->broken, 1);
        lock_repaired(lock);
    }
    if (rc)
        lock_release(lock);
    return rc;
}

static int nothing_to_repair(struct jnq_queue *q)
{
    (void)q;
    return JNQ_OK;
}

int recover_lock_procs(struct jnq_queue *q, int64_t until)
{
    return procs_foreign(q) ? JNQ_NAMESPACE : lock_and_repair(q, &q->sh->procs.lock, nothing_to_repair, until);
}

int recover_lock_tail(struct jnq_queue *q, int64_t until)
{
    return lock_and_repair(q, &q->sh->tail.lock, fifo_repair_tail, until);
}

static int repair_head(struct jnq_queue *q)
{
    note_repair(q);
    return fifo_repair_head(q);
}

int recover_lock_head(struct jnq_queue *q, int64_t until)
{
    return lock_and_repair(q, &q->sh->head.lock, repair_head, until);
}

/* Tail, head and heap, in their order. */
static int lock_rest(struct jnq_queue *q, int64_t until)
{
    int rc = recover_lock_tail(q, until);
    if (rc)
        return rc;
    rc = recover_lock_head(q, until);
    if (!rc) {
        rc = heap_lock(q, until);
        if (rc)
            lock_release(&q->sh->head.lock);
    }
    if (rc)
        lock_release(&q->sh->tail.lock);
    return rc;
}

static void unlock_rest(struct jnq_queue *q)
{
    heap_unlock(q);
    lock_release(&q->sh->head.lock);
    lock_release(&q->sh->tail.lock);
}

/* Marks all that can be reached. False if that is broken (I4). */
static bool mark_all(struct jnq_queue *q)
{
    struct jnq_shared *sh = q->sh;
    heap_unmark_all(q);
    if (!cells_each(q, load_relaxed(&sh->head.dead), heap_mark))
        return false;
    if (load_relaxed(&sh->cut))
        return heap_mark(q, sh->tail.block);
    return cells_each(q, load_relaxed(&sh->head.front), heap_mark) && fifo_each(q, heap_mark);
}

/* Redelivers the dead owner's tasks, and frees what it owned and nobody can reach. */
static int inherit(struct jnq_queue *q, uint32_t owner, bool killed, uint64_t *moved)
{
    if (!heap_owns_any(q, owner))
        return JNQ_OK;
    if (!mark_all(q))
        return JNQ_CORRUPT;
    int rc = JNQ_OK;
    if (q->on_death == JNQ_REDELIVER)
        rc = cells_redeliver(q, owner, killed, moved);
    if (!rc)
        heap_sweep(q, owner);
    return rc;
}

/* With all locks but that of the processes. */
static int lock_and_inherit(struct jnq_queue *q, uint32_t owner, bool killed, int64_t until)
{
    uint64_t moved = 0;
    event_alert(&q->sh->items);
    event_alert(&q->sh->zero);
    int rc = lock_rest(q, until);
    if (rc)
        return rc;
    rc = inherit(q, owner, killed, &moved);
    uint64_t finished = counts_finished(q); /* before a put ends the zero */
    unlock_rest(q);
    if (moved) {
        counts_announce(q, finished);
        event_notify_all(&q->sh->items);
        ready_changed(q);
    }
    return rc;
}

/* What remains of the entry of a dead owner: nothing, or a grave that tells whose its unfinished tasks were. */
static void close_entry(struct jnq_queue *q, uint32_t owner, uint64_t tasks)
{
    if (procs_entry(q, owner)->exit != EXIT_CLEAN) {
        procs_tell(q, owner, tasks);
        store_relaxed(&q->noticed, 1);
    }
    if (q->on_death == JNQ_RAISE && procs_holds(q, owner) && counts_unfinished(q)) {
        if (procs_entry(q, owner)->exit == EXIT_CLEAN)
            store_sc(&q->sh->foreign, 1);
        else if (procs_bury(q, owner))
            return;
    }
    procs_remove(q, owner);
}

static int bury(struct jnq_queue *q, uint32_t owner, int64_t until)
{
    uint64_t tasks = procs_tasks(q, owner);
    procs_note_status(q, owner);
    int rc = lock_and_inherit(q, owner, procs_entry(q, owner)->exit != EXIT_CLEAN, until);
    if (!rc)
        close_entry(q, owner, tasks);
    event_notify_all(&q->sh->zero); /* joiners look whether tasks are lost */
    return rc;
}

/* Buries the owner if it is dead. */
static int look_at(struct jnq_queue *q, uint32_t owner, int64_t until)
{
    return procs_dead(q, owner) ? bury(q, owner, until) : JNQ_OK;
}

/* Lets what a dead owner of the head lock had noted take its effect on the figures. */
static void settle_note(struct jnq_queue *q, int64_t until)
{
    if (!recover_lock_head(q, until))
        lock_release(&q->sh->head.lock);
}

/* All entries that hold tasks, and `most` of the others. Of many that hold tasks every other one, the rest the next
 * time: each costs some microseconds. */
int recover_reap(struct jnq_queue *q, uint32_t most, int64_t until)
{
    struct jnq_procs *procs = &q->sh->procs;
    int rc = recover_lock_procs(q, until);
    if (rc)
        return rc;
    if (load_relaxed(&procs->graves) && !counts_unfinished(q))
        procs_forget(q);
    uint32_t count = procs_count(q), holders = 0, parity = (uint32_t)(event_now() / TICK_NS) & 1;
    if (q->on_death)
        settle_note(q, until);
    for (uint32_t owner = 1; q->on_death && owner <= count && !rc; owner++)
        if (owner != q->owner && procs_known(q, owner) && procs_holds(q, owner) &&
            (++holders <= TICK_HOLDERS || (owner & 1) == parity))
            rc = look_at(q, owner, until);
    for (most = most < count ? most : count; most && !rc; most--) {
        procs->rover = procs->rover < count ? procs->rover + 1 : 1;
        rc = look_at(q, (uint32_t)procs->rover, until);
    }
    lock_release(&procs->lock);
    return rc;
}

bool recover_due(struct jnq_queue *q, int64_t now)
{
    int64_t passed = now - (int64_t)load_relaxed(&q->sh->procs.seen_ns);
    return passed >= TICK_NS || passed < -TICK_NS; /* the latter only after foreign writes */
}

void recover_tick(struct jnq_queue *q, int64_t now)
{
    uint64_t *seen_ns = &q->sh->procs.seen_ns;
    uint64_t seen = load_relaxed(seen_ns);
    uint64_t deaths = load_relaxed(&q->sh->procs.deaths);
    if (recover_due(q, now) && !procs_foreign(q) && cas_sc(seen_ns, &seen, (uint64_t)now))
        recover_reap(q, TICK_ENTRIES, event_now() + TICK_LOCK_NS);
    if (procs_entered(q) && load_relaxed(&q->sh->procs.deaths) != deaths)
        heap_cool(q); /* who is dead moves nothing any more */
}

/* Under the procs and the head lock: nobody takes, gives back or enters meanwhile, and a report under way counts as a
 * task in hand. If nothing was put meanwhile either, what is unfinished at the end was so all the time. */
static bool only_the_dead_hold(struct jnq_queue *q)
{
    uint64_t puts = load_sc(&q->sh->puts);
    bool graves = false;
    for (uint32_t owner = 1; owner <= procs_count(q); owner++)
        if (!procs_known(q, owner))
            graves |= procs_is_grave(q, owner);
        else if (procs_holds(q, owner))
            return false;
    return graves && counts_unfinished(q) && !counts_queued(q) && load_sc(&q->sh->puts) == puts;
}

bool recover_lost(struct jnq_queue *q)
{
    struct jnq_shared *sh = q->sh;
    if (!load_sc(&sh->procs.graves) || load_sc(&sh->foreign) || recover_lock_procs(q, 0))
        return false;
    bool lost = false;
    if (load_sc(&sh->procs.graves) && !recover_lock_head(q, 0)) {
        lost = only_the_dead_hold(q) && !load_sc(&sh->foreign);
        lock_release(&sh->head.lock);
    }
    lock_release(&sh->procs.lock);
    return lost;
}

void recover_leave(struct jnq_queue *q, int64_t until)
{
    if (!procs_entered(q) || recover_lock_procs(q, until))
        return; /* an entry left behind is found when the process is dead */
    bool holds = q->on_death && procs_holds(q, q->owner) && counts_unfinished(q), failed = q->me->exit == EXIT_FAILED;
    int rc = JNQ_OK;
    if (holds && q->on_death == JNQ_REDELIVER)
        rc = lock_and_inherit(q, q->owner, failed, until);
    else if (holds && failed)
        rc = JNQ_LOST; /* found when the process is dead */
    else if (holds)
        store_sc(&q->sh->foreign, 1);
    if (!rc)
        procs_remove(q, q->owner);
    lock_release(&q->sh->procs.lock);
}

int recover_check(struct jnq_queue *q, int64_t until)
{
    uint64_t leases = 0;
    int rc = recover_lock_procs(q, until);
    if (rc)
        return rc;
    rc = lock_rest(q, until);
    if (!rc) {
        rc = fifo_check(q);
        if (!rc)
            rc = load_relaxed(&q->sh->cut) ? 0 : cells_check(q);
        if (!rc)
            rc = mark_all(q) ? heap_check(q, procs_known, &leases) : 4;
        if (!rc && q->on_death == JNQ_REDELIVER && leases != counts_unfinished(q) - counts_queued(q))
            rc = 7;
        unlock_rest(q);
    }
    lock_release(&q->sh->procs.lock);
    return rc;
}
