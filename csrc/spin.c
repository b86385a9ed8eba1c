#define _GNU_SOURCE
#include "spin.h"

#include <sched.h>
#include <unistd.h>

#include "atomics.h"
#include "procs.h"

#define LOOK_NS 1000000000 /* between two looks at the CPUs */
#define SCORE_MAX 8
#define SCORE_FIRST 2
#define BUDGET_MIN_NS 2000
#define COMING_LATE_NS 30000 /* so much later than announced it may come */
#define COPY_MAX_NS 5000     /* for a unit */
#define VAIN 1       /* so many waits are not spun through although something is coming, after one that was in vain, */
#define VAIN_LATE 32 /* or for which others needed the CPU */
#define WAKE_MAX_NS 100000 /* who runs later than that had to wait for a CPU */
#define OFFER_NS 4000      /* between two offers of the CPU */
#define USED_NS 1500       /* after which the CPU comes back if somebody has used it; else in a third of that */
#define LATE_NS 100000     /* and if somebody needs it for himself */
#define ENTRIES 8          /* of the process table, looked at for another process */

static uint32_t cpus;  /* that this process may run on */
static int64_t looked; /* when they were counted */

static uint32_t count_cpus(void)
{
#ifdef __linux__
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set))
        return (uint32_t)CPU_COUNT(&set);
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (uint32_t)online : 1;
}

/* So many may spin at once. */
static uint32_t slots(int64_t now)
{
    if (!load_relaxed(&cpus) || now - load_relaxed(&looked) > LOOK_NS) {
        store_relaxed(&looked, now);
        store_relaxed(&cpus, count_cpus());
    }
    uint32_t others = load_relaxed(&cpus) - 1;
    return others < SPIN_SLOTS ? others : SPIN_SLOTS;
}

/* True if another process may be there. */
static bool in_company(struct jnq_queue *q)
{
    uint32_t count = procs_count(q);
    for (uint32_t owner = 1; owner <= count && owner <= ENTRIES; owner++)
        if (owner != q->owner && procs_known(q, owner))
            return true;
    return count > ENTRIES;
}

static uint64_t *claim(struct jnq_queue *q, int64_t now, int64_t until)
{
    for (uint32_t i = 0, n = slots(now); i < n; i++) {
        uint64_t *slot = &q->sh->spinning[i], taken = load_sc(slot);
        /* Or is no time at all. Its spinner may have begun a little later than `now`. */
        bool passed = taken - (uint64_t)now - 1 >= 2 * SPIN_MAX_NS;
        if (passed && cas_sc(slot, &taken, (uint64_t)until))
            return slot;
    }
    return NULL;
}

/* It may be another's, if our time has passed. */
static void give_back(uint64_t *slot, int64_t until)
{
    uint64_t ours = (uint64_t)until;
    cas_sc(slot, &ours, 0);
}

void spin_init(struct jnq_queue *q)
{
    q->wake_ns = SPIN_WAKE_NS;
    for (int in = 0; in < JNQ_WAITS; in++)
        q->spins[in] = (struct jnq_spins){.score = SCORE_FIRST, .budget_ns = SPIN_WAKE_NS};
}

/* Waits up to so long are better spun through. */
static int64_t worth(struct jnq_queue *q)
{
    int64_t most = (int64_t)load_relaxed(&q->wake_ns) * 3 / 2 + 2 * BUDGET_MIN_NS;
    return most < SPIN_MAX_NS ? most : SPIN_MAX_NS;
}

/* Longer waits make the budget follow at once, shorter ones slowly. */
static void learn(struct jnq_queue *q, enum jnq_wait in, int64_t waited)
{
    struct jnq_spins *spins = &q->spins[in];
    int32_t score = load_relaxed(&spins->score);
    int64_t most = worth(q), budget = load_relaxed(&spins->budget_ns);
    if (waited > most) {
        if (score > -SCORE_MAX)
            store_relaxed(&spins->score, score - 1);
        return;
    }
    if (score < SCORE_MAX)
        store_relaxed(&spins->score, score + 1);
    int64_t wanted = 2 * waited + BUDGET_MIN_NS;
    if (wanted > most)
        wanted = most;
    store_relaxed(&spins->budget_ns, (uint32_t)(wanted > budget ? wanted : budget - (budget - wanted) / 8));
}

void spin_slept(struct jnq_queue *q, enum jnq_wait in, bool held, int64_t began, int64_t woken, int64_t now)
{
    int64_t usual = load_relaxed(&q->wake_ns);
    bool known = woken >= began && woken <= now;
    if (held && known && now - woken <= WAKE_MAX_NS)
        store_relaxed(&q->wake_ns, (uint32_t)(usual + (now - woken - usual) / 4));
    if (held)
        now = known ? woken : now - usual;
    learn(q, in, now > began ? now - began : 0);
}

/* Lets others have this CPU; false if it came back late. */
static bool offer_cpu(struct jnq_spins *spins, int64_t *now)
{
    sched_yield();
    int64_t back = event_now(), away = back - *now;
    store_relaxed(&spins->offer_first, away > USED_NS);
    *now = back;
    return away <= LATE_NS;
}

static bool look(struct jnq_queue *q, condition *holds, uint64_t arg)
{
    for (int i = 0; i < SPIN_LOOKS; i++) {
        if (holds(q, arg))
            return true;
        cpu_relax();
    }
    return false;
}

int64_t spin_copying(struct jnq_queue *q, uint64_t units)
{
    int64_t now = event_now();
    store_relaxed(&q->sh->coming, (uint64_t)now + units * load_relaxed(&q->copy_ns));
    return now;
}

void spin_copied(struct jnq_queue *q, uint64_t units, int64_t began)
{
    int64_t now = event_now(), each = (now - began) / (int64_t)units, before = load_relaxed(&q->copy_ns);
    each = each < COPY_MAX_NS ? each : COPY_MAX_NS; /* who took longer was off its CPU */
    store_relaxed(&q->copy_ns, (uint32_t)(before ? before + (each - before) / 4 : each));
    if ((int64_t)load_relaxed(&q->sh->coming) > now)
        store_relaxed(&q->sh->coming, (uint64_t)now); /* or who waits for the next one would wait for this one */
}

/* Whether to spin for what is coming, and then until when. */
static bool is_coming(struct jnq_queue *q, enum jnq_wait in, int64_t now, int64_t *until)
{
    int64_t coming = (int64_t)load_relaxed(&q->sh->coming);
    if (in != JNQ_IN_GET || coming <= now || coming > now + SPIN_MAX_NS - COMING_LATE_NS)
        return false;
    uint32_t vain = load_relaxed(&q->spins[in].vain);
    if (vain)
        store_relaxed(&q->spins[in].vain, vain - 1);
    *until = coming + COMING_LATE_NS;
    return !vain;
}

bool spin_until(struct jnq_queue *q, enum jnq_wait in, condition *holds, uint64_t arg, int64_t deadline, int64_t *now)
{
    struct jnq_spins *spins = &q->spins[in];
    int64_t began = *now, until = began + load_relaxed(&spins->budget_ns);
    if (!in_company(q))
        return false;
    bool coming = is_coming(q, in, began, &until);
    if (!coming && load_relaxed(&spins->score) <= 0)
        return false;
    until = until < deadline ? until : deadline;
    uint64_t *slot = claim(q, began, until);
    if (!slot)
        return false;
    int64_t offer_at = load_relaxed(&spins->offer_first) ? began : began + OFFER_NS;
    bool held, wanted = false;
    do {
        if (*now >= offer_at) {
            wanted = !offer_cpu(spins, now);
            offer_at = *now + OFFER_NS;
        }
        held = look(q, holds, arg);
        *now = event_now();
    } while (!held && !wanted && *now < until);
    give_back(slot, until);
    if (wanted)
        store_relaxed(&spins->score, -SCORE_MAX);
    else if (held)
        learn(q, in, *now - began);
    if (wanted || (coming && !held))
        store_relaxed(&spins->vain, wanted ? VAIN_LATE : VAIN);
    return held;
}
