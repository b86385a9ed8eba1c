#include "cells.h"

#include <stdlib.h>
#include <string.h>

#include "atomics.h"
#include "heap.h"
#include "note.h"
#include "procs.h"
#include "record.h"

static uint64_t list_word(uint64_t rest, uint64_t unit) { return (list_length(rest) + 1) << (64 - LIST_BITS) | unit; }

/* The cell at `unit`, or NULL if there is none: only after foreign writes. */
static struct jnq_cell *cell_at(struct jnq_queue *q, uint64_t unit)
{
    uint64_t bytes = heap_bytes(q, unit);
    if (bytes < sizeof(struct jnq_cell))
        return NULL;
    struct jnq_cell *cell = unit_at(q, unit);
    const struct jnq_record *record = &cell->record;
    bool whole = record_well_formed(record) && record_size(record) <= bytes - offsetof(struct jnq_cell, record);
    return whole ? cell : NULL;
}

/* The first cell of the list that the word describes, or NULL. The word in the cell describes a shorter list, so
 * whoever follows it comes to an end. */
static struct jnq_cell *first_cell(struct jnq_queue *q, uint64_t word)
{
    struct jnq_cell *cell = cell_at(q, list_unit(word));
    return cell && list_length(cell->next) + 1 == list_length(word) ? cell : NULL;
}

int cells_new(struct jnq_queue *q, const jnq_box *box, int64_t until, uint64_t *unit)
{
    int rc = heap_alloc(q, sizeof(struct jnq_cell) + (box->unit ? 0 : box->bytes), until, unit);
    if (rc)
        return rc;
    struct jnq_cell *cell = unit_at(q, *unit);
    memset(cell, 0, sizeof *cell);
    cell->record.kind = (uint16_t)box->kind;
    cell->record.form = (uint16_t)box->form;
    if (box->unit) {
        cell->record.extent.unit = box->unit;
        cell->record.extent.bytes = box->bytes;
    } else {
        cell->record.inline_bytes = (uint32_t)box->bytes;
        memcpy(cell->record.payload, box->payload, box->bytes);
    }
    return JNQ_OK;
}

void cells_push(struct jnq_queue *q, uint64_t unit)
{
    uint64_t *front = &q->sh->head.front;
    struct jnq_cell *cell = unit_at(q, unit);
    cell->next = load_relaxed(front);
    uint64_t lease = heap_leaser(q, unit) ? unit : 0;
    note_step(q, NOTE_RETURN, 1, front, list_word(cell->next, unit), lease);
}

/* The box gets what the lease holds; if its owner dies, that was one taker more. */
static int hand_out(struct jnq_queue *q, struct jnq_cell *cell, uint64_t unit, jnq_box *box)
{
    int rc = record_lend(q, &cell->record, 0, box);
    if (rc == JNQ_CORRUPT)
        return rc;
    if (box->unit)
        heap_own(q, box->unit);
    cell->deaths_then = cell->deaths + 1;
    box->unit = 0;
    box->lease = unit;
    box->number = cell->record.number;
    return JNQ_LEASED;
}

int cells_pop(struct jnq_queue *q, jnq_box *box, uint64_t *freed)
{
    uint64_t *front = &q->sh->head.front, unit = list_unit(load_relaxed(front));
    struct jnq_cell *cell = first_cell(q, load_relaxed(front));
    *freed = 0;
    if (load_relaxed(&q->sh->cut))
        return JNQ_EMPTY;
    if (!cell)
        return JNQ_CORRUPT;
    if (q->on_death == JNQ_REDELIVER) {
        int rc = hand_out(q, cell, unit, box);
        if (rc == JNQ_LEASED)
            note_step(q, NOTE_TAKE, 1, front, cell->next, unit);
        return rc;
    }
    int rc = record_unpack(q, &cell->record, 0, box);
    if (rc == JNQ_CORRUPT)
        return rc;
    heap_own(q, unit);
    note_step(q, NOTE_TAKE, 1, front, cell->next, 0);
    *freed = unit;
    return rc;
}

int cells_lease(struct jnq_queue *q, const struct jnq_record *record, int64_t until, jnq_box *box)
{
    uint64_t unit;
    int rc = record_lend(q, record, q->sh->head.off, box);
    if (rc == JNQ_CORRUPT)
        return rc;
    rc = cells_new(q, box, until, &unit);
    if (rc)
        return rc;
    struct jnq_cell *cell = unit_at(q, unit);
    cell->record.number = load_relaxed(&q->sh->takes);
    return hand_out(q, cell, unit, box);
}

bool cells_ours(struct jnq_queue *q, uint64_t unit, uint64_t number)
{
    struct jnq_cell *cell = cell_at(q, unit);
    return cell && heap_leaser(q, unit) == q->owner && cell->record.number == number;
}

void cells_finish(struct jnq_queue *q, uint64_t unit, uint32_t owner)
{
    uint64_t *dones = &q->sh->dones;
    struct jnq_proc *proc = procs_entry(q, owner);
    note_step_of(q, NOTE_FINISH, owner, dones, load_relaxed(dones) + 1, unit); /* R3 */
    if (proc)
        add_sc(&proc->dones, 1);
}

void cells_free(struct jnq_queue *q, uint64_t unit)
{
    struct jnq_cell *cell = unit_at(q, unit);
    uint64_t extent = record_extent(&cell->record);
    heap_free(q, unit);
    if (extent)
        heap_free(q, extent);
}

/* --- the dead ------------------------------------------------------------------------------------------ */

struct lease {
    uint64_t number, unit;
    bool letter; /* is to be a dead letter */
};

static int by_number(const void *a, const void *b)
{
    uint64_t x = ((const struct lease *)a)->number, y = ((const struct lease *)b)->number;
    return (x > y) - (x < y);
}

/* All leases of the owner, oldest task first. */
static int collect(struct jnq_queue *q, uint32_t owner, struct lease **leases, uint64_t *n)
{
    *n = heap_leases(q, owner, NULL, 0);
    uint64_t *units = malloc((size_t)*n * sizeof *units + 1);
    *leases = malloc((size_t)*n * sizeof **leases + 1);
    if (!units || !*leases) {
        free(units);
        free(*leases);
        return JNQ_NO_MEMORY;
    }
    heap_leases(q, owner, units, *n);
    bool whole = true;
    for (uint64_t i = 0; i < *n; i++) {
        struct jnq_cell *cell = cell_at(q, units[i]);
        whole = whole && cell;
        (*leases)[i] = (struct lease){.number = cell ? cell->record.number : 0, .unit = units[i]};
    }
    free(units);
    qsort(*leases, (size_t)*n, sizeof **leases, by_number);
    if (!whole)
        free(*leases);
    return whole ? JNQ_OK : JNQ_CORRUPT;
}

static void count_death(struct jnq_cell *cell, uint32_t pid)
{
    cell->deaths = cell->deaths_then;
    cell->death[(cell->deaths - 1) % JNQ_LETTER_DEATHS] = (uint64_t)pid << TIME_BITS | event_wall_ms();
}

/* The list with one more cell, which is nobody else's to see yet. */
static uint64_t prepend(struct jnq_queue *q, uint64_t word, uint64_t unit)
{
    struct jnq_cell *cell = unit_at(q, unit);
    cell->next = word;
    return list_word(word, unit);
}

static bool mark_moved(struct jnq_queue *q, uint64_t unit)
{
    struct jnq_cell *cell = unit_at(q, unit);
    return heap_mark(q, unit) && (cell->record.kind != JNQ_EXTENT || heap_mark(q, cell->record.extent.unit));
}

int cells_redeliver(struct jnq_queue *q, uint32_t owner, bool killed, uint64_t *moved)
{
    struct jnq_shared *sh = q->sh;
    uint32_t pid = procs_entry(q, owner)->pid;
    uint64_t n, front = load_relaxed(&sh->head.front), dead = load_relaxed(&sh->head.dead), letters = 0;
    struct lease *leases;
    int rc = collect(q, owner, &leases, &n);
    if (rc)
        return rc;
    *moved = n > 0;
    if (load_relaxed(&sh->cut)) {
        for (uint64_t i = 0; i < n; i++)
            cells_finish(q, leases[i].unit, owner);
        free(leases);
        return JNQ_OK;
    }
    uint64_t first = n; /* the older ones, if not all fit, come before the younger ones the next time */
    while (first && rc == JNQ_OK) {
        struct lease *lease = &leases[first - 1];
        struct jnq_cell *cell = unit_at(q, lease->unit);
        if (killed)
            count_death(cell, pid);
        lease->letter = killed && cell->deaths >= sh->max_deliveries && list_length(dead) + letters < LIST_MAX;
        if (!lease->letter && list_length(front) == LIST_MAX) {
            rc = JNQ_INTERRUPTED;
            break;
        }
        if (!lease->letter)
            front = prepend(q, front, lease->unit);
        letters += lease->letter;
        first--;
    }
    for (uint64_t i = first; i < n; i++) /* the letters' list is read from its end */
        if (leases[i].letter)
            dead = prepend(q, dead, leases[i].unit);
    store_sc(&sh->head.front, front);
    store_sc(&sh->head.dead, dead);
    store_sc(&sh->head.redeliveries, sh->head.redeliveries + (n - first) - letters);
    if (letters)
        store_relaxed(&q->news, 1);
    if (n > first || letters)
        store_relaxed(&q->noticed, 1);
    for (uint64_t i = first; i < n; i++)
        if (!mark_moved(q, leases[i].unit))
            rc = JNQ_CORRUPT;
    free(leases);
    return rc;
}

bool cells_each(struct jnq_queue *q, uint64_t word, bool (*visit)(struct jnq_queue *, uint64_t unit))
{
    while (list_length(word)) {
        struct jnq_cell *first = first_cell(q, word);
        if (!first)
            return false;
        struct jnq_cell cell = *first;
        if (!visit(q, list_unit(word)) || (cell.record.kind == JNQ_EXTENT && !visit(q, cell.record.extent.unit)))
            return false;
        word = cell.next;
    }
    return true;
}

int cells_letter(struct jnq_queue *q, uint64_t *cursor, jnq_letter *out)
{
    jnq_box box;
    uint64_t word = *cursor ? *cursor : load_sc(&q->sh->head.dead);
    if (!list_length(word))
        return JNQ_EMPTY;
    struct jnq_cell *cell = first_cell(q, word);
    if (!cell || record_lend(q, &cell->record, 0, &box) == JNQ_CORRUPT)
        return JNQ_CORRUPT;
    *cursor = list_length(cell->next) ? cell->next : list_unit(-(uint64_t)1);
    memset(out, 0, sizeof *out);
    out->payload = box.payload;
    out->bytes = box.bytes;
    out->number = cell->record.number;
    out->form = (uint32_t)box.form;
    out->deaths = cell->deaths;
    uint32_t known = cell->deaths < JNQ_LETTER_DEATHS ? cell->deaths : JNQ_LETTER_DEATHS;
    for (uint32_t i = 0; i < known; i++) {
        uint64_t death = cell->death[(cell->deaths - known + i) % JNQ_LETTER_DEATHS];
        out->pid[i] = (uint32_t)(death >> TIME_BITS);
        out->time_ms[i] = death & (((uint64_t)1 << TIME_BITS) - 1);
    }
    return JNQ_OK;
}

static bool nothing(struct jnq_queue *q, uint64_t unit)
{
    (void)q, (void)unit;
    return true;
}

int cells_check(struct jnq_queue *q)
{
    struct jnq_head *head = &q->sh->head;
    return cells_each(q, load_relaxed(&head->front), nothing) && cells_each(q, load_relaxed(&head->dead), nothing) ? 0
                                                                                                                   : 6;
}
