#include "recover.h"

#include "atomics.h"
#include "fifo.h"
#include "heap.h"
#include "lock.h"
#include "procs.h"

#define TICK_NS 1000000000
#define TICK_ENTRIES 8

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

int recover_lock_head(struct jnq_queue *q, int64_t until)
{
    return lock_and_repair(q, &q->sh->head.lock, fifo_repair_head, until);
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

/* Frees what the owner owns and nobody can reach. */
static int free_unreachable(struct jnq_queue *q, uint32_t owner)
{
    if (!heap_owns_any(q, owner))
        return JNQ_OK;
    heap_unmark_all(q);
    if (!fifo_mark(q))
        return JNQ_CORRUPT;
    heap_sweep(q, owner);
    return JNQ_OK;
}

static int bury(struct jnq_queue *q, uint32_t owner, int64_t until)
{
    int rc = lock_rest(q, until);
    if (rc)
        return rc;
    rc = free_unreachable(q, owner);
    unlock_rest(q);
    if (!rc) {
        procs_remove(q, owner);
        add_sc(&q->sh->procs.deaths, 1);
    }
    return rc;
}

int recover_reap(struct jnq_queue *q, uint32_t most, int64_t until)
{
    struct jnq_procs *procs = &q->sh->procs;
    int rc = recover_lock_procs(q, until);
    if (rc)
        return rc;
    uint32_t count = procs_count(q);
    for (most = most < count ? most : count; most && !rc; most--) {
        procs->rover = procs->rover < count ? procs->rover + 1 : 1;
        if (procs_dead(q, (uint32_t)procs->rover))
            rc = bury(q, (uint32_t)procs->rover, until);
    }
    lock_release(&procs->lock);
    return rc;
}

void recover_tick(struct jnq_queue *q, int64_t now)
{
    uint64_t *seen_ns = &q->sh->procs.seen_ns;
    uint64_t seen = load_relaxed(seen_ns);
    if ((uint64_t)now - seen >= TICK_NS && !procs_foreign(q) && cas_sc(seen_ns, &seen, (uint64_t)now))
        recover_reap(q, TICK_ENTRIES, 0);
}

void recover_leave(struct jnq_queue *q, int64_t until)
{
    if (!procs_entered(q) || recover_lock_procs(q, until))
        return; /* an entry left behind is found when the process is dead */
    procs_remove(q, q->owner);
    lock_release(&q->sh->procs.lock);
}

int recover_check(struct jnq_queue *q, int64_t until)
{
    int rc = recover_lock_procs(q, until);
    if (rc)
        return rc;
    rc = lock_rest(q, until);
    if (!rc) {
        rc = fifo_check(q);
        if (!rc) {
            heap_unmark_all(q);
            rc = fifo_mark(q) ? heap_check(q, procs_known) : 4;
        }
        unlock_rest(q);
    }
    lock_release(&q->sh->procs.lock);
    return rc;
}
