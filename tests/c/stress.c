/* stress: threads in processes put and get at once; every item arrives once, whole, and in the order of its
 * producer; with each of the modes. */
#include "harness.h"

#define PRODUCERS 4
#define CONSUMERS 4
#define PROCESSES (THREADS_WATCHED ? 1 : 2) /* the producers and consumers are spread over so many */

/* What a payload begins with; the rest follows from it. */
struct label {
    uint32_t producer, sequence;
    uint64_t bytes;
};

struct plan {
    uint64_t maxsize;
    uint64_t most;   /* bytes of a payload */
    unsigned items;  /* of each producer */
    bool given_back; /* some items are: then the order is not kept */
    bool batches;    /* small items are put, and taken, several at a time */
};

struct shared {
    struct plan plan;
    jnq_queue *q;
    uint64_t consumed;
    unsigned char seen[]; /* [producer][sequence] */
};

struct side {
    struct shared *shared;
    uint32_t number;
};

static uint64_t name_of(const struct label *label) { return (uint64_t)label->producer << 32 | label->sequence; }

static void put_label(struct shared *s, char *payload, uint32_t producer, uint32_t sequence, uint64_t *random)
{
    uint64_t most = below(random, 20) ? 300 : s->plan.most;
    struct label label = {producer, sequence, sizeof label + below(random, most)};
    memcpy(payload, &label, sizeof label);
    fill(payload + sizeof label, label.bytes - sizeof label, name_of(&label));
    int rc;
    while ((rc = jnq_put(s->q, payload, label.bytes, JNQ_FOREVER)) == JNQ_INTERRUPTED)
        ;
    CHECK_EQ(rc, JNQ_OK);
}

/* Some items from `sequence` on; gives how many. */
static uint32_t put_labels(struct shared *s, uint32_t producer, uint32_t sequence, uint64_t *random)
{
    struct packed batch = {0};
    uint32_t n = 1 + (uint32_t)below(random, below(random, 4) ? 5 : 60), left = s->plan.items - sequence;
    for (uint32_t i = 0; i < n && i < left; i++) {
        jnq_packed header = {(uint32_t)(sizeof(struct label) + below(random, 300)), JNQ_PICKLE};
        struct label label = {producer, sequence + i, header.bytes};
        char *to = batch.start + batch.bytes;
        memcpy(to, &header, sizeof header);
        memcpy(to + sizeof header, &label, sizeof label);
        fill(to + sizeof header + sizeof label, label.bytes - sizeof label, name_of(&label));
        batch.bytes += sizeof header + (label.bytes + 7) / 8 * 8;
        batch.items++;
    }
    const char *rest = batch.start;
    int rc;
    uint64_t done = 0;
    do {
        uint64_t put = 0;
        rc = jnq_put_batch(s->q, rest, batch.items - done, &put, JNQ_FOREVER);
        for (done += put; put; put--) {
            jnq_packed header;
            memcpy(&header, rest, sizeof header);
            rest += sizeof header + (header.bytes + 7) / 8 * 8;
        }
    } while (rc == JNQ_INTERRUPTED);
    CHECK_EQ(rc, JNQ_OK);
    CHECK_EQ(done, batch.items);
    return (uint32_t)batch.items;
}

static void *produce(void *arg)
{
    struct side *side = arg;
    struct shared *s = side->shared;
    uint64_t random = random_state(side->number);
    char *payload = malloc(sizeof(struct label) + s->plan.most);
    for (uint32_t i = 0; i < s->plan.items;) {
        if (s->plan.batches && below(&random, 8))
            i += put_labels(s, side->number, i, &random);
        else
            put_label(s, payload, side->number, i++, &random);
    }
    free(payload);
    return NULL;
}

/* What must be true of an item that arrives; `last` has the number of the one before, of each producer. */
static void check_item(struct shared *s, const char *payload, uint64_t bytes, int64_t *last)
{
    struct label label;
    CHECK_OP(bytes, >=, sizeof label);
    memcpy(&label, payload, sizeof label);
    CHECK_EQ(label.bytes, bytes);
    CHECK_OP(label.producer, <, PRODUCERS);
    CHECK_OP(label.sequence, <, s->plan.items);
    CHECK(filled(payload + sizeof label, label.bytes - sizeof label, name_of(&label)));
    CHECK_EQ(set_bits_sc(&s->seen[label.producer * s->plan.items + label.sequence], (unsigned char)1), 0);
    if (!s->plan.given_back) {
        CHECK_OP(label.sequence, >, last[label.producer]);
        last[label.producer] = label.sequence;
    }
    add_sc(&s->consumed, 1);
}

/* Takes up to `most` items and reports them, if they can be taken so. */
static int64_t consume_batch(struct shared *s, uint64_t most, int64_t *last)
{
    _Alignas(8) char batch[16384];
    int64_t n = jnq_get_batch(s->q, batch, sizeof batch, most, JNQ_FOREVER);
    const char *at = batch;
    for (int64_t i = 0; i < n; i++) {
        jnq_packed header;
        memcpy(&header, at, sizeof header);
        check_item(s, at + sizeof header, header.bytes, last);
        at += sizeof header + (header.bytes + 7) / 8 * 8;
    }
    if (n > 0)
        CHECK_EQ(jnq_task_done(s->q, (uint64_t)n), JNQ_OK);
    return n;
}

static void *consume(void *arg)
{
    struct side *side = arg;
    struct shared *s = side->shared;
    uint64_t random = random_state(100 + side->number);
    int64_t last[PRODUCERS];
    memset(last, -1, sizeof last);
    jnq_box *box = malloc(sizeof *box);
    for (;;) {
        if (s->plan.batches && mode != JNQ_REDELIVER && below(&random, 4)) {
            int64_t n = consume_batch(s, 1 + below(&random, 80), last);
            CHECK(n >= 0 || n == JNQ_INTERRUPTED);
            if (n)
                continue; /* 0: there is something for jnq_get(), perhaps the end */
        }
        int64_t rc = jnq_get(s->q, box, JNQ_FOREVER);
        if (rc == JNQ_INTERRUPTED)
            continue;
        if (rc == JNQ_SHUTDOWN)
            break;
        CHECK(is_item(rc));
        if (s->plan.given_back && below(&random, 8) == 0) {
            while ((rc = jnq_unget(s->q, box)) == JNQ_INTERRUPTED)
                ;
            CHECK_EQ(rc, JNQ_OK);
            continue;
        }
        check_item(s, box->payload, box->bytes, last);
        finish_item(s->q, box);
    }
    free(box);
    return NULL;
}

/* A share of the producers and consumers, each in a thread. */
static void take_part(void *arg)
{
    struct side *part = arg, sides[PRODUCERS + CONSUMERS];
    pthread_t threads[PRODUCERS + CONSUMERS];
    unsigned n = 0;
    for (uint32_t i = part->number; i < PRODUCERS + CONSUMERS; i += PROCESSES) {
        sides[n] = (struct side){part->shared, i < PRODUCERS ? i : i - PRODUCERS};
        threads[n] = start_thread(i < PRODUCERS ? produce : consume, &sides[n]);
        n++;
    }
    for (unsigned i = 0; i < n; i++)
        join_thread(threads[i]);
}

static void join_queue(jnq_queue *q)
{
    uint64_t since = 0;
    int rc;
    while ((rc = jnq_join(q, &since, JNQ_FOREVER)) == JNQ_INTERRUPTED)
        ;
    CHECK_EQ(rc, JNQ_OK);
}

static void stress(struct plan plan)
{
    uint64_t all = (uint64_t)PRODUCERS * plan.items;
    size_t bytes = sizeof(struct shared) + all;
    struct shared *s = shared_memory(bytes);
    s->plan = plan;
    s->q = make_queue(plan.maxsize);
    struct side parts[2];
    pid_t pids[2];
    for (uint32_t i = 0; i < PROCESSES; i++) {
        parts[i] = (struct side){s, i};
        pids[i] = start_child(take_part, &parts[i]);
    }
    while (counters(s->q).puts < all) { /* invariants hold at every moment */
        for (int i = 0; i < PROCESSES; i++)
            CHECK_EQ(waitpid(pids[i], NULL, WNOHANG), 0); /* none has failed */
        int rc = jnq_check(s->q);
        CHECK(rc == 0 || rc == JNQ_INTERRUPTED);
        if (plan.maxsize && !plan.given_back)
            CHECK_OP(jnq_qsize(s->q), <=, plan.maxsize);
        nap(MILLISECOND);
    }
    join_queue(s->q); /* all was put: the zero is the end */
    CHECK_EQ(load_sc(&s->consumed), all);
    CHECK_EQ(jnq_shutdown(s->q, 0), JNQ_OK);
    for (int i = 0; i < PROCESSES; i++)
        join_child(pids[i]);
    for (uint64_t i = 0; i < all; i++)
        CHECK_EQ(s->seen[i], 1);
    CHECK_EQ(jnq_unfinished(s->q), 0);
    CHECK_EQ(jnq_qsize(s->q), 0);
    CHECK_EQ(jnq_reap(s->q), JNQ_OK);
    CHECK_EQ(counters(s->q).processes, 1);
    CHECK_EQ(counters(s->q).foreign, 0); /* each reported what it had taken */
    CHECK_EQ(counters(s->q).used_bytes, idle_bytes(s->q));
    drop_queue(s->q);
    munmap(s, bytes);
}

static void small_items(void) { stress((struct plan){.maxsize = 0, .most = 300, .items = scaled(60000)}); }

static void small_items_bounded(void) { stress((struct plan){.maxsize = 7, .most = 300, .items = scaled(20000)}); }

static void one_at_a_time(void) { stress((struct plan){.maxsize = 1, .most = 300, .items = scaled(10000)}); }

static void batches(void) { stress((struct plan){.maxsize = 0, .most = 300, .items = scaled(60000), .batches = true}); }

static void batches_bounded(void)
{
    stress((struct plan){.maxsize = 17, .most = 300, .items = scaled(20000), .batches = true});
}

static void batches_among_all_sizes(void)
{
    stress((struct plan){.maxsize = 50, .most = 300000, .items = scaled(10000), .batches = true});
}

static void batches_given_back(void)
{
    stress((struct plan){.maxsize = 20, .most = 30000, .items = scaled(4000), .given_back = true, .batches = true});
}

static void items_of_all_sizes(void) { stress((struct plan){.maxsize = 0, .most = 300000, .items = scaled(4000)}); }

static void items_of_all_sizes_bounded(void)
{
    stress((struct plan){.maxsize = 20, .most = 300000, .items = scaled(4000)});
}

static void items_given_back(void)
{
    stress((struct plan){.maxsize = 20, .most = 30000, .items = scaled(2000), .given_back = true});
}

TESTS_IN_ALL_MODES("stress", small_items, small_items_bounded, one_at_a_time, items_of_all_sizes,
                   items_of_all_sizes_bounded, items_given_back, batches, batches_bounded, batches_among_all_sizes,
                   batches_given_back)
