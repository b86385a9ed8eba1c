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
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "atomics.h"
#include "cells.h"
#include "counts.h"
#include "fifo.h"
#include "gil.h"
#include "heap.h"
#include "lock.h"
#include "procs.h"
#include "ready.h"
#include "record.h"
#include "recover.h"
#include "segment.h"
#include "spin.h"
#include "watch.h"

#define GIL_KEEP_BYTES 65536     /* copying more takes long enough to let other threads run */
#define BUSY_GRACE_NS 1000000000 /* how long an operation that must not wait waits for a lock */
#define AWAIT_NS 10000000000
#define AWAIT_STEP_NS 100000

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

int jnq_create(int fd, uint64_t maxsize, int on_death, uint32_t max_deliveries, jnq_queue **out)
{
    struct jnq_queue *q;
    int rc = segment_create(fd, &q);
    if (rc)
        return rc;
    struct jnq_shared *sh = q->sh;
    q->maxsize = sh->maxsize = maxsize;
    q->on_death = sh->on_death = (uint32_t)on_death;
    sh->max_deliveries = max_deliveries;
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
        rc = ready_init(q);
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
        return rc == JNQ_NO_MEMORY ? ENOMEM : rc;
    }
    spin_init(q);
    q->users = 1;
    segment_publish(q);
    *out = q;
    return JNQ_OK;
}

static jnq_tidings tidings(struct jnq_queue *q)
{
    struct jnq_head *head = &q->sh->head;
    return (jnq_tidings){.deaths = load_sc(&q->sh->procs.deaths),
                         .redeliveries = load_sc(&head->redeliveries),
                         .letters = list_length(load_sc(&head->dead))};
}

int jnq_attach(int fd, jnq_queue **out)
{
    struct jnq_queue *q;
    int rc = segment_open(fd, &q);
    if (rc)
        return rc;
    q->on_death = q->sh->on_death;
    q->measured = q->sh->measured;
    if (q->on_death > JNQ_REDELIVER) {
        segment_abandon(q);
        return JNQ_MISMATCH;
    }
    rc = enter(q, event_now() + BUSY_GRACE_NS);
    if (rc) {
        segment_abandon(q);
        return rc == JNQ_INTERRUPTED ? EBUSY : rc;
    }
    spin_init(q);
    q->users = 1;
    q->told = tidings(q);
    *out = q;
    return JNQ_OK;
}

void jnq_measure(jnq_queue *q) { q->measured = q->sh->measured = 1; }

void jnq_label(jnq_queue *q, int kind, const char *name)
{
    q->sh->kind = (uint64_t)kind;
    strncpy(q->sh->name, name, sizeof q->sh->name - 1);
}

void jnq_name_process(const char *name) { procs_name(name); }

void jnq_depart(jnq_queue *q, int failed)
{
    uint8_t none = 0;
    if (procs_entered(q))
        cas_sc(&q->me->exit, &none, failed ? EXIT_FAILED : EXIT_CLEAN);
}

int jnq_move(jnq_queue *q, const jnq_piece *pages, uint64_t n) { return segment_move(q, pages, n); }

int jnq_on_death(jnq_queue *q) { return (int)q->on_death; }

int jnq_fileno(jnq_queue *q) { return segment_fd(q); }

/* One user less; the last one closes the handle. */
static void leave(jnq_queue *q)
{
    if (sub_sc(&q->users, 1))
        return;
    if (procs_entered(q))
        heap_cool(q);
    recover_leave(q, event_now() + BUSY_GRACE_NS);
    watch_end(q);
    ready_close(q);
    segment_close(q);
}

void jnq_detach(jnq_queue *q) { leave(q); }

/* --- waiting -------------------------------------------------------------------------------------------- */

static bool may_get(struct jnq_queue *q, uint64_t unused) { return (void)unused, ready_to_get(q); }

static bool may_put(struct jnq_queue *q, uint64_t unused) { return (void)unused, ready_to_put(q); }

static struct jnq_event *event_of(struct jnq_queue *q, enum jnq_wait in)
{
    struct jnq_event *events[] = {&q->sh->items, &q->sh->space, &q->sh->zero};
    return events[in];
}

static int sleep_until(struct jnq_queue *q, enum jnq_wait in, condition *holds, uint64_t arg, int64_t now,
                       int64_t deadline)
{
    struct jnq_event *ev = event_of(q, in);
    int64_t entered = now, began = now;
    uint32_t last_e = 0;
    for (bool was_deep = false;;) {
        recover_tick(q, now);
        uint32_t fresh = 1;
        if (!counts_plausible(q))
            return JNQ_CORRUPT;
        if (load_relaxed(&q->news) == fresh && cas_sc(&q->news, &fresh, 2))
            return JNQ_INTERRUPTED;
        if (in == JNQ_IN_JOIN && !holds(q, arg) && recover_lost(q))
            return JNQ_LOST;
        uint32_t e = event_prepare(ev);
        if (holds(q, arg))
            return JNQ_OK;
        if (now >= deadline)
            return JNQ_TIMEOUT;
        bool is_deep = event_is_deep(ev);
        /* Long only if the flag has been up for a slice, and nobody has called us back meanwhile. */
        int64_t until = now + (is_deep && was_deep && e == last_e ? EVENT_LONG_NS : EVENT_SLICE_NS);
        was_deep = is_deep;
        last_e = e;
        enum event_result woken = event_sleep(ev, e, until < deadline ? until : deadline);
        if (woken == EVENT_WOKEN)
            procs_woken(q);
        if (holds(q, arg))
            return JNQ_OK;
        now = event_now();
        if (woken == EVENT_WOKEN) {
            began = now;      /* there is traffic: stay alert */
            was_deep = false; /* what it slept was no slice, even if seq had moved before e was loaded */
        }
        if (now - began >= EVENT_DEEP_NS) {
            event_deepen(ev);
            heap_cool(q);
        }
        if (woken == EVENT_INTERRUPTED || now - entered >= EVENT_DEEP_NS)
            return now >= deadline ? JNQ_TIMEOUT : JNQ_INTERRUPTED;
    }
}

/* Until the condition holds: JNQ_OK, JNQ_TIMEOUT, JNQ_LOST (join only), or JNQ_INTERRUPTED: on a signal, when Python
 * has something to report, and once a second, because a signal that came while this thread was not asleep did not
 * interrupt it. Without the GIL. */
static int wait_for(struct jnq_queue *q, enum jnq_wait in, condition *holds, uint64_t arg, int64_t deadline)
{
    int64_t began = event_now(), spun = began;
    if (spin_until(q, in, holds, arg, deadline, &spun)) {
        procs_waited(q, in, spun - began);
        return JNQ_OK;
    }
    bool noted = procs_wait(q, in, began);
    int rc = sleep_until(q, in, holds, arg, event_now(), deadline);
    int64_t now = event_now();
    spin_slept(q, in, rc == JNQ_OK, began, event_woken_ns(event_of(q, in)), now);
    if (noted)
        procs_wait_end(q, in, now);
    procs_waited(q, in, now - began);
    return rc;
}

/* Until when a lock is tried in the patient part of an operation. */
static int64_t lock_deadline(int64_t deadline)
{
    return event_now() + (deadline == JNQ_NOW ? BUSY_GRACE_NS : EVENT_SLICE_NS);
}

/* A lock that stays busy is a reason to come back only before the deadline. */
static bool too_late(int64_t rc, int64_t deadline)
{
    return rc == JNQ_TIMEOUT || (rc == JNQ_INTERRUPTED && event_now() >= deadline);
}

/* --- put ------------------------------------------------------------------------------------------------- */

/* What a put brings: one record, or a batch to make JNQ_CHUNKs of. */
struct put {
    struct fifo_load load;
    const char *batch;
    uint64_t rest;  /* items of the batch that are not in */
    uint64_t *done; /* counts those that are */
};

/* As many items as fit into one record, and are not more than `most`; *payload grows by what they hold. */
static struct fifo_load chunk_of(const char *batch, uint64_t most, jnq_piece *piece, uint64_t *payload)
{
    struct fifo_load load = {.kind = JNQ_CHUNK, .pieces = piece, .n = 1};
    if (most > UINT16_MAX)
        most = UINT16_MAX;
    while (load.form < most) {
        jnq_packed item;
        memcpy(&item, batch + load.bytes, sizeof item);
        if (load.bytes + record_packed(item.bytes) > JNQ_INLINE_BYTES)
            break;
        load.bytes += record_packed(item.bytes);
        load.form++;
        *payload += item.bytes;
    }
    *piece = (jnq_piece){batch, load.bytes};
    return load;
}

static int push_batch(struct jnq_queue *q, struct put *put, uint64_t room, int64_t until)
{
    jnq_piece piece;
    while (put->rest && room) {
        uint64_t payload = 0;
        struct fifo_load load = chunk_of(put->batch, put->rest < room ? put->rest : room, &piece, &payload);
        int rc = fifo_push(q, &load, until);
        if (rc)
            return rc;
        put->batch += load.bytes;
        put->load.bytes += payload;
        put->rest -= load.form;
        *put->done += load.form;
        room -= load.form;
    }
    return put->rest ? JNQ_FULL : JNQ_OK;
}

static int push_some(struct jnq_queue *q, struct put *put, int64_t until)
{
    uint64_t room = fifo_room(q);
    if (!room)
        return JNQ_FULL;
    return put->batch ? push_batch(q, put, room, until) : fifo_push(q, &put->load, until);
}

static int push_measured(struct jnq_queue *q, struct put *put, int64_t until)
{
    struct jnq_figures *figures = &q->sh->figures;
    uint64_t before = counts_queued(q), puts = load_relaxed(&q->sh->puts);
    if (put->batch)
        put->load.bytes = 0;
    int rc = push_some(q, put, until);
    uint64_t items = load_relaxed(&q->sh->puts) - puts;
    if (!items)
        return rc;
    store_relaxed(&figures->bytes, figures->bytes + put->load.bytes);
    if (figures->backlog < before + items)
        store_relaxed(&figures->backlog, before + items);
    return rc;
}

/* One attempt: JNQ_FULL if there is no room now, or not for all of a batch. */
static int try_put(struct jnq_queue *q, struct put *put, int64_t until)
{
    struct jnq_shared *sh = q->sh;
    event_alert(&sh->items);
    int rc = recover_lock_tail(q, until);
    if (rc)
        return rc;
    uint64_t puts = load_relaxed(&sh->puts);
    rc = load_relaxed(&sh->ended) ? JNQ_SHUTDOWN : (q->measured ? push_measured : push_some)(q, put, until);
    uint64_t items = load_relaxed(&sh->puts) - puts;
    if (items)
        procs_put(q, items);
    lock_release(&sh->tail.lock);
    if (!items)
        return rc;
    store_relaxed(&q->put_fork, load_relaxed(&q->fork));
    if (event_notify(&sh->items, items))
        procs_active(q);
    ready_changed(q);
    return rc;
}

/* A copy of the payload in an extent of ours. */
static int stage(struct jnq_queue *q, struct fifo_load *load, int64_t until)
{
    uint64_t unit;
    heap_await(q, load->bytes);
    int rc = heap_alloc_to_put(q, load->bytes, until, &unit);
    if (rc)
        return rc;
    load->unit = unit;
    uint64_t units = load->bytes / q->unit_bytes;
    bool is_long = load->bytes > GIL_KEEP_BYTES;
    int64_t began = is_long ? spin_copying(q, units) : 0;
    record_gather(unit_at(q, unit), load->pieces, load->n);
    if (is_long)
        spin_copied(q, units, began);
    return JNQ_OK;
}

static void unstage(struct jnq_queue *q, struct fifo_load *load)
{
    if (!load->unit || load->is_given)
        return;
    heap_free(q, load->unit);
    load->unit = 0;
}

static int put_patiently(struct jnq_queue *q, struct put *put, int64_t deadline)
{
    struct jnq_shared *sh = q->sh;
    struct fifo_load *load = &put->load;
    int rc = enter(q, lock_deadline(deadline));
    while (!rc) {
        /* Room first: what is staged is lost when a signal ends the wait. */
        if (!may_put(q, 0))
            rc = deadline == JNQ_NOW ? JNQ_FULL : wait_for(q, JNQ_IN_PUT, may_put, 0, deadline);
        if (!rc && !load->unit && load->kind == JNQ_EXTENT && !load_sc(&sh->ended))
            rc = stage(q, load, lock_deadline(deadline));
        if (rc)
            break;
        rc = try_put(q, put, lock_deadline(deadline));
        if (!rc)
            return JNQ_OK;
        if (rc == JNQ_FULL && deadline != JNQ_NOW)
            rc = JNQ_OK; /* somebody was faster, or there was room for a part: wait again */
    }
    unstage(q, load);
    return too_late(rc, deadline) ? JNQ_FULL : rc;
}

static int put(jnq_queue *q, struct put *put, int64_t deadline)
{
    struct fifo_load *load = &put->load;
    int rc = JNQ_INTERRUPTED;
    if (procs_entered(q) && (load->kind != JNQ_EXTENT || load->is_given)) {
        if (fifo_grows(q, load->is_given ? 0 : put->batch ? JNQ_INLINE_BYTES : load->bytes))
            heap_await(q, BLOCK_BYTES);
        rc = try_put(q, put, 0);
    } else if (procs_entered(q) && load->bytes <= GIL_KEEP_BYTES && may_put(q, 0)) {
        rc = stage(q, load, 0);
        if (!rc && (rc = try_put(q, put, 0)))
            unstage(q, load);
    }
    if (rc != JNQ_INTERRUPTED && (rc != JNQ_FULL || deadline == JNQ_NOW))
        return rc;
    void *gil = gil_give_up();
    rc = put_patiently(q, put, deadline);
    if (rc != JNQ_INTERRUPTED)
        procs_call_end(q, JNQ_IN_PUT);
    gil_take_back(gil);
    return rc;
}

int jnq_put_pieces(jnq_queue *q, int form, const jnq_piece *pieces, uint64_t n, int64_t deadline)
{
    struct put one = {.load = {.form = (uint16_t)form, .pieces = pieces, .n = n}};
    for (uint64_t i = 0; i < n; i++)
        one.load.bytes += pieces[i].bytes;
    one.load.kind = one.load.bytes <= JNQ_INLINE_BYTES ? JNQ_INLINE : JNQ_EXTENT;
    return put(q, &one, deadline);
}

int jnq_put(jnq_queue *q, const char *payload, uint64_t bytes, int64_t deadline)
{
    return jnq_put_pieces(q, JNQ_PICKLE, &(jnq_piece){payload, bytes}, 1, deadline);
}

int jnq_put_integer(jnq_queue *q, int64_t value, int64_t deadline)
{
    return jnq_put_pieces(q, JNQ_INTEGER, &(jnq_piece){(const char *)&value, sizeof value}, 1, deadline);
}

static int try_blank(struct jnq_queue *q, uint64_t bytes, int64_t until, uint64_t *unit)
{
    int rc = enter(q, until);
    return rc ? rc : heap_alloc(q, sizeof(struct jnq_given) + bytes, until, unit);
}

int jnq_blank(jnq_queue *q, uint64_t bytes, jnq_box *box)
{
    uint64_t unit;
    box->taken = 0;
    if (bytes > q->bytes)
        return JNQ_NO_MEMORY;
    void *gil = gil_give_up();
    int rc = try_blank(q, bytes, lock_deadline(JNQ_FOREVER), &unit);
    gil_take_back(gil);
    if (rc)
        return rc;
    add_sc(&q->users, 1);
    *box = (jnq_box){.taken = 1,
                     .bytes = bytes,
                     .unit = unit,
                     .queue = q,
                     .fork = load_relaxed(&q->fork),
                     .kind = JNQ_EXTENT,
                     .payload = (const char *)unit_at(q, unit) + sizeof(struct jnq_given)};
    return JNQ_OK;
}

int jnq_give(jnq_queue *q, jnq_box *box, int form, const char *preface, uint64_t bytes, int64_t deadline)
{
    struct put one = {.load = {.kind = JNQ_EXTENT, .form = (uint16_t)form, .unit = box->unit, .is_given = true}};
    one.load.bytes = JNQ_PREFACE_BYTES + box->bytes;
    struct jnq_given *given = unit_at(q, box->unit);
    memcpy(given->preface, preface, bytes);
    heap_give(q, box->unit);
    int rc = put(q, &one, deadline);
    if (rc)
        heap_take_back(q, box->unit);
    else
        box->kind = JNQ_GIVEN;
    return rc;
}

int jnq_put_batch(jnq_queue *q, const char *batch, uint64_t n, uint64_t *done, int64_t deadline)
{
    struct put many = {.load = {.kind = JNQ_CHUNK}, .batch = batch, .rest = n, .done = done};
    return n ? put(q, &many, deadline) : JNQ_OK;
}

/* --- get ------------------------------------------------------------------------------------------------- */

/* Under the head lock: JNQ_OK, JNQ_LARGE or JNQ_LEASED with the oldest item in the box, or why not. *freed as in
 * fifo_next. */
static int take(struct jnq_queue *q, jnq_box *box, int64_t until, uint64_t *freed)
{
    if (load_relaxed(&q->sh->head.front))
        return cells_pop(q, box, freed);
    struct jnq_record *record;
    int rc = fifo_next(q, &record, freed);
    if (rc)
        return rc;
    rc = q->on_death == JNQ_REDELIVER ? cells_lease(q, record, until, box)
                                      : record_unpack(q, record, q->sh->head.off, box);
    if (rc == JNQ_OK || rc == JNQ_LARGE || rc == JNQ_LEASED)
        fifo_step(q, record, box->lease);
    return rc;
}

/* Under the head lock: our last n tasks were taken now. */
static void note_time(struct jnq_queue *q, uint64_t n)
{
    if (!q->on_death)
        return;
    uint64_t now = (uint64_t)event_coarse_now(), last = q->me->takes;
    for (uint64_t i = 1; i <= n && i <= PROC_TAKEN; i++)
        store_relaxed(&q->me->taken_ns[(last - i) % PROC_TAKEN], now);
}

/* Who polls an empty queue does not sleep for a second, but finds that nobody took anything for so long. */
static void cool_if_idle(struct jnq_queue *q)
{
    if (!heap_is_kept(q) || !procs_entered(q))
        return;
    uint64_t takes = load_relaxed(&q->sh->takes);
    int64_t now = event_coarse_now();
    if (takes != load_relaxed(&q->idle_takes)) {
        store_relaxed(&q->idle_takes, takes);
        store_relaxed(&q->idle_ns, now);
    } else if (now - load_relaxed(&q->idle_ns) > EVENT_DEEP_NS) {
        heap_cool(q);
    }
}

/* One attempt: JNQ_EMPTY if there is no item now. */
static int64_t try_get(struct jnq_queue *q, jnq_box *box, int64_t until)
{
    struct jnq_shared *sh = q->sh;
    uint64_t freed;
    event_alert(&sh->space);
    int rc = recover_lock_head(q, until);
    if (rc)
        return rc;
    box->lease = 0;
    rc = take(q, box, until, &freed);
    if (rc == JNQ_EMPTY && load_sc(&sh->ended)) /* no put can follow that we did not see now: */
        rc = (rc = take(q, box, until, &freed)) == JNQ_EMPTY ? JNQ_SHUTDOWN : rc;
    bool taken = rc == JNQ_OK || rc == JNQ_LARGE || rc == JNQ_LEASED;
    if (taken)
        note_time(q, 1);
    lock_release(&sh->head.lock);
    if (freed)
        heap_free(q, freed);
    if (!taken)
        return rc;
    box->taken = 1;
    box->queue = q;
    box->fork = load_relaxed(&q->fork);
    if (rc == JNQ_LARGE)
        add_sc(&q->users, 1);
    if (event_notify(&sh->space, 1))
        procs_active(q);
    ready_changed(q);
    return rc == JNQ_OK ? (int64_t)box->bytes : rc;
}

/* The same for a batch: 0 if the next item cannot be in one. */
static int64_t try_get_batch(struct jnq_queue *q, char *batch, uint64_t room, uint64_t most, int64_t until)
{
    struct jnq_shared *sh = q->sh;
    struct jnq_record *record;
    uint64_t freed = 0, n = 0;
    event_alert(&sh->space);
    int rc = recover_lock_head(q, until);
    if (rc)
        return rc;
    if (!load_relaxed(&sh->head.front)) {
        rc = fifo_next(q, &record, &freed);
        if (rc == JNQ_EMPTY && load_sc(&sh->ended))
            rc = JNQ_OK; /* jnq_get() looks whether it is the end */
        else if (rc == JNQ_OK)
            n = fifo_step_batch(q, batch, room, most);
        if (n)
            note_time(q, n);
    }
    lock_release(&sh->head.lock);
    if (freed)
        heap_free(q, freed);
    if (n) {
        event_notify(&sh->space, n);
        ready_changed(q);
    }
    return n ? (int64_t)n : rc;
}

/* True if the dead are to be looked for first: their tasks come before those in the queue. */
static bool heirs_first(struct jnq_queue *q)
{
    return q->on_death == JNQ_REDELIVER && recover_due(q, event_coarse_now());
}

/* What a get takes: one item, or a batch. */
struct get {
    jnq_box *box;
    char *batch;
    uint64_t room, most;
};

static inline int64_t try_take(struct jnq_queue *q, const struct get *get, int64_t until)
{
    return get->box ? try_get(q, get->box, until) : try_get_batch(q, get->batch, get->room, get->most, until);
}

static int64_t get_patiently(struct jnq_queue *q, const struct get *get, int64_t deadline)
{
    int64_t rc = enter(q, lock_deadline(deadline));
    if (heirs_first(q))
        recover_tick(q, event_now());
    while (rc == JNQ_OK) {
        rc = try_take(q, get, lock_deadline(deadline));
        if (rc != JNQ_EMPTY || deadline == JNQ_NOW)
            break;
        rc = wait_for(q, JNQ_IN_GET, may_get, 0, deadline);
    }
    return too_late(rc, deadline) ? JNQ_EMPTY : rc;
}

static inline int64_t get(jnq_queue *q, const struct get *get, int64_t deadline)
{
    int64_t rc = procs_entered(q) && !heirs_first(q) ? try_take(q, get, 0) : JNQ_INTERRUPTED;
    if (rc != JNQ_INTERRUPTED && rc != JNQ_EMPTY)
        return rc;
    if (rc == JNQ_INTERRUPTED || deadline != JNQ_NOW) {
        void *gil = gil_give_up();
        rc = get_patiently(q, get, deadline);
        if (rc != JNQ_INTERRUPTED)
            procs_call_end(q, JNQ_IN_GET);
        gil_take_back(gil);
    }
    if (rc == JNQ_EMPTY)
        cool_if_idle(q);
    return rc;
}

int64_t jnq_get(jnq_queue *q, jnq_box *box, int64_t deadline)
{
    box->taken = 0;
    return get(q, &(struct get){.box = box}, deadline);
}

int64_t jnq_get_batch(jnq_queue *q, char *batch, uint64_t room, uint64_t most, int64_t deadline)
{
    return get(q, &(struct get){.batch = batch, .room = room, .most = most}, deadline);
}

/* False in the child of a fork that came after the get: then the item is the parent's. */
static bool ours(jnq_queue *q, jnq_box *box) { return procs_entered(q) && box->fork == load_relaxed(&q->fork); }

static void release(jnq_box *box)
{
    jnq_queue *q = box->queue;
    uint64_t unit = box->taken ? box->unit : 0;
    bool free = unit && ours(q, box);
    bool given = box->kind == JNQ_GIVEN;
    store_rel(&box->taken, 0); /* from here on the box may be another call's */
    if (free)
        (given ? heap_ungive : heap_free)(q, unit);
    if (unit)
        leave(q);
}

void jnq_release(jnq_box *box)
{
    bool heavy = box->taken && box->unit && box->bytes > GIL_KEEP_BYTES;
    void *gil = heavy ? gil_give_up() : NULL;
    release(box);
    if (heavy)
        gil_take_back(gil);
}

void jnq_await(jnq_box *box)
{
    void *gil = gil_give_up();
    for (int64_t until = event_now() + AWAIT_NS; load_acq(&box->taken) && event_now() < until;)
        event_pause(AWAIT_STEP_NS);
    gil_take_back(gil);
}

void jnq_rebox(jnq_queue *q, jnq_box *box, int form, const char *payload, uint64_t bytes)
{
    if (bytes > JNQ_INLINE_BYTES) /* only after foreign writes */
        bytes = JNQ_INLINE_BYTES;
    box->taken = 1;
    box->queue = q;
    box->kind = JNQ_INLINE;
    box->form = (uint64_t)form;
    box->bytes = bytes;
    box->payload = box->copy;
    box->unit = box->lease = 0;
    box->fork = load_relaxed(&q->fork);
    memcpy(box->copy, payload, bytes);
}

static int unget_patiently(struct jnq_queue *q, jnq_box *box, int64_t until)
{
    struct jnq_shared *sh = q->sh;
    uint64_t unit = box->lease;
    int rc = unit ? JNQ_OK : cells_new(q, box, until, &unit);
    if (rc)
        return rc;
    event_alert(&sh->items);
    event_alert(&sh->zero);
    rc = recover_lock_head(q, until);
    if (rc) {
        if (!box->lease)
            heap_free(q, unit);
        return rc;
    }
    bool cut = load_sc(&sh->cut), gone = box->lease && !cells_ours(q, unit, box->number);
    if (gone || list_length(load_relaxed(&sh->head.front)) == LIST_MAX) {
        lock_release(&sh->head.lock);
        if (gone)
            release(box);
        else if (!box->lease)
            heap_free(q, unit);
        return gone ? JNQ_OK : JNQ_NO_MEMORY;
    }
    if (!cut)
        cells_push(q, unit);
    else if (box->lease)
        cells_finish(q, unit, q->owner);
    uint64_t finished = counts_finished(q);
    lock_release(&sh->head.lock);
    if (!cut) {
        event_notify(&sh->items, 1);
        bool lent = box->unit;
        store_rel(&box->taken, 0);
        if (lent)
            leave(q);
        return JNQ_OK;
    }
    if (box->lease) {
        cells_free(q, unit);
        counts_announce(q, finished);
    } else {
        heap_free(q, unit);
        counts_done(q, 1);
    }
    release(box);
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
    if (!rc)
        ready_changed(q);
    gil_take_back(gil);
    return rc;
}

/* Puts a copy of the extent back; the box goes on holding what it held. */
static int unget_copy(struct jnq_queue *q, const jnq_box *box, int64_t until)
{
    jnq_piece payload = {box->payload, box->bytes};
    struct fifo_load load = {.kind = JNQ_EXTENT, .pieces = &payload, .n = 1, .bytes = box->bytes};
    int rc = stage(q, &load, until);
    if (rc)
        return rc;
    jnq_box copy;
    memcpy(&copy, box, offsetof(jnq_box, copy));
    copy.kind = JNQ_EXTENT;
    copy.unit = load.unit;
    copy.payload = unit_at(q, load.unit);
    add_sc(&q->users, 1);
    rc = unget_patiently(q, &copy, until);
    if (rc)
        release(&copy);
    return rc;
}

int jnq_unget_copy(jnq_queue *q, jnq_box *box)
{
    if (!box->taken || !box->unit || box->queue != q || !ours(q, box))
        return jnq_unget(q, box);
    void *gil = gil_give_up();
    int rc = unget_copy(q, box, lock_deadline(JNQ_FOREVER));
    if (!rc)
        ready_changed(q);
    gil_take_back(gil);
    return rc;
}

int jnq_unlease(jnq_queue *q, uint64_t lease, uint64_t number)
{
    if (!lease || !procs_entered(q))
        return JNQ_OK;
    jnq_box box; /* without a payload: it is in the lease */
    box.taken = 1;
    box.queue = q;
    box.fork = load_relaxed(&q->fork);
    box.kind = JNQ_INLINE;
    box.unit = 0;
    box.lease = lease;
    box.number = number;
    return jnq_unget(q, &box);
}

/* --- tasks ----------------------------------------------------------------------------------------------- */

int jnq_task_done(jnq_queue *q, uint64_t n)
{
    int rc = counts_done(q, n);
    if (!rc)
        ready_changed(q);
    return rc;
}

static int try_finish(struct jnq_queue *q, uint64_t lease, uint64_t number, int64_t until)
{
    struct jnq_shared *sh = q->sh;
    if (!procs_entered(q))
        return JNQ_NOT_OURS;
    event_alert(&sh->zero);
    int rc = recover_lock_head(q, until);
    if (rc)
        return rc;
    bool ours = cells_ours(q, lease, number);
    if (ours)
        cells_finish(q, lease, q->owner);
    uint64_t finished = counts_finished(q); /* before a put ends the zero */
    lock_release(&sh->head.lock);
    if (!ours)
        return JNQ_NOT_OURS;
    cells_free(q, lease);
    counts_announce(q, finished);
    ready_changed(q);
    return JNQ_OK;
}

int jnq_finish(jnq_queue *q, uint64_t lease, uint64_t number)
{
    int rc = try_finish(q, lease, number, 0);
    if (rc != JNQ_INTERRUPTED)
        return rc;
    void *gil = gil_give_up();
    rc = try_finish(q, lease, number, lock_deadline(JNQ_FOREVER));
    gil_take_back(gil);
    return rc;
}

/* Enters the process only so that others see who waits: if that is to be had at once. */
static void show_joiner(struct jnq_queue *q)
{
    if (procs_entered(q) || recover_lock_procs(q, 0))
        return;
    procs_enter(q);
    lock_release(&q->sh->procs.lock);
}

int jnq_join(jnq_queue *q, uint64_t *since, int64_t deadline)
{
    uint64_t puts = counts_join(q); /* each time: the announcement may have been taken down */
    if (!*since)
        *since = puts;
    if (counts_zero(q, *since))
        return JNQ_OK;
    if (deadline == JNQ_NOW)
        return recover_lost(q) ? JNQ_LOST : JNQ_TIMEOUT;
    void *gil = gil_give_up();
    show_joiner(q);
    int rc = wait_for(q, JNQ_IN_JOIN, counts_zero, *since, deadline);
    if (rc != JNQ_INTERRUPTED)
        procs_call_end(q, JNQ_IN_JOIN);
    gil_take_back(gil);
    return rc;
}

/* --- the end ---------------------------------------------------------------------------------------------- */

/* Every run that holds queued items. */
static bool each_queued(struct jnq_queue *q, bool (*visit)(struct jnq_queue *, uint64_t unit))
{
    return cells_each(q, load_relaxed(&q->sh->head.front), visit) && fifo_each(q, visit);
}

static bool own(struct jnq_queue *q, uint64_t unit)
{
    heap_own(q, unit);
    return true;
}

static bool discard(struct jnq_queue *q, uint64_t unit)
{
    if (unit != q->sh->tail.block)
        heap_free(q, unit);
    return true;
}

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
            each_queued(q, own);                                 /* so that it is freed if we die */
            store_sc(&sh->cut, load_sc(&sh->puts) - queued + 1); /* R5 */
            each_queued(q, discard);
        }
        lock_release(&sh->head.lock);
    }
    lock_release(&sh->tail.lock);
    if (rc)
        return rc;
    event_notify_all(&sh->items);
    event_notify_all(&sh->space);
    event_notify_all(&sh->zero);
    ready_changed(q);
    return JNQ_OK;
}

int jnq_shutdown(jnq_queue *q, int immediate)
{
    void *gil = gil_give_up();
    int rc = shut_down(q, immediate, lock_deadline(JNQ_FOREVER));
    gil_take_back(gil);
    return rc;
}

/* --- poll(2), and ends ------------------------------------------------------------------------------------- */

static int pollable(struct jnq_queue *q, enum jnq_wait what, int64_t until, int *fd)
{
    int rc = enter(q, until);
    if (!rc)
        rc = watch_begin(q); /* first, so that no descriptor is known without it */
    return rc ? rc : ready_fd(q, what, until, fd);
}

int jnq_pollable(jnq_queue *q, int what, int *fd)
{
    void *gil = gil_give_up();
    int rc = pollable(q, (enum jnq_wait)what, lock_deadline(JNQ_FOREVER), fd);
    gil_take_back(gil);
    return rc;
}

static void set_mute(jnq_queue *q, uint32_t mute)
{
    store_relaxed(&q->mute, mute);
    if (procs_entered(q))
        store_relaxed(&q->me->mute, (uint8_t)mute);
}

void jnq_end_writing(jnq_queue *q) { set_mute(q, 1); }

void jnq_begin_writing(jnq_queue *q) { set_mute(q, 0); }

int jnq_writers(jnq_queue *q)
{
    int writers = 0;
    for (uint32_t owner = 1; owner <= procs_count(q); owner++)
        writers += procs_writes(q, owner) && !procs_dead(q, owner);
    return writers;
}

/* --- figures ---------------------------------------------------------------------------------------------- */

uint64_t jnq_qsize(jnq_queue *q)
{
    if (heirs_first(q)) {
        void *gil = gil_give_up();
        recover_tick(q, event_now());
        gil_take_back(gil);
    }
    return counts_queued(q);
}

uint64_t jnq_unfinished(jnq_queue *q) { return counts_unfinished(q); }

uint64_t jnq_id(jnq_queue *q) { return q->id; }

uint64_t jnq_maxsize(jnq_queue *q) { return q->maxsize; }

int jnq_has_put(jnq_queue *q) { return procs_entered(q) && load_relaxed(&q->put_fork) == load_relaxed(&q->fork); }

int jnq_is_shutdown(jnq_queue *q) { return load_sc(&q->sh->ended) != 0; }

void jnq_read_traits(jnq_queue *q, jnq_traits *out)
{
    struct jnq_shared *sh = q->sh;
    *out = (jnq_traits){.id = q->id,
                        .maxsize = q->maxsize,
                        .on_death = q->on_death,
                        .max_deliveries = sh->max_deliveries,
                        .kind = (uint32_t)sh->kind,
                        .shutdown = load_sc(&sh->ended) != 0};
    memcpy(out->name, sh->name, sizeof out->name - 1);
}

void jnq_glance(jnq_queue *q, jnq_counters *out)
{
    struct jnq_shared *sh = q->sh;
    *out = (jnq_counters){
        .maxsize = q->maxsize,
        .segment_bytes = q->bytes,
        .recoveries = load_sc(&sh->recoveries),
        .deaths = load_sc(&sh->procs.deaths),
        .redeliveries = load_sc(&sh->head.redeliveries),
        .put_bytes = load_relaxed(&sh->figures.bytes),
        .backlog = load_relaxed(&sh->figures.backlog),
        .foreign = load_sc(&sh->foreign),
    };
    counts_read(q, out);
    heap_glance(q, &out->used_bytes, &out->peak_bytes);
    procs_sum(q, out);
}

void jnq_count(jnq_queue *q, jnq_counters *out)
{
    jnq_glance(q, out);
    if (!procs_foreign(q) && !heap_lock(q, event_now() + EVENT_SLICE_NS)) {
        heap_count(q, &out->used_bytes, &out->reserve_bytes);
        heap_unlock(q);
    }
}

int jnq_look(int fd, jnq_queue **out)
{
    struct jnq_queue *q;
    int rc = segment_copy(fd, counts_same, &q);
    if (rc)
        return rc;
    if (procs_foreign(q)) {
        segment_forget(q);
        return JNQ_NAMESPACE;
    }
    q->on_death = q->sh->on_death;
    *out = q;
    return JNQ_OK;
}

void jnq_forget(jnq_queue *q) { segment_forget(q); }

int jnq_read_holder(jnq_queue *q, uint32_t number, jnq_holder *out)
{
    if (!procs_entry(q, number))
        return JNQ_TIMEOUT;
    if (!procs_known(q, number) && !procs_is_grave(q, number))
        return JNQ_EMPTY;
    procs_read(q, number, out);
    return JNQ_OK;
}

int jnq_read_death(jnq_queue *q, uint64_t number, jnq_death *out) { return procs_obit(q, number, out); }

int jnq_news(jnq_queue *q)
{
    uint32_t news = load_relaxed(&q->news);
    store_relaxed(&q->news, 0);
    return news != 0;
}

int jnq_untold(jnq_queue *q, int own, jnq_tidings *before)
{
    if (own && !load_relaxed(&q->noticed))
        return 0;
    if (before)
        store_sc(&q->noticed, 0); /* what is noticed from now on will be told the next time, perhaps in vain */
    jnq_tidings now = tidings(q), then = q->told;
    if (before) {
        *before = then;
        q->told = now;
    }
    return now.deaths != then.deaths || now.redeliveries != then.redeliveries || now.letters != then.letters;
}

int jnq_read_letter(jnq_queue *q, uint64_t *cursor, jnq_letter *out) { return cells_letter(q, cursor, out); }

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
