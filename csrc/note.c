#include "note.h"

#include "atomics.h"
#include "heap.h"
#include "procs.h"

static struct jnq_proc *proc_of(struct jnq_queue *q, uint32_t owner)
{
    return owner == q->owner ? q->me : procs_entry(q, owner);
}

/* What follows once the step was taken. */
static void follow(struct jnq_queue *q, const struct jnq_note *note)
{
    struct jnq_proc *proc = proc_of(q, note->owner);
    if (note->unit && note->kind != NOTE_TAKE)
        heap_lease(q, note->unit, 0);
    if (proc)
        store_relaxed(&proc->takes, note->takes);
}

static void step(struct jnq_queue *q, enum note_kind kind, uint32_t owner, uint64_t n, uint64_t *word, uint64_t value,
                 uint64_t unit)
{
    if (q->on_death == JNQ_IGNORE) {
        store_sc(word, value);
        procs_take(q, kind == NOTE_RETURN ? -(int64_t)n : (int64_t)n);
        return;
    }
    struct jnq_note *note = &q->sh->head.note;
    struct jnq_proc *proc = proc_of(q, owner);
    note->owner = owner;
    note->word = (uint64_t)((char *)word - q->base);
    note->value = value;
    note->unit = unit;
    note->takes = (proc ? proc->takes : 0) + (kind == NOTE_TAKE ? n : 0) - (kind == NOTE_RETURN ? n : 0);
    store_rel(&note->kind, kind);
    if (unit && kind == NOTE_TAKE)
        heap_lease(q, unit, owner); /* before the step, so that the task is always somewhere */
    store_sc(word, value);
    follow(q, note);
    store_rel(&note->kind, 0);
}

void note_step(struct jnq_queue *q, enum note_kind kind, uint64_t n, uint64_t *word, uint64_t value, uint64_t unit)
{
    step(q, kind, q->owner, n, word, value, unit);
}

void note_step_of(struct jnq_queue *q, enum note_kind kind, uint32_t owner, uint64_t *word, uint64_t value,
                  uint64_t unit)
{
    step(q, kind, owner, 1, word, value, unit);
}

void note_repair(struct jnq_queue *q)
{
    struct jnq_shared *sh = q->sh;
    struct jnq_note *note = &sh->head.note;
    uint64_t *words[] = {&sh->takes, &sh->head.front, &sh->dones};
    for (int i = 0; i < 3; i++) {
        if (!note->kind || note->word != (uint64_t)((char *)words[i] - q->base))
            continue;
        if (load_sc(words[i]) == note->value)
            follow(q, note);
        else if (note->unit && note->kind == NOTE_TAKE)
            heap_lease(q, note->unit, 0);
    }
    store_rel(&note->kind, 0);
}
