/* queue: implements jnq.h. The only place that decides the order of steps.
 *
 * Every operation is tried first as it is: locks are tried for about a microsecond, the GIL is kept. Only when that
 * is not enough (the queue is empty or full and the caller would wait, a lock is busy, much must be copied) the GIL is
 * given up, for the whole rest of the operation: it is never taken back while a lock is held, because that can
 * take long, or end the thread.
 *
 * Inside, JNQ_INTERRUPTED also says that a lock stayed busy: then nothing has happened. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "atomics.h"
#include "counts.h"
#include "fifo.h"
#include "gil.h"
#include "heap.h"
#include "lock.h"
#include "procs.h"
#include "recover.h"
#include "segment.h"

#define GIL_KEEP_BYTES 65536     /* copying more takes long enough to let other threads run */
#define BUSY_GRACE_NS 1000000000 /* how long an operation that must not wait waits for a lock */
#define SPIN_MIN_NS 2000
#define SPIN_MAX_NS 30000

void *(*jnq_gil_give_up)(void);
void (*jnq_gil_take_back)(void *state);

int64_t jnq_slice_ns(void) { return EVENT_SLICE_NS; }

/* --- coming and going ---------------------------------------------------------------------------------- */

static int enter_slowly(struct jnq_queue *q, int64_t until)
{
    /* As many of the dead leave as can arrive. */
    int rc = recover_reap(q, 2, until);
    if (rc)
        return rc;
    rc = recover_lock_procs(q, until);
    if (rc)
        return rc;
    rc = procs_enter(q);
    lock_release(&q->sh->procs.lock);
    if (rc == JNQ_CROWDED && !(rc = recover_reap(q, PROCS_MAX, until))) {
        rc = recover_lock_procs(q, until);
        if (rc)
            return rc;
        rc = procs_enter(q);
        lock_release(&q->sh->procs.lock);
    }
    return rc;
}

/* Every operation that may own something begins with it. */
static inline int enter(struct jnq_queue *q, int64_t until)
{
    return procs_entered(q) ? JNQ_OK : enter_slowly(q, until);
}

int jnq_create(int fd, uint64_t maxsize, jnq_queue **out)
{
    struct jnq_queue *q;
    int rc = segment_create(fd, &q);
    if (rc)
        return rc;
    struct jnq_shared *sh = q->sh;
    sh->maxsize = maxsize;
    if (!rc)
        rc = lock_init(&sh->tail.lock);
    if (!rc)
        rc = lock_init(&sh->head.lock);
    if (!rc)
        rc = event_init(&sh->items);
    if (!rc)
        rc = event_init(&sh->space);
    if (!rc)
        rc = event_init(&sh->zero);
    if (!rc)
        rc = procs_init(q);
    if (!rc)
        rc = heap_init(q);
    if (!rc)
        rc = enter(q, JNQ_FOREVER);
    if (!rc)
        rc = fifo_init(q);
    if (rc) {
        segment_abandon(q);
        return rc;
    }
    q->spin_ns = SPIN_MAX_NS;
    q->users = 1;
    segment_publish(q);
    *out = q;
    return JNQ_OK;
}

int jnq_attach(int fd, jnq_queue **out)
{
    struct jnq_queue *q;
    int rc = segment_open(fd, &q);
    if (rc)
        return rc;
    rc = enter(q, event_now() + BUSY_GRACE_NS);
    if (rc) {
        segment_abandon(q);
        return rc == JNQ_INTERRUPTED ? EBUSY : rc;
    }
    q->spin_ns = SPIN_MAX_NS;
    q->users = 1;
    *out = q;
    return JNQ_OK;
}

int jnq_fileno(jnq_queue *q) { return segment_fd(q); }

/* One user less; the last one closes the handle. */
static void leave(jnq_queue *q)
{
    if (sub_sc(&q->users, 1))
        return;
    recover_leave(q, event_now() + BUSY_GRACE_NS);
    segment_close(q);
}

void jnq_detach(jnq_queue *q) { leave(q); }

/* --- waiting -------------------------------------------------------------------------------------------- */

/* A condition over shared words: looked at without a lock. */
typedef bool condition(struct jnq_queue *q, uint64_t arg);

static bool may_get(struct jnq_queue *q, uint64_t unused)
{
    (void)unused;
    return counts_queued(q) || load_sc(&q->sh->ended);
}

static bool may_put(struct jnq_queue *q, uint64_t unused)
{
    (void)unused;
    return fifo_room(q) || load_sc(&q->sh->ended);
}

/* Spins for as long as has lately been worth it, which is learnt: a spin that was in vain halves it. */
static bool spin(struct jnq_queue *q, condition *holds, uint64_t arg)
{
    uint32_t budget = load_relaxed(&q->spin_ns);
    int64_t until = event_now() + budget;
    do {
        for (int i = 0; i < 16; i++) {
            if (holds(q, arg)) {
                if (budget < SPIN_MAX_NS)
                    store_relaxed(&q->spin_ns, budget * 2);
                return true;
            }
            cpu_relax();
        }
    } while (event_now() < until);
    if (budget > SPIN_MIN_NS)
        store_relaxed(&q->spin_ns, budget / 2);
    return false;
}

/* Until the condition holds: JNQ_OK, JNQ_TIMEOUT, or JNQ_INTERRUPTED: on a signal, and once a second, because a signal
 * that came while this thread was not asleep did not interrupt it. Without the GIL. */
static int wait_for(struct jnq_queue *q, struct jnq_event *ev, condition *holds, uint64_t arg, int64_t deadline)
{
    if (spin(q, holds, arg))
        return JNQ_OK;
    int64_t now = event_now(), entered = now, began = now;
    uint32_t last_e = 0;
    for (bool was_deep = false;;) {
        recover_tick(q, now);
        uint32_t e = event_prepare(ev);
        if (holds(q, arg))
            return JNQ_OK;
        if (now >= deadline)
            return JNQ_TIMEOUT;
        bool is_deep = event_is_deep(ev);
        /* Long only if the flag has been up for a slice, and nobody has called us back meanwhile. */
        int64_t until = now + (is_deep && was_deep && e == last_e ? EVENT_DEEP_NS : EVENT_SLICE_NS);
        was_deep = is_deep;
        last_e = e;
        enum event_result woken = event_sleep(ev, e, until < deadline ? until : deadline);
        if (holds(q, arg))
            return JNQ_OK;
        now = event_now();
        if (woken == EVENT_WOKEN) {
            began = now; /* there is traffic: stay alert */
            was_deep = false; /* what it slept was no slice, even if seq had moved before e was loaded */
        }
        if (now - began >= EVENT_DEEP_NS)
            event_deepen(ev);
        if (woken == EVENT_INTERRUPTED || now - entered >= EVENT_DEEP_NS)
            return now >= deadline ? JNQ_TIMEOUT : JNQ_INTERRUPTED;
    }
}

/* Until when a lock is tried in the patient part of an operation. */
static int64_t lock_deadline(int64_t deadline)
{
    return event_now() + (deadline == JNQ_NOW ? BUSY_GRACE_NS : EVENT_SLICE_NS);
}

/* A lock that stays busy is a reason to come back only before the deadline. */
static bool over(int64_t rc, int64_t deadline)
{
    return rc == JNQ_TIMEOUT || (rc == JNQ_INTERRUPTED && event_now() >= deadline);
}

/* --- put ------------------------------------------------------------------------------------------------- */

/* One attempt: JNQ_FULL if there is no room now. */
static int try_put(struct jnq_queue *q, enum jnq_kind kind, const char *payload, uint64_t bytes, uint64_t unit,
                   int64_t until)
{
    struct jnq_shared *sh = q->sh;
    event_alert(&sh->items);
    int rc = recover_lock_tail(q, until);
    if (rc)
        return rc;
    if (load_relaxed(&sh->ended))
        rc = JNQ_SHUTDOWN;
    else if (!fifo_room(q))
        rc = JNQ_FULL;
    else
        rc = fifo_push(q, kind, payload, bytes, unit, until);
    lock_release(&sh->tail.lock);
    if (!rc)
        event_notify(&sh->items, 1);
    return rc;
}

/* A copy of the payload in an extent of ours. */
static int stage(struct jnq_queue *q, const char *payload, uint64_t bytes, int64_t until, uint64_t *unit)
{
    int rc = heap_alloc(q, bytes, until, unit);
    if (!rc)
        memcpy(unit_at(q, *unit), payload, bytes);
    return rc;
}

static int put_patiently(struct jnq_queue *q, enum jnq_kind kind, const char *payload, uint64_t bytes, int64_t deadline)
{
    struct jnq_shared *sh = q->sh;
    uint64_t unit = 0;
    int rc = enter(q, lock_deadline(deadline));
    while (!rc) {
        /* Room first: what is staged is lost when a signal ends the wait. */
        if (!may_put(q, 0))
            rc = deadline == JNQ_NOW ? JNQ_FULL : wait_for(q, &sh->space, may_put, 0, deadline);
        if (!rc && !unit && kind == JNQ_EXTENT && !load_sc(&sh->ended))
            rc = stage(q, payload, bytes, lock_deadline(deadline), &unit);
        if (rc)
            break;
        rc = try_put(q, kind, payload, bytes, unit, lock_deadline(deadline));
        if (!rc)
            return JNQ_OK;
        if (rc == JNQ_FULL && deadline != JNQ_NOW)
            rc = JNQ_OK; /* somebody was faster: wait again */
    }
    if (unit)
        heap_free(q, unit);
    return over(rc, deadline) ? JNQ_FULL : rc;
}

static int put(jnq_queue *q, enum jnq_kind kind, const char *payload, uint64_t bytes, int64_t deadline)
{
    int rc = JNQ_INTERRUPTED;
    if (procs_entered(q) && kind != JNQ_EXTENT) {
        rc = try_put(q, kind, payload, bytes, 0, 0);
    } else if (procs_entered(q) && bytes <= GIL_KEEP_BYTES && may_put(q, 0)) {
        uint64_t unit = 0;
        rc = stage(q, payload, bytes, 0, &unit);
        if (!rc && (rc = try_put(q, kind, payload, bytes, unit, 0)))
            heap_free(q, unit);
    }
    if (rc != JNQ_INTERRUPTED && (rc != JNQ_FULL || deadline == JNQ_NOW))
        return rc;
    void *gil = gil_give_up();
    rc = put_patiently(q, kind, payload, bytes, deadline);
    gil_take_back(gil);
    return rc;
}

int jnq_put(jnq_queue *q, const char *payload, uint64_t bytes, int64_t deadline)
{
    return put(q, bytes <= JNQ_INLINE_BYTES ? JNQ_INLINE : JNQ_EXTENT, payload, bytes, deadline);
}

int jnq_put_integer(jnq_queue *q, int64_t value, int64_t deadline)
{
    return put(q, JNQ_INTEGER, (const char *)&value, sizeof value, deadline);
}

/* --- get ------------------------------------------------------------------------------------------------- */

/* One attempt: JNQ_EMPTY if there is no item now. */
static int64_t try_get(struct jnq_queue *q, jnq_box *box, int64_t until)
{
    struct jnq_shared *sh = q->sh;
    uint64_t freed;
    event_alert(&sh->space);
    int rc = recover_lock_head(q, until);
    if (rc)
        return rc;
    rc = fifo_pop(q, box, &freed);
    if (rc == JNQ_EMPTY && load_sc(&sh->ended)) /* no put can follow that we did not see now: */
        rc = (rc = fifo_pop(q, box, &freed)) == JNQ_EMPTY ? JNQ_SHUTDOWN : rc;
    lock_release(&sh->head.lock);
    if (freed)
        heap_free(q, freed);
    if (rc == JNQ_LARGE)
        add_sc(&q->users, 1);
    if (rc != JNQ_OK && rc != JNQ_LARGE)
        return rc;
    box->queue = q;
    box->fork = load_relaxed(&q->fork);
    event_notify(&sh->space, 1);
    if (rc == JNQ_LARGE)
        return rc;
    int64_t integer;
    memcpy(&integer, box->copy, sizeof integer);
    return box->kind == JNQ_INTEGER ? JNQ_INTEGER_ZERO + integer : (int64_t)box->bytes;
}

static int64_t get_patiently(struct jnq_queue *q, jnq_box *box, int64_t deadline)
{
    int64_t rc = enter(q, lock_deadline(deadline));
    while (rc == JNQ_OK) {
        rc = try_get(q, box, lock_deadline(deadline));
        if (rc != JNQ_EMPTY || deadline == JNQ_NOW)
            break;
        rc = wait_for(q, &q->sh->items, may_get, 0, deadline);
    }
    return over(rc, deadline) ? JNQ_EMPTY : rc;
}

int64_t jnq_get(jnq_queue *q, jnq_box *box, int64_t deadline)
{
    box->taken = 0;
    int64_t rc = procs_entered(q) ? try_get(q, box, 0) : JNQ_INTERRUPTED;
    if (rc != JNQ_INTERRUPTED && (rc != JNQ_EMPTY || deadline == JNQ_NOW))
        return rc;
    void *gil = gil_give_up();
    rc = get_patiently(q, box, deadline);
    gil_take_back(gil);
    return rc;
}

/* False in the child of a fork that came after the get: then the item is the parent's. */
static bool ours(jnq_queue *q, jnq_box *box) { return procs_entered(q) && box->fork == load_relaxed(&q->fork); }

static void release(jnq_box *box)
{
    bool lent = box->taken && box->unit;
    box->taken = 0;
    if (!lent)
        return;
    if (ours(box->queue, box))
        heap_free(box->queue, box->unit);
    leave(box->queue);
}

void jnq_release(jnq_box *box)
{
    bool heavy = box->taken && box->unit && box->bytes > GIL_KEEP_BYTES;
    void *gil = heavy ? gil_give_up() : NULL;
    release(box);
    if (heavy)
        gil_take_back(gil);
}

void jnq_rebox(jnq_queue *q, jnq_box *box, const char *payload, uint64_t bytes)
{
    box->taken = 1;
    box->queue = q;
    box->kind = JNQ_INLINE;
    box->bytes = bytes;
    box->payload = box->copy;
    box->unit = 0;
    box->fork = load_relaxed(&q->fork);
    memcpy(box->copy, payload, bytes);
}

static int unget_patiently(struct jnq_queue *q, jnq_box *box, int64_t until)
{
    struct jnq_shared *sh = q->sh;
    event_alert(&sh->items);
    uint64_t unit, bytes = offsetof(struct jnq_cell, record.payload) + (box->unit ? LINE_BYTES : box->bytes);
    int rc = heap_alloc(q, bytes, until, &unit);
    if (rc)
        return rc;
    struct jnq_cell *cell = unit_at(q, unit);
    cell->record.number = 0;
    cell->record.kind = box->kind;
    if (box->unit) {
        cell->record.inline_bytes = 0;
        cell->record.extent.unit = box->unit;
        cell->record.extent.bytes = box->bytes;
    } else {
        cell->record.inline_bytes = (uint32_t)box->bytes;
        memcpy(cell->record.payload, box->copy, box->bytes);
    }
    rc = recover_lock_head(q, until);
    if (rc) {
        heap_free(q, unit);
        return rc;
    }
    bool cut = load_sc(&sh->cut);
    if (!cut)
        fifo_push_front(q, unit);
    lock_release(&sh->head.lock);
    if (cut) {
        heap_free(q, unit);
        release(box);
        counts_done(q, 1);
        return JNQ_OK;
    }
    event_notify(&sh->items, 1);
    box->taken = 0;
    if (box->unit)
        leave(q);
    return JNQ_OK;
}

int jnq_unget(jnq_queue *q, jnq_box *box)
{
    if (!box->taken || box->queue != q || !ours(q, box)) {
        jnq_release(box);
        return JNQ_OK;
    }
    void *gil = gil_give_up();
    int rc = unget_patiently(q, box, lock_deadline(JNQ_FOREVER));
    gil_take_back(gil);
    return rc;
}

/* --- tasks ----------------------------------------------------------------------------------------------- */

int jnq_task_done(jnq_queue *q, uint64_t n) { return counts_done(q, n); }

static bool joined(struct jnq_queue *q, uint64_t since) { return counts_zero(q, since); }

int jnq_join(jnq_queue *q, uint64_t *since, int64_t deadline)
{
    uint64_t puts = counts_join(q); /* each time: the announcement may have been taken down */
    if (!*since)
        *since = puts;
    if (counts_zero(q, *since))
        return JNQ_OK;
    if (deadline == JNQ_NOW)
        return JNQ_TIMEOUT;
    void *gil = gil_give_up();
    int rc = wait_for(q, &q->sh->zero, joined, *since, deadline);
    gil_take_back(gil);
    return rc;
}

/* --- the end ---------------------------------------------------------------------------------------------- */

static int shut_down(struct jnq_queue *q, bool immediate, int64_t until)
{
    struct jnq_shared *sh = q->sh;
    int rc = enter(q, until);
    if (rc)
        return rc;
    event_alert(&sh->items);
    event_alert(&sh->space);
    event_alert(&sh->zero);
    rc = recover_lock_tail(q, until);
    if (rc)
        return rc;
    rc = recover_lock_head(q, until);
    if (!rc) {
        store_sc(&sh->ended, 1); /* R4 */
        if (immediate && !load_sc(&sh->cut)) {
            uint64_t queued = counts_queued(q);
            fifo_own_all(q);                                     /* so that it is freed if we die */
            store_sc(&sh->cut, load_sc(&sh->puts) - queued + 1); /* R5 */
            fifo_discard(q);
        }
        lock_release(&sh->head.lock);
    }
    lock_release(&sh->tail.lock);
    if (rc)
        return rc;
    event_notify_all(&sh->items);
    event_notify_all(&sh->space);
    event_notify_all(&sh->zero);
    return JNQ_OK;
}

int jnq_shutdown(jnq_queue *q, int immediate)
{
    void *gil = gil_give_up();
    int rc = shut_down(q, immediate, lock_deadline(JNQ_FOREVER));
    gil_take_back(gil);
    return rc;
}

/* --- figures ---------------------------------------------------------------------------------------------- */

uint64_t jnq_qsize(jnq_queue *q) { return counts_queued(q); }

uint64_t jnq_unfinished(jnq_queue *q) { return counts_unfinished(q); }

uint64_t jnq_maxsize(jnq_queue *q) { return q->sh->maxsize; }

void jnq_count(jnq_queue *q, jnq_counters *out)
{
    struct jnq_shared *sh = q->sh;
    *out = (jnq_counters){
        .puts = load_sc(&sh->puts),
        .takes = load_sc(&sh->takes),
        .dones = load_sc(&sh->dones),
        .queued = counts_queued(q),
        .unfinished = counts_unfinished(q),
        .maxsize = sh->maxsize,
        .segment_bytes = sh->segment_bytes,
        .processes = procs_live(q),
        .recoveries = load_sc(&sh->recoveries),
        .deaths = load_sc(&sh->procs.deaths),
    };
    if (!heap_lock(q, event_now() + EVENT_SLICE_NS)) {
        heap_count(q, &out->used_bytes, &out->reserve_bytes);
        heap_unlock(q);
    }
}

int jnq_reap(jnq_queue *q)
{
    void *gil = gil_give_up();
    int rc = recover_reap(q, PROCS_MAX, lock_deadline(JNQ_FOREVER));
    gil_take_back(gil);
    return rc;
}

int jnq_check(jnq_queue *q)
{
    void *gil = gil_give_up();
    int rc = recover_check(q, lock_deadline(JNQ_NOW));
    gil_take_back(gil);
    return rc;
}
