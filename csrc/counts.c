#include "counts.h"

#include <string.h>

#include "atomics.h"
#include "procs.h"

#define ONE_REPORT (DONES + 1)
#define LOOKS 1000

uint64_t counts_tasks(struct jnq_queue *q)
{
    uint64_t cut = load_sc(&q->sh->cut);
    return cut ? cut - 1 : load_sc(&q->sh->puts);
}

uint64_t counts_queued(struct jnq_queue *q)
{
    struct jnq_shared *sh = q->sh;
    for (;;) {
        uint64_t front = load_sc(&sh->head.front), takes = load_sc(&sh->takes);
        uint64_t queued = load_sc(&sh->puts) - takes + list_length(front);
        if (load_sc(&sh->cut))
            return 0;
        /* Neither get nor unget stepped in between: so it was true when puts was loaded. */
        if (load_sc(&sh->takes) == takes && load_sc(&sh->head.front) == front)
            return queued;
    }
}

uint64_t counts_unfinished(struct jnq_queue *q)
{
    for (;;) {
        uint64_t finished = counts_finished(q), tasks = counts_tasks(q);
        if (counts_finished(q) == finished)
            return finished < tasks ? tasks - finished : 0; /* fewer only after a cut */
    }
}

/* A sum of two that only grow: equal before and after means unchanged in between. */
uint64_t counts_finished(struct jnq_queue *q)
{
    struct jnq_shared *sh = q->sh;
    return load_sc(&sh->dones) + list_length(load_sc(&sh->head.dead));
}

struct words {
    uint64_t dones, dead, takes, front, puts, cut;
};

static struct words look(const struct jnq_shared *sh)
{
    return (struct words){.dones = load_sc(&sh->dones),
                          .dead = load_sc(&sh->head.dead),
                          .takes = load_sc(&sh->takes),
                          .front = load_sc(&sh->head.front),
                          .puts = load_sc(&sh->puts),
                          .cut = load_sc(&sh->cut)};
}

static bool same(const struct words *a, const struct words *b) { return !memcmp(a, b, sizeof *a); }

bool counts_same(const struct jnq_shared *a, const struct jnq_shared *b)
{
    struct words of_a = look(a), of_b = look(b);
    return same(&of_a, &of_b);
}

/* Their difference, or 0: words of different moments may be out of order. */
static uint64_t less(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

void counts_read(struct jnq_queue *q, jnq_counters *out)
{
    struct words words = look(q->sh), again;
    for (int looks = LOOKS; looks && (again = look(q->sh), !same(&words, &again)); looks--)
        words = again;
    uint64_t tasks = words.cut ? less(words.cut, 1) : words.puts;
    out->puts = words.puts;
    out->takes = words.takes;
    out->dones = words.dones;
    out->dead_letters = list_length(words.dead);
    out->queued = words.cut ? 0 : less(words.puts + list_length(words.front), words.takes);
    out->unfinished = less(tasks, words.dones + out->dead_letters);
    out->gets = less(tasks, out->queued);
    out->discarded = less(words.puts, tasks);
}

bool counts_plausible(struct jnq_queue *q)
{
    struct jnq_shared *sh = q->sh;
    /* In the order in which none can be overtaken: puts grows, and a cut comes after the end. */
    uint64_t takes = load_sc(&sh->takes), finished = counts_finished(q), cut = load_sc(&sh->cut);
    uint64_t puts = load_sc(&sh->puts);
    return takes <= puts && finished <= puts && (!cut || (cut - 1 <= puts && load_sc(&sh->ended)));
}

static void record_zero(struct jnq_queue *q, uint64_t at_puts)
{
    uint64_t *zero_at = &q->sh->zero_at;
    for (uint64_t known = load_sc(zero_at); known < at_puts;)
        if (cas_sc(zero_at, &known, at_puts))
            break;
}

void counts_announce(struct jnq_queue *q, uint64_t finished)
{
    if (counts_tasks(q) <= finished) /* less only if a cut came in between */
        record_zero(q, load_sc(&q->sh->cut) ? UINT64_MAX : finished);
    else if (load_sc(&q->sh->zero_at) < finished)
        return; /* a put was faster, and did not see the zero */
    event_notify_all(&q->sh->zero);
}

/* How many tasks this process has in hand. */
static uint64_t held(struct jnq_queue *q)
{
    if (!procs_entered(q))
        return 0;
    uint64_t takes = load_relaxed(&q->me->takes), dones = load_sc(&q->me->dones) & DONES;
    return dones < takes ? takes - dones : 0;
}

/* Notes in our entry that we report n tasks done, before R3 and after it. */
static void report(struct jnq_queue *q, uint64_t n)
{
    bool own = procs_entered(q);
    if (own) {
        uint64_t dones = add_sc(&q->me->dones, n + ONE_REPORT);
        own = load_relaxed(&q->me->takes) >= (dones & DONES);
    }
    if (!own && n <= counts_unfinished(q))
        store_sc(&q->sh->foreign, 1);
}

static void reported(struct jnq_queue *q, uint64_t revoked)
{
    if (procs_entered(q))
        sub_sc(&q->me->dones, revoked + ONE_REPORT);
}

static int add_dones(struct jnq_queue *q, uint64_t n)
{
    struct jnq_shared *sh = q->sh;
    uint64_t dones = load_sc(&sh->dones), tasks;
    do {
        /* What gets have seen of puts is often enough, and spares the line that the putters write. */
        tasks = load_relaxed(&sh->head.puts_seen);
        if (load_sc(&sh->cut) || tasks <= dones || tasks - dones <= n)
            tasks = counts_tasks(q);
        if (dones > tasks || n > tasks - dones)
            return JNQ_TOO_MANY_DONE;
        if (n == tasks - dones)
            event_alert(&sh->zero);
    } while (!cas_sc(&sh->dones, &dones, dones + n)); /* R3 */
    if (tasks == dones + n || load_sc(&sh->cut))
        counts_announce(q, dones + n);
    return JNQ_OK;
}

int counts_done(struct jnq_queue *q, uint64_t n)
{
    if (q->on_death != JNQ_RAISE)
        return add_dones(q, n);
    if (n > held(q) && n > counts_unfinished(q))
        return JNQ_TOO_MANY_DONE; /* before anybody sees it in our entry */
    report(q, n);
    int rc = add_dones(q, n);
    reported(q, rc ? n : 0);
    return rc;
}

void counts_before_put(struct jnq_queue *q)
{
    struct jnq_shared *sh = q->sh;
    if (!load_sc(&sh->joining))
        return;
    uint64_t puts = load_relaxed(&sh->puts);
    if (counts_finished(q) == puts) {
        record_zero(q, puts);
        store_sc(&sh->joining, 0); /* who waits now has its zero; who comes later raises it again */
    }
}

uint64_t counts_join(struct jnq_queue *q)
{
    uint64_t puts;
    do {
        store_sc(&q->sh->joining, 1);
        puts = load_sc(&q->sh->puts);
    } while (!load_sc(&q->sh->joining)); /* taken down by a put that we may have seen: then announce it to the next */
    return puts;
}

bool counts_zero(struct jnq_queue *q, uint64_t since)
{
    return !counts_unfinished(q) || load_sc(&q->sh->zero_at) >= since;
}
