#include "heap.h"

#include <errno.h>
#include <sched.h>

#include "atomics.h"
#include "lock.h"
#include "segment.h"

#define LENGTH_BITS 39
#define OWNER_BITS 19
#define LENGTH (((uint64_t)1 << LENGTH_BITS) - 1)
#define OWNER ((((uint64_t)1 << OWNER_BITS) - 1) << LENGTH_BITS)
#define GIVEN ((uint64_t)1 << 58)
#define LEASE ((uint64_t)1 << 59)
#define WARM ((uint64_t)1 << 60)
#define MARK ((uint64_t)1 << 61)
#define USED ((uint64_t)1 << 62)
#define FREE ((uint64_t)1 << 63)

#define WALK_STEPS 64 /* how far alloc looks before it takes fresh memory */
#define MAP_STEP_BYTES 65536
#define SHRINK_UNITS 64
#define LARGE_BYTES (1u << 20)
#define TURNS_BYTES (2u << 20) /* of which a cache holds some */
#define KEEP_RUNS 8            /* four that wait, and two at each end, where the last may still be in use */
#define AHEAD_BYTES (1u << 20) /* in use: from there on, and from so many runs like the one that is to come, ... */
#define AHEAD_RUNS 8           /* ... a put waits for readers, */
#define BACKLOG 4              /* but not from so many times that on: no cache holds it anyway */
#define AHEAD_LOOKS 16
#define PATIENCE_NS 100000 /* most that it waits for */
#define BACK_MAX_NS 5000
#define IN_VAIN 1      /* so often it does not, after it was in vain, */
#define LATE_NS 100000 /* or after the CPU came back so late that others need it */
#define IN_VAIN_LATE 1000

#define DONE ((uint64_t)1 << 63) /* in jnq_given.giver */

enum walker { ALLOCATE, SHRINK }; /* index of jnq_heap.rover */

static uint64_t *entry(struct jnq_queue *q, uint64_t unit) { return (uint64_t *)at(q, q->map_off) + unit; }

static uint64_t length(uint64_t word) { return word & LENGTH; }

static uint32_t owner_of(uint64_t word) { return (uint32_t)((word & OWNER) >> LENGTH_BITS); }

/* Of n units, with us as the owner. */
static uint64_t our_word(struct jnq_queue *q, uint64_t n) { return n | (uint64_t)q->owner << LENGTH_BITS; }

static uint64_t used_word(struct jnq_queue *q, uint64_t n) { return USED | our_word(q, n); }

static uint64_t unit_off(struct jnq_queue *q, uint64_t unit) { return q->heap_off + unit * q->unit_bytes; }

/* The word of the run that begins at `unit`. 0 if no such run fits the heap, which only foreign writes can cause: then
 * no length can be believed, and walks end. */
static uint64_t run_at(struct jnq_queue *q, uint64_t unit)
{
    uint64_t word = unit < q->units ? load_acq(entry(q, unit)) : 0;
    return length(word) - 1 < q->units - unit ? word : 0;
}

static uint64_t keep_most(struct jnq_queue *q) { return KEEP_BYTES / q->unit_bytes; }

/* --- hints: all under the heap lock --------------------------------------------------------------- */

static void forget_hint(struct jnq_heap *heap, uint64_t unit)
{
    for (int i = 0; i < RECENT; i++)
        if (heap->recent[i] == unit)
            heap->recent[i] = 0;
}

static void remember_hint(struct jnq_heap *heap, uint64_t unit)
{
    uint64_t moved = unit;
    for (int i = 0; i < RECENT && moved; i++) {
        uint64_t next = heap->recent[i];
        heap->recent[i] = moved;
        moved = next;
    }
    if (moved)
        heap->rover[ALLOCATE] = moved; /* the walk will find it */
}

/* A run begins elsewhere now. */
static void move_hints(struct jnq_heap *heap, uint64_t from, uint64_t to)
{
    if (heap->top == from)
        heap->top = to;
    for (int i = ALLOCATE; i <= SHRINK; i++)
        if (heap->rover[i] == from)
            heap->rover[i] = to;
}

static void repair(struct jnq_queue *q)
{
    struct jnq_heap *heap = &q->sh->heap;
    for (int i = 0; i < RECENT; i++)
        heap->recent[i] = 0;
    heap->rover[ALLOCATE] = heap->rover[SHRINK] = 1;
    heap->top = 1;
}

int heap_lock(struct jnq_queue *q, int64_t until)
{
    pthread_mutex_t *lock = &q->sh->heap.lock;
    enum lock_result held = lock_until(lock, until);
    if (held == LOCK_BUSY && until && lock_is_forged(lock, q->bytes))
        held = LOCK_BROKEN;
    switch (held) {
    case LOCK_BUSY:
        return JNQ_INTERRUPTED;
    case LOCK_ORPHANED:
        repair(q);
        add_sc(&q->sh->recoveries, 1);
        lock_repaired(lock);
        break;
    case LOCK_BROKEN:
        store_sc(&q->sh->broken, 1);
        return JNQ_CORRUPT;
    case LOCK_HELD:
        break;
    }
    return JNQ_OK;
}

void heap_unlock(struct jnq_queue *q) { lock_release(&q->sh->heap.lock); }

/* --- the map: under the heap lock ------------------------------------------------------------------- */

int heap_init(struct jnq_queue *q)
{
    struct jnq_shared *sh = q->sh;
    if (segment_ready(q, q->map_off, q->unit_bytes))
        return JNQ_NO_MEMORY;
    sh->heap.map_ready = q->unit_bytes;
    /* Unit 0 is never given out, so that 0 can mean none. */
    store_rel(entry(q, 1), FREE | (q->units - 1));
    store_rel(entry(q, 0), USED | 1);
    repair(q);
    return lock_init(&sh->heap.lock);
}

static bool joinable(uint64_t a, uint64_t b) { return (a & FREE) && (b & FREE) && (a & WARM) == (b & WARM); }

/* Joins the free run at `unit` with those behind it. Returns its word. */
static uint64_t join_behind(struct jnq_queue *q, uint64_t unit)
{
    struct jnq_heap *heap = &q->sh->heap;
    uint64_t word = run_at(q, unit);
    for (uint64_t next; (next = unit + length(word)) < q->units;) {
        uint64_t behind = run_at(q, next);
        if (!joinable(word, behind))
            break;
        forget_hint(heap, next);
        move_hints(heap, next, unit);
        word += length(behind);
        store_rel(entry(q, unit), word);
        store_rel(entry(q, next), 0);
    }
    return word;
}

/* Makes the first n units of the free run at `unit` used and ours; JNQ_NO_MEMORY if the map could not grow. */
static int take(struct jnq_queue *q, uint64_t unit, uint64_t n)
{
    struct jnq_heap *heap = &q->sh->heap;
    uint64_t word = run_at(q, unit);
    if (!(word & FREE) || length(word) < n)
        return JNQ_CORRUPT; /* not a map any more */
    uint64_t rest = length(word) - n;
    forget_hint(heap, unit);
    if (rest) {
        uint64_t second = unit + n;
        if (heap->map_ready % q->unit_bytes)
            return JNQ_CORRUPT; /* nothing could be readied from there */
        while ((second + 1) * sizeof(uint64_t) > heap->map_ready) {
            if (segment_ready(q, q->map_off + heap->map_ready, MAP_STEP_BYTES))
                return JNQ_NO_MEMORY;
            store_relaxed(&heap->map_ready, heap->map_ready + MAP_STEP_BYTES);
        }
        store_rel(entry(q, second), FREE | (word & WARM) | rest);
        if (word & WARM)
            remember_hint(heap, second);
        move_hints(heap, unit, second);
    }
    store_rel(entry(q, unit), used_word(q, n));
    return JNQ_OK;
}

/* The shortest sufficient run among the hints, warm if possible, or 0. Of several, the newest; but of those of just the
 * right length that another process has freed the oldest: the newest still lies in the cache of the CPU that has read
 * it, from where it takes longer to fetch. Not so very large ones, which no cache holds. */
static uint64_t find_recent(struct jnq_queue *q, uint64_t n)
{
    uint64_t best = 0, best_word = 0;
    for (int i = 0; i < RECENT; i++) {
        uint64_t unit = q->sh->heap.recent[i];
        uint64_t word = unit ? run_at(q, unit) : 0;
        if (!(word & FREE) || length(word) < n)
            continue;
        bool warmer = (word & WARM) > (best_word & WARM), colder = (word & WARM) < (best_word & WARM);
        bool was_read = owner_of(best_word) && owner_of(best_word) != q->owner;
        bool in_turn = was_read && length(word) == n && n <= TURNS_BYTES / q->unit_bytes;
        if (!best || warmer || (!colder && (in_turn || length(word) < length(best_word)))) {
            best = unit;
            best_word = word;
        }
    }
    return best;
}

/* A warm free run of at least n units found in WALK_STEPS steps from the rover on, else a cold one, else 0; joins what
 * it passes. */
static uint64_t find_walking(struct jnq_queue *q, uint64_t n, enum walker walker)
{
    struct jnq_heap *heap = &q->sh->heap;
    uint64_t *rover = &heap->rover[walker], cold = 0;
    for (int steps = WALK_STEPS; steps; steps--) {
        uint64_t unit = *rover, word = run_at(q, unit);
        if (word & FREE) {
            word = join_behind(q, unit);
            if (unit < cold && cold < unit + length(word))
                cold = unit; /* what was found before now begins here */
            if (length(word) >= n) {
                if (word & WARM)
                    return unit;
                if (!cold && unit + length(word) < q->units)
                    cold = unit;
            }
        }
        *rover = unit + length(word);
        if (!word || *rover >= q->units) {
            if (word & FREE)
                heap->top = unit;
            *rover = 1;
        }
    }
    return cold;
}

static uint64_t find(struct jnq_queue *q, uint64_t n)
{
    struct jnq_heap *heap = &q->sh->heap;
    uint64_t unit = find_recent(q, n);
    if (!unit && (int64_t)load_sc(&heap->free_warm) >= (int64_t)n)
        unit = find_walking(q, n, ALLOCATE);
    if (unit)
        return unit;
    uint64_t word = run_at(q, heap->top);
    if ((word & FREE) && length(word) >= n)
        return heap->top;
    /* From the start, all of it: also finds what was given back in the middle. */
    for (unit = 1; unit < q->units; unit += length(word)) {
        word = run_at(q, unit);
        if (!word)
            return unit; /* not a map any more: take() will say so */
        if (word & FREE)
            word = join_behind(q, unit);
        if ((word & FREE) && unit + length(word) == q->units)
            heap->top = unit;
        if ((word & FREE) && length(word) >= n)
            return unit;
    }
    return 0;
}

/* Gives back the memory of all free runs, which lets neighbours of both kinds join; but for so many units of one. */
static void trim(struct jnq_queue *q, uint64_t spared)
{
    struct jnq_heap *heap = &q->sh->heap;
    for (uint64_t unit = 1; unit < q->units;) {
        uint64_t word = run_at(q, unit);
        if (word & FREE)
            word = join_behind(q, unit);
        uint64_t n = length(word), kept = n < spared ? n : spared, second = unit + kept;
        bool warm = (word & FREE) && (word & WARM);
        if (warm && kept && (n == kept || (second + 1) * sizeof(uint64_t) <= heap->map_ready)) {
            if (n > kept) {
                store_rel(entry(q, second), FREE | WARM | (n - kept));
                store_rel(entry(q, unit), FREE | WARM | kept);
                n = kept;
            }
            forget_hint(heap, unit);
            remember_hint(heap, unit);
            spared -= kept;
        } else if (warm && segment_return(q, unit_off(q, unit), n * q->unit_bytes)) {
            store_rel(entry(q, unit), FREE | n);
            sub_sc(&heap->free_warm, n);
        }
        if (!n)
            return;
        unit += n;
    }
}

/* A large run was taken, and so many units are in use now. Where half as much again passes as ever is there, it is a
 * stream and no backlog. */
static void learn(struct jnq_queue *q, uint64_t n, uint64_t used)
{
    struct jnq_heap *heap = &q->sh->heap;
    uint64_t passed = load_relaxed(&heap->passed) + n, there = load_relaxed(&heap->there), most = keep_most(q);
    there = used > there ? used : there;
    store_relaxed(&heap->passed, passed);
    store_relaxed(&heap->there, there);
    most = n < most / KEEP_RUNS ? n * KEEP_RUNS : most;
    if (passed / 3 * 2 >= there && load_relaxed(&heap->keep) < most)
        store_relaxed(&heap->keep, most);
}

/* Backs a run that is ours. */
static int back(struct jnq_queue *q, uint64_t unit, uint64_t n)
{
    int64_t began = event_now();
    if (segment_ready(q, unit_off(q, unit), n * q->unit_bytes)) {
        segment_return(q, unit_off(q, unit), n * q->unit_bytes);
        store_rel(entry(q, unit), FREE | n);
        return JNQ_NO_MEMORY;
    }
    int64_t each = (event_now() - began) / (int64_t)n, before = load_relaxed(&q->back_ns);
    each = before ? before + (each - before) / 8 : each;
    store_relaxed(&q->back_ns, (uint32_t)(each < BACK_MAX_NS ? each : BACK_MAX_NS));
    return JNQ_OK;
}

static void note_peak(struct jnq_heap *heap, uint64_t used)
{
    uint64_t peak = load_relaxed(&heap->peak);
    while (used > peak && (int64_t)used > 0) /* below 0: a process died between two words, see heap_sweep() */
        if (cas_sc(&heap->peak, &peak, used))
            break;
}

void heap_glance(struct jnq_queue *q, uint64_t *used_bytes, uint64_t *peak_bytes)
{
    int64_t used = (int64_t)load_sc(&q->sh->heap.used);
    *used_bytes = used > 0 ? (uint64_t)used * q->unit_bytes : 0;
    *peak_bytes = load_relaxed(&q->sh->heap.peak) * q->unit_bytes;
}

static int try_alloc(struct jnq_queue *q, uint64_t n, int64_t until, uint64_t *unit)
{
    struct jnq_heap *heap = &q->sh->heap;
    int rc = heap_lock(q, until);
    if (rc)
        return rc;
    uint64_t found = find(q, n);
    bool warm = found && (run_at(q, found) & WARM);
    rc = found ? take(q, found, n) : JNQ_NO_MEMORY;
    heap_unlock(q);
    if (rc)
        return rc;
    if (warm)
        sub_sc(&heap->free_warm, n);
    else if ((rc = back(q, found, n)))
        return rc;
    uint64_t used = add_sc(&heap->used, n);
    note_peak(heap, used);
    if (n >= LARGE_BYTES / q->unit_bytes)
        learn(q, n, used);
    *unit = found;
    return JNQ_OK;
}

int heap_alloc(struct jnq_queue *q, uint64_t bytes, int64_t until, uint64_t *unit)
{
    uint64_t n = bytes / q->unit_bytes + (bytes % q->unit_bytes != 0);
    int rc = try_alloc(q, n, until, unit);
    if (rc != JNQ_NO_MEMORY || n >= q->units)
        return rc;
    /* What the free runs hold may be what is missing. If it is memory, what a cell takes is left: without a lease
     * nothing could be taken any more. */
    rc = heap_lock(q, until);
    if (rc)
        return rc;
    trim(q, find(q, n) ? CELL_BYTES_MAX / q->unit_bytes + 1 : 0);
    heap_unlock(q);
    return try_alloc(q, n, until, unit);
}

int heap_alloc_to_put(struct jnq_queue *q, uint64_t bytes, int64_t until, uint64_t *unit)
{
    uint64_t lease;
    int rc = heap_alloc(q, bytes, until, unit);
    if (rc || q->on_death != JNQ_REDELIVER)
        return rc;
    rc = heap_alloc(q, CELL_BYTES_MAX, until, &lease);
    heap_free(q, rc ? *unit : lease);
    return rc;
}

void heap_await(struct jnq_queue *q, uint64_t bytes)
{
    struct jnq_heap *heap = &q->sh->heap;
    int64_t n = (int64_t)(bytes / q->unit_bytes) + 1;
    int64_t most = (int64_t)(AHEAD_BYTES / q->unit_bytes), used = (int64_t)load_sc(&heap->used);
    bool grows = (int64_t)load_sc(&heap->free_warm) < n;
    if (!grows && most < AHEAD_RUNS * n)
        most = AHEAD_RUNS * n;
    if (used < most || (!grows && used >= BACKLOG * most))
        return;
    uint64_t takes = load_relaxed(&q->sh->takes), before = load_relaxed(&q->takes_seen);
    store_relaxed(&q->takes_seen, takes);
    if (takes == before)
        return; /* nobody reads */
    uint32_t in_vain = load_relaxed(&q->in_vain);
    if (in_vain) {
        store_relaxed(&q->in_vain, in_vain - 1);
        return;
    }
    int64_t patience = n * load_relaxed(&q->back_ns), now = event_now(), looked;
    int64_t until = now + (patience < PATIENCE_NS ? patience : PATIENCE_NS);
    do {
        for (int i = 0; i < AHEAD_LOOKS; i++) {
            if (grows ? (int64_t)load_sc(&heap->free_warm) >= n : (int64_t)load_sc(&heap->used) < most)
                return;
            cpu_relax();
        }
        looked = now;
        sched_yield(); /* a reader may want this CPU */
        now = event_now();
    } while (now < until && now - looked < LATE_NS);
    store_relaxed(&q->in_vain, now - looked < LATE_NS ? IN_VAIN : IN_VAIN_LATE);
}

/* How many units may be free and warm: what is in use now may be needed again soon; and what is missing from the
 * memory that large items need as they pass. */
static uint64_t warm_limit(struct jnq_queue *q)
{
    uint64_t used = load_sc(&q->sh->heap.used), limit = RESERVE_BYTES / q->unit_bytes;
    uint64_t keep = load_relaxed(&q->sh->heap.keep), most = keep_most(q);
    keep = keep < most ? keep : most;
    if (keep > used && keep - used > limit)
        limit = keep - used;
    return used > limit ? used : limit;
}

static uint64_t warm_excess(struct jnq_queue *q)
{
    int64_t excess = (int64_t)(load_sc(&q->sh->heap.free_warm) - warm_limit(q));
    return excess > 0 ? (uint64_t)excess : 0;
}

/* Gives the memory of up to n warm free units back: a part of one run that is quickly found. */
static void shrink(struct jnq_queue *q, uint64_t n)
{
    if (heap_lock(q, 0))
        return; /* the next one to free will */
    uint64_t unit = find_walking(q, 1, SHRINK);
    uint64_t word = unit ? run_at(q, unit) : 0;
    n = n < length(word) ? n : length(word);
    bool taken = (word & WARM) && !take(q, unit, n);
    heap_unlock(q);
    if (!taken)
        return;
    bool cold = segment_return(q, unit_off(q, unit), n * q->unit_bytes);
    if (cold)
        sub_sc(&q->sh->heap.free_warm, n);
    store_rel(entry(q, unit), FREE | (cold ? 0 : WARM) | n);
}

bool heap_is_kept(struct jnq_queue *q) { return load_relaxed(&q->sh->heap.keep) != 0; }

void heap_cool(struct jnq_queue *q)
{
    if (!heap_is_kept(q))
        return;
    store_relaxed(&q->sh->heap.keep, 1); /* no more, but not yet done */
    store_relaxed(&q->sh->heap.passed, 0);
    store_relaxed(&q->sh->heap.there, 0);
    for (uint64_t before = UINT64_MAX, excess; (excess = warm_excess(q)) && excess < before; before = excess)
        shrink(q, excess);
    if (!warm_excess(q))
        store_relaxed(&q->sh->heap.keep, 0);
}

/* The units of the used run that begins at `unit`, or 0. */
static uint64_t used_length(struct jnq_queue *q, uint64_t unit)
{
    uint64_t word = run_at(q, unit);
    return unit && (word & USED) && !(word & FREE) ? length(word) : 0;
}

/* --- given runs ----------------------------------------------------------------------------------------- */

static bool is_given(struct jnq_queue *q, uint64_t unit) { return used_length(q, unit) && (run_at(q, unit) & GIVEN); }

static uint64_t *giver_of(struct jnq_queue *q, uint64_t unit) { return &((struct jnq_given *)unit_at(q, unit))->giver; }

void heap_give(struct jnq_queue *q, uint64_t unit)
{
    if (!used_length(q, unit))
        return; /* only after foreign writes */
    store_sc(giver_of(q, unit), q->owner);
    set_bits_sc(entry(q, unit), GIVEN);
}

void heap_take_back(struct jnq_queue *q, uint64_t unit)
{
    if (is_given(q, unit))
        clear_bits_sc(entry(q, unit), GIVEN);
}

uint64_t heap_preface(struct jnq_queue *q, uint64_t unit)
{
    return is_given(q, unit) ? offsetof(struct jnq_given, preface) : 0;
}

/* True if the taker may free the run now; else the giver will. */
static bool taker_is_done(struct jnq_queue *q, uint64_t unit)
{
    uint64_t giver = load_sc(giver_of(q, unit));
    while (giver && !(giver & DONE))
        if (cas_sc(giver_of(q, unit), &giver, giver | DONE))
            return false;
    return !giver;
}

static void free_run(struct jnq_queue *q, uint64_t unit);

void heap_ungive(struct jnq_queue *q, uint64_t unit)
{
    uint64_t giver = q->owner;
    if (is_given(q, unit) && !cas_sc(giver_of(q, unit), &giver, 0) && giver == (q->owner | DONE))
        free_run(q, unit);
}

/* Of a dead owner, under all locks: it looks at no run that it has given, and the run that it has taken is the giver's.
 * True if nobody has the run any more. */
static bool bereave(struct jnq_queue *q, uint64_t unit, uint64_t word, uint32_t dead)
{
    uint64_t giver = load_sc(giver_of(q, unit));
    bool unreached = !(word & MARK) && owner_of(word) == dead;
    while ((giver & ~DONE) == dead)
        if (giver & DONE || cas_sc(giver_of(q, unit), &giver, 0))
            return giver & DONE || unreached;
    if (!unreached || taker_is_done(q, unit))
        return unreached;
    /* From here on its giver may free it at any moment: then this step does not succeed. */
    uint64_t number = load_sc(giver_of(q, unit)) & (OWNER >> LENGTH_BITS);
    cas_sc(entry(q, unit), &word, (word & ~OWNER) | number << LENGTH_BITS);
    return false;
}

void heap_free(struct jnq_queue *q, uint64_t unit)
{
    if (!is_given(q, unit) || taker_is_done(q, unit))
        free_run(q, unit);
}

static void free_run(struct jnq_queue *q, uint64_t unit)
{
    struct jnq_heap *heap = &q->sh->heap;
    uint64_t n = used_length(q, unit);
    if (!n)
        return;
    sub_sc(&heap->used, n);
    bool cold = n > warm_limit(q) && segment_return(q, unit_off(q, unit), n * q->unit_bytes);
    uint64_t word = FREE | (cold ? 0 : WARM) | our_word(q, n);
    if (!cold)
        add_sc(&heap->free_warm, n);
    bool locked = !heap_lock(q, 0);
    store_rel(entry(q, unit), word);
    if (locked) {
        if (cold)
            join_behind(q, unit); /* with the rest of the heap, if it was the last run */
        if (heap->top != unit)
            remember_hint(heap, unit);
        heap_unlock(q);
    }
    /* This made the excess 2n greater; SHRINK_UNITS more, and it will soon be gone. */
    uint64_t excess = warm_excess(q);
    if (excess)
        shrink(q, excess < 2 * n + SHRINK_UNITS ? excess : 2 * n + SHRINK_UNITS);
}

void heap_own(struct jnq_queue *q, uint64_t unit)
{
    uint64_t n = used_length(q, unit);
    if (n)
        store_relaxed(entry(q, unit), used_word(q, n) | (run_at(q, unit) & GIVEN));
}

void heap_lease(struct jnq_queue *q, uint64_t unit, uint32_t owner)
{
    if (!heap_bytes(q, unit))
        return; /* only after foreign writes */
    uint64_t *word = entry(q, unit);
    if (owner)
        store_rel(word, USED | LEASE | length(load_relaxed(word)) | (uint64_t)owner << LENGTH_BITS);
    else
        clear_bits_sc(word, LEASE);
}

uint32_t heap_leaser(struct jnq_queue *q, uint64_t unit)
{
    uint64_t word = heap_bytes(q, unit) ? load_acq(entry(q, unit)) : 0;
    return word & LEASE ? owner_of(word) : 0;
}

uint64_t heap_bytes(struct jnq_queue *q, uint64_t unit)
{
    if (unit < q->units && (unit + 1) * sizeof(uint64_t) > load_relaxed(&q->sh->heap.map_ready))
        return 0; /* not to touch memory for nothing */
    return used_length(q, unit) * q->unit_bytes;
}

/* --- after a death ------------------------------------------------------------------------------------ */

/* Walks the runs; gives 0 behind the last one, or where the map is broken. */
static uint64_t next_run(struct jnq_queue *q, uint64_t unit, uint64_t *word)
{
    unit = unit ? unit + length(*word) : 1;
    *word = run_at(q, unit);
    return *word ? unit : 0;
}

bool heap_owns_any(struct jnq_queue *q, uint32_t owner)
{
    uint64_t word;
    for (uint64_t unit = 0; (unit = next_run(q, unit, &word));)
        if ((word & USED) &&
            (owner_of(word) == owner || (word & GIVEN && (load_sc(giver_of(q, unit)) & ~DONE) == owner)))
            return true;
    return false;
}

uint64_t heap_leases(struct jnq_queue *q, uint32_t owner, uint64_t *units, uint64_t room)
{
    uint64_t word, n = 0;
    for (uint64_t unit = 0; (unit = next_run(q, unit, &word));) {
        if (!(word & USED) || !(word & LEASE) || (word & MARK) || owner_of(word) != owner)
            continue;
        if (n < room)
            units[n] = unit;
        n++;
    }
    return n;
}

void heap_unmark_all(struct jnq_queue *q)
{
    uint64_t word;
    for (uint64_t unit = 0; (unit = next_run(q, unit, &word));)
        clear_bits_sc(entry(q, unit), MARK);
}

bool heap_mark(struct jnq_queue *q, uint64_t unit)
{
    if (!heap_bytes(q, unit) || (set_bits_sc(entry(q, unit), MARK) & MARK))
        return false;
    clear_bits_sc(entry(q, unit), LEASE); /* what can be reached is none, whoever died before saying so */
    return true;
}

/* What is in use and in reserve: exact while nobody else allocates or frees. */
static void count(struct jnq_queue *q, uint64_t *used, uint64_t *warm)
{
    uint64_t word;
    *used = *warm = 0;
    for (uint64_t unit = 0; (unit = next_run(q, unit, &word));) {
        if (word & USED)
            *used += length(word);
        else if (word & WARM)
            *warm += length(word);
    }
}

void heap_sweep(struct jnq_queue *q, uint32_t owner)
{
    uint64_t word, used, warm;
    for (uint64_t unit = 0; (unit = next_run(q, unit, &word));) {
        bool left = !(word & MARK) && owner_of(word) == owner;
        if ((word & USED) && (word & GIVEN ? bereave(q, unit, word, owner) : left)) {
            uint64_t n = length(word);
            bool kept = !segment_return(q, unit_off(q, unit), n * q->unit_bytes);
            store_rel(entry(q, unit), FREE | (kept ? WARM : 0) | n);
        }
    }
    count(q, &used, &warm);
    store_sc(&q->sh->heap.used, used);
    store_sc(&q->sh->heap.free_warm, warm);
}

void heap_count(struct jnq_queue *q, uint64_t *used_bytes, uint64_t *reserve_bytes)
{
    count(q, used_bytes, reserve_bytes);
    *used_bytes *= q->unit_bytes;
    *reserve_bytes *= q->unit_bytes;
}

int heap_check(struct jnq_queue *q, bool (*known)(struct jnq_queue *, uint32_t), uint64_t *leases)
{
    uint64_t unit = 0, end = 1, word;
    *leases = 0;
    while ((unit = next_run(q, unit, &word))) {
        if (!(word & USED) == !(word & FREE))
            return 3;
        if ((word & USED) && !(word & MARK) && !known(q, owner_of(word)))
            return 5;
        *leases += (word & USED) && (word & LEASE) && !(word & MARK);
        end = unit + length(word);
    }
    return end == q->units ? 0 : 3;
}
