/* steps: a process is killed before each single instruction of each operation, those of libc and those of a repair
 * included; what it leaves must be whole, and those who live go on.
 *
 *     steps [stride [offset [word]]]    the word selects scenarios
 *
 * tries every stride-th kill point from offset % stride on. The living reap first, or first go on as if nothing had
 * happened: each time the other.
 *
 * The last line is `kill points: N, failures: M`. Exit code 0: no failure, 1: some, SKIPPED: this machine cannot do it.
 *
 * What a death leaves is the segment and, by the robust list, what the kernel knows of its locks. The first run
 * compares both at each step: where neither changed and the kernel was not called, a death leaves what it left one
 * instruction before, and there is nothing to try. Each kill point that remains is judged in MANNERS manners; the
 * stride counts these.
 *
 * A kill point: the parent makes a queue and brings it into the state of the scenario; a child runs the operation under
 * ptrace up to instruction k and gets SIGKILL; the parent judges. The child of the first run is stepped from the
 * beginning to the end, which gives the path; the others run freely up to a breakpoint near k and are stepped
 * from there. A `rep` instruction counts as one, and so does a call of a function of libc that writes only to memory
 * of its caller's: formatting and reading numbers would be half of all instructions. `name+reap` are pairs of deaths:
 * the second victim reaps after the first, up to a random instruction.
 *
 * The path is the same each time, waiting included, because time is: in the child clock_gettime() is ours, and only
 * goes on when it is asked. It is so far back that no sleep lasts. What still differs (the length of numbers in
 * /proc, say) makes some victims die elsewhere than planned: they are judged like the others, and counted as astray.
 *
 * A scenario is a line of the table at the end. Its effect is told by a model of the queue: before the operation takes
 * effect the queue is as the model says, afterwards as the model with the effect says, and never anything else. */
#include "harness.h"
#include "procs.h"
#include "ready.h"

#define SKIPPED 77

#if !defined(__x86_64__) || !defined(__linux__)
int main(void)
{
    puts("only x86-64 Linux is stepped");
    return SKIPPED;
}
#else

#include <dlfcn.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#define POINT_SECONDS 20 /* for one kill point: more is a hang */
#define SHOWN_FAILURES 5 /* of a scenario, which then ends */
#define FORKED_EVERY 16  /* kill points, one is followed by a workload of two processes */
#define MANNERS 4        /* of judging each kill point */
#define PAIRS 3          /* times the stride: the instructions that are tried together with a second death */
#define MAX_STEPS 300000

#define INTEGER UINT64_MAX /* instead of a length */
#define LONGEST 70000      /* payload */
#define LARGE 9000
#define NAMES 16
#define EFFECTS 4
#define DEAD_PID 0x7fff0000 /* nobody has it */

/* --- the model --------------------------------------------------------------------------------------------- */

struct item {
    uint64_t bytes;  /* or INTEGER */
    uint64_t name;   /* which of the texts, modulo NAMES; the number of its task, too */
    uint32_t deaths; /* takers that it has killed */
};

static struct item an_item(uint64_t bytes, uint64_t name) { return (struct item){.bytes = bytes, .name = name}; }

/* Who has tasks in hand. The earlier dead follow on the victim, as their entries in the process table do. */
enum { PARENT = 0, VICTIM = 1, EARLIER = 2, SLEEPER = 6, BURIED = 7, HOLDERS = 8 };

struct holder {
    pid_t pid;
    bool dead;
    bool clean;     /* it announced its end in order */
    uint64_t under; /* so many it may have been just about to report done */
};

struct hand {
    struct item item;
    unsigned holder;
};

struct model {
    struct item items[64]; /* queued, oldest first */
    uint64_t count;        /* of them */
    uint64_t returned;     /* so many of them, the first, were given back */
    struct item in_hand;   /* the one taken last */
    uint64_t puts, takes, dones, tasks;
    uint64_t ended, cut;
    uint64_t next;  /* name of the next item */
    uint64_t since; /* of somebody who joins; 0: nobody */
    uint64_t zero;  /* no task was unfinished at some moment since then */
    int on_death;
    uint32_t max_deliveries;
    struct holder holders[HOLDERS];
    struct hand hands[64]; /* tasks taken and not reported done, oldest get first */
    uint64_t in_hands;
    struct item letters[16]; /* dead letters, newest first */
    uint64_t dead_letters;
    uint64_t redelivered; /* tasks */
    uint64_t uncounted;   /* of them, by somebody who died before he said so */
    uint64_t fresh;       /* of them, in the very last step: perhaps not yet counted */
    uint64_t foreign;
    bool segment_is_full; /* with what the parent has in hand */
};

/* --- scenarios --------------------------------------------------------------------------------------------- */

struct scenario;
typedef void effect(struct model *, const struct scenario *);

/* Before each step's instruction: the shared state, and what it was before the operation. NULL stands for its end. */
typedef bool moment(struct jnq_shared *now, const struct jnq_shared *then);

struct path {
    uint64_t *pc;  /* of each step; the last is the end of the operation */
    uint32_t *nth; /* of equal ones */
    uint32_t *via; /* the step where a breakpoint is best set on the way to this one */
    unsigned steps;
    uint32_t *points; /* steps before which a death may leave something else than before the step before */
    unsigned distinct;
};

/* An earlier death: in the operation of another scenario, whose setup is not run. */
struct death {
    const char *in;
    moment *when;
    struct path path; /* up to there at least */
    uint32_t at;      /* step of it */
};

enum handle { ATTACHED, INHERITED };

struct scenario {
    const char *name;
    uint64_t maxsize;
    uint64_t segment;        /* bytes, if they must be few */
    int on_death;            /* 0: JNQ_RAISE */
    uint32_t max_deliveries; /* 0: any number */
    void (*setup)(void);     /* the parent's part */
    void (*prepare)(void);   /* the child's part */
    effect *prepared;        /* of `prepare` */
    int64_t (*operation)(void);
    uint64_t bytes;           /* of the item that it puts */
    int64_t result;           /* of the whole operation */
    effect *effects[EFFECTS]; /* steps in which the model changes */
    enum handle handle;       /* that the child uses: an inherited one is not entered yet */
    int64_t tick_ns;          /* how fast time goes; 0: TICK_NS */
    int64_t start_ns;         /* when it begins; 0: START_NS */
    bool sleeps;              /* also killed while it sleeps for long */
    void (*sleeper)(void);    /* another process, which waits for the operation */
    effect *awake;            /* what the sleeper does then */
    struct death firsts[4];   /* in this order, before the operation */
};

static jnq_queue *q;                  /* the parent's handle; in a child, the child's */
static struct model *model;           /* shared with the children */
static volatile int64_t *outcome;     /* of the child's operation */
static const struct scenario *acting; /* what the child does */
static unsigned doer;                 /* whom an effect is about: PARENT ... */
static jnq_box box;

/* The tasks that the parent has in hand, with JNQ_REDELIVER. */
static struct {
    uint64_t lease, number;
} ours[64];
static unsigned our_leases;

static bool sleeping_long;
static uint64_t baseline; /* bytes used by an empty queue */

/* --- time -------------------------------------------------------------------------------------------------- */

#define TICK_NS 10000
#define START_NS 500000000

static int64_t tick_ns, time_ns; /* tick_ns 0: real time */

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (!tick_ns)
        return (int)syscall(SYS_clock_gettime, clock, now);
    time_ns += tick_ns;
    *now = (struct timespec){.tv_sec = time_ns / SECOND, .tv_nsec = time_ns % SECOND};
    return 0;
}

/* Of an operation that waits: after it spun, it sleeps once or twice. */
static int64_t soon(void) { return sleeping_long ? JNQ_FOREVER : event_now() + 6 * TICK_NS; }

/* --- CPUs -------------------------------------------------------------------------------------------------- */

/* All run on one CPU, if that is allowed: it takes several times longer to wake who waits for a step on another one. */
static void use_one_cpu(void)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((unsigned)sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof one, &one))
        perror("sched_setaffinity");
}

/* But who waits is to believe that there is another, and to spin: then the path is the same on any machine. */
int sched_getaffinity(pid_t pid, size_t bytes, cpu_set_t *set)
{
    (void)pid;
    memset(set, 0, bytes);
    CPU_SET(0, set);
    CPU_SET(1, set);
    return 0;
}

/* --- private memory ----------------------------------------------------------------------------------------- */

static bool no_memory;

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);

void *__wrap_malloc(size_t bytes) { return no_memory ? NULL : __real_malloc(bytes); }

/* --- items ------------------------------------------------------------------------------------------------- */

static char texts[NAMES][LONGEST];

static const char *text_of(uint64_t name) { return texts[name % NAMES]; }

static int64_t integer_of(uint64_t name) { return (int64_t)(name % NAMES) * 1234567 - 5000000; }

static int put(struct item item, int64_t deadline)
{
    if (item.bytes == INTEGER)
        return jnq_put_integer(q, integer_of(item.name), deadline);
    return jnq_put(q, text_of(item.name), item.bytes, deadline);
}

/* Whether the box holds the item, and a get answered so. */
static bool holds(int64_t answer, struct item item)
{
    int64_t integer = integer_of(item.name);
    if (!box.taken)
        return false;
    if (box.lease) {
        if (answer != JNQ_LEASED || jnq_on_death(q) != JNQ_REDELIVER)
            return false;
        if (item.bytes == INTEGER)
            return box.form == JNQ_INTEGER && box.bytes == sizeof integer && !memcmp(box.payload, &integer, box.bytes);
        return box.form == JNQ_PICKLE && box.bytes == item.bytes &&
               !memcmp(box.payload, text_of(item.name), item.bytes);
    }
    if (item.bytes == INTEGER)
        return answer == (int64_t)sizeof integer && box.form == JNQ_INTEGER &&
               !memcmp(box.payload, &integer, sizeof integer);
    return answer == (item.bytes > JNQ_INLINE_BYTES ? JNQ_LARGE : (int64_t)item.bytes) && box.bytes == item.bytes &&
           !memcmp(box.payload, text_of(item.name), item.bytes);
}

/* --- effects ----------------------------------------------------------------------------------------------- */

static void appends(struct model *m, const struct scenario *s)
{
    CHECK_OP(m->count, <, sizeof m->items / sizeof *m->items);
    m->items[m->count++] = an_item(s->bytes, m->next++);
    m->puts++;
    m->tasks++;
}

static void takes(struct model *m, const struct scenario *s)
{
    (void)s;
    CHECK(m->count > 0);
    CHECK_OP(m->in_hands, <, sizeof m->hands / sizeof *m->hands);
    m->in_hand = m->items[0];
    m->hands[m->in_hands++] = (struct hand){m->in_hand, doer};
    memmove(m->items, m->items + 1, --m->count * sizeof *m->items);
    if (m->returned)
        m->returned--;
    else
        m->takes++;
    m->fresh = 0;
}

static void takes_two(struct model *m, const struct scenario *s)
{
    takes(m, s);
    takes(m, s);
}

static void appends_two(struct model *m, const struct scenario *s)
{
    appends(m, s);
    appends(m, s);
}

static void appends_three(struct model *m, const struct scenario *s)
{
    appends_two(m, s);
    appends(m, s);
}

static void takes_three(struct model *m, const struct scenario *s)
{
    takes_two(m, s);
    takes(m, s);
}

static void takes_six(struct model *m, const struct scenario *s)
{
    takes_three(m, s);
    takes_three(m, s);
}

static uint64_t hands_of(const struct model *m, unsigned holder)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < m->in_hands; i++)
        n += m->hands[i].holder == holder;
    return n;
}

static struct item drop_hand(struct model *m, uint64_t i)
{
    struct item item = m->hands[i].item;
    memmove(m->hands + i, m->hands + i + 1, (--m->in_hands - i) * sizeof *m->hands);
    return item;
}

/* One of the doer's: the last taken, if it has that. */
static void drop_one(struct model *m)
{
    uint64_t first = UINT64_MAX;
    for (uint64_t i = 0; i < m->in_hands; i++) {
        if (m->hands[i].holder != doer)
            continue;
        if (first == UINT64_MAX || m->hands[i].item.name == m->in_hand.name)
            first = i;
    }
    if (first != UINT64_MAX)
        drop_hand(m, first);
}

static void gives_back(struct model *m, struct item item)
{
    CHECK_OP(m->count, <, sizeof m->items / sizeof *m->items);
    memmove(m->items + 1, m->items, m->count++ * sizeof *m->items);
    m->items[0] = item;
    m->returned++;
}

static void returns(struct model *m, const struct scenario *s)
{
    (void)s;
    drop_one(m);
    gives_back(m, m->in_hand);
    m->fresh = 0;
}

static uint64_t unfinished(const struct model *m) { return m->tasks - m->dones - m->dead_letters; }

static void reports(struct model *m, unsigned n)
{
    if (m->on_death == JNQ_RAISE && hands_of(m, doer) < n)
        m->foreign = 1;
    m->dones += n;
    while (n--)
        drop_one(m);
    m->zero |= !unfinished(m);
    m->fresh = 0;
}

static void finishes(struct model *m, const struct scenario *s)
{
    (void)s;
    reports(m, 1);
}

static void finishes_two(struct model *m, const struct scenario *s)
{
    (void)s;
    reports(m, 2);
}

static int by_name(const void *a, const void *b)
{
    uint64_t x = ((const struct item *)a)->name, y = ((const struct item *)b)->name;
    return (x > y) - (x < y);
}

/* The next single step in which the tasks of the holder go back, or become dead letters. False: it has none. */
static bool inherit_step(struct model *m, unsigned holder, bool killed)
{
    struct item items[64], oldest;
    uint64_t n = 0, living = 0;
    for (uint64_t i = 0; i < m->in_hands; i++)
        if (m->hands[i].holder == holder)
            items[n++] = m->hands[i].item;
    if (!n || m->on_death != JNQ_REDELIVER)
        return false;
    qsort(items, n, sizeof *items, by_name);
    oldest = items[0];
    for (uint64_t i = 0; i < n; i++)
        living += !killed || items[i].deaths + 1 < m->max_deliveries;
    if (m->cut || living)
        m->fresh = 0;
    for (uint64_t k = 0; k < n; k++) { /* the oldest comes to be the first to be got, and the last letter to be read */
        struct item item = items[living ? n - 1 - k : k];
        bool dies = killed && item.deaths + 1 >= m->max_deliveries;
        if (m->cut ? item.name != oldest.name : living && dies)
            continue;
        for (uint64_t i = 0; i < m->in_hands; i++)
            if (m->hands[i].item.name == item.name)
                drop_hand(m, i);
        item.deaths += killed;
        if (m->cut) {
            m->dones++;
        } else if (living) {
            gives_back(m, item);
            m->redelivered++;
            m->fresh++;
        } else {
            CHECK_OP(m->dead_letters, <, sizeof m->letters / sizeof *m->letters);
            memmove(m->letters + 1, m->letters, m->dead_letters++ * sizeof *m->letters);
            m->letters[0] = item;
        }
    }
    m->zero |= !unfinished(m);
    return true;
}

/* So does whoever reaps, with one after the other of the dead. */
static void inherits(struct model *m, const struct scenario *s)
{
    (void)s;
    for (unsigned holder = VICTIM; holder < HOLDERS; holder++)
        if (m->holders[holder].dead && inherit_step(m, holder, !m->holders[holder].clean))
            return;
}

/* One who leaves gives back what it has in hand. */
static void leaves(struct model *m, const struct scenario *s)
{
    (void)s;
    inherit_step(m, doer, false);
}

static void leaves_failed(struct model *m, const struct scenario *s)
{
    (void)s;
    inherit_step(m, doer, true);
}

/* Whoever finds one who ended in order, and had handed its tasks on. */
static void finds_clean(struct model *m, const struct scenario *s)
{
    (void)s;
    for (unsigned holder = VICTIM; holder < HOLDERS; holder++)
        if (m->on_death == JNQ_RAISE && m->holders[holder].clean && hands_of(m, holder) && unfinished(m))
            m->foreign = 1;
}

static void turns_foreign(struct model *m, const struct scenario *s)
{
    (void)s;
    m->foreign = 1;
}

static void ends(struct model *m, const struct scenario *s)
{
    (void)s;
    m->ended = 1;
}

static void cuts(struct model *m, const struct scenario *s)
{
    (void)s;
    m->tasks = m->puts - m->count;
    m->zero |= !unfinished(m);
    m->count = m->returned = 0;
    m->cut = 1;
}

/* --- what the parent does beforehand ----------------------------------------------------------------------- */

static void put_one(uint64_t bytes)
{
    CHECK_EQ(put(an_item(bytes, model->next), JNQ_NOW), JNQ_OK);
    appends(model, &(struct scenario){.bytes = bytes});
}

static void get_one(void)
{
    CHECK(holds(jnq_get(q, &box, JNQ_NOW), model->items[0]));
    takes(model, NULL);
    if (box.lease && doer == PARENT) {
        ours[our_leases].lease = box.lease;
        ours[our_leases++].number = box.number;
    }
    jnq_release(&box);
}

/* Reports done what is in the box. */
static int done(void)
{
    uint64_t lease = box.lease, number = box.number;
    jnq_release(&box);
    return lease ? jnq_finish(q, lease, number) : jnq_task_done(q, 1);
}

static void get_and_finish_one(void)
{
    CHECK(holds(jnq_get(q, &box, JNQ_NOW), model->items[0]));
    takes(model, NULL);
    CHECK_EQ(done(), JNQ_OK);
    finishes(model, NULL);
}

/* A process takes so many and dies; it is found dead. */
static void lose(unsigned n)
{
    jnq_queue *mine = q;
    q = second_handle(q);
    doer = BURIED;
    while (n--)
        get_one();
    q->me->pid = DEAD_PID; /* see kill_handle() */
    q->me->start--;
    q->fork = 0;
    q->users = 1;
    jnq_detach(q);
    q = mine;
    model->holders[BURIED] = (struct holder){.pid = DEAD_PID, .dead = true};
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    inherits(model, NULL);
    inherits(model, NULL);
    doer = PARENT;
}

static void unget_one(void)
{
    CHECK(holds(jnq_get(q, &box, JNQ_NOW), model->items[0]));
    takes(model, NULL);
    CHECK_EQ(jnq_unget(q, &box), JNQ_OK);
    returns(model, NULL);
}

static void join_one(void)
{
    CHECK_EQ(jnq_join(q, &model->since, JNQ_NOW), JNQ_TIMEOUT);
    CHECK(model->since != 0);
    model->zero = 0;
}

/* Adds the next item but so many to the batch. */
static void pack_next(struct packed *batch, uint64_t bytes, uint64_t ahead)
{
    uint64_t name = model->next + ahead;
    int64_t integer = integer_of(name);
    bool is_integer = bytes == INTEGER;
    jnq_packed header = {is_integer ? sizeof integer : (uint32_t)bytes, is_integer ? JNQ_INTEGER : JNQ_PICKLE};
    char *to = batch->start + batch->bytes;
    memcpy(to, &header, sizeof header);
    memcpy(to + sizeof header, is_integer ? (char *)&integer : text_of(name), header.bytes);
    batch->bytes += sizeof header + (header.bytes + 7) / 8 * 8;
    batch->items++;
}

/* Three items in one record, if they are short. */
static int64_t put_three(uint64_t bytes, int64_t deadline)
{
    static struct packed batch;
    uint64_t put = 0;
    batch.bytes = batch.items = 0;
    for (uint64_t i = 0; i < 3; i++)
        pack_next(&batch, bytes, i);
    return jnq_put_batch(q, batch.start, 3, &put, deadline);
}

static void put_chunk(uint64_t bytes)
{
    CHECK_EQ(put_three(bytes, JNQ_NOW), JNQ_OK);
    appends_three(model, &(struct scenario){.bytes = bytes});
}

static void short_items(void)
{
    put_one(20);
    put_one(0);
    put_one(INTEGER);
}

static void integers(void)
{
    put_one(INTEGER);
    put_one(INTEGER);
}

static void large_items(void)
{
    put_one(LARGE);
    put_one(LONGEST);
}

static void chunk(void) { put_chunk(20); }

/* Its first item was taken: is in the parent's hand. */
static void half_chunk(void)
{
    put_chunk(INTEGER);
    get_one();
}

static void last_of_chunk(void)
{
    chunk();
    get_one();
    get_one();
}

static void chunk_among_items(void)
{
    put_one(20);
    put_chunk(9);
    put_one(INTEGER);
    put_chunk(0);
}

/* The batch that is taken next ends with the second item. */
static void chunk_before_large(void)
{
    put_chunk(INTEGER);
    get_one();
    put_one(LARGE);
    put_chunk(20);
}

static void chunk_given_back(void)
{
    static jnq_box first;
    chunk();
    CHECK_OP(jnq_get(q, &first, JNQ_NOW), >=, 0);
    takes(model, NULL);
    CHECK_EQ(jnq_unget(q, &first), JNQ_OK);
    returns(model, NULL);
}

/* As many of the longest as a block takes. */
static void full_block(void)
{
    for (unsigned i = 0; i < BLOCK_BYTES / JNQ_INLINE_BYTES - 1; i++)
        put_one(JNQ_INLINE_BYTES);
}

/* The next get leaves a block. */
static void spent_block(void)
{
    while (counters(q).used_bytes == BLOCK_BYTES) {
        if (model->count)
            get_one();
        put_one(4000);
    }
    put_one(LARGE);
}

/* Not even a line is left. */
static void brimful(void)
{
    while (q->sh->tail.pos < q->sh->tail.end) {
        put_one(20);
        get_and_finish_one();
    }
}

static void spent_block_then_large(void)
{
    brimful();
    put_one(LARGE);
}

static void returned_items(void)
{
    static jnq_box first;
    short_items();
    CHECK_OP(jnq_get(q, &first, JNQ_NOW), >=, 0);
    takes(model, NULL);
    struct item item = model->in_hand;
    unget_one();
    CHECK_EQ(jnq_unget(q, &first), JNQ_OK);
    model->in_hand = item;
    returns(model, NULL);
}

static void returned_large(void)
{
    large_items();
    unget_one();
}

/* Something of everything: blocks, extents, items in the front list. */
static void backlog(void)
{
    put_one(LARGE);
    put_one(20);
    full_block();
    put_one(JNQ_INLINE_BYTES);
    put_one(LONGEST);
    get_one();
    unget_one();
    put_one(INTEGER);
}

static void ended_backlog(void)
{
    backlog();
    CHECK_EQ(jnq_shutdown(q, 0), JNQ_OK);
    ends(model, NULL);
}

static void ended(void)
{
    CHECK_EQ(jnq_shutdown(q, 0), JNQ_OK);
    ends(model, NULL);
}

static void announced(void)
{
    event_prepare(&q->sh->items);
    event_prepare(&q->sh->space);
    event_prepare(&q->sh->zero);
}

static void announced_backlog(void)
{
    backlog();
    announced();
}

/* As if somebody had slept for long. */
static void deep(void)
{
    announced();
    event_deepen(&q->sh->items);
    event_deepen(&q->sh->space);
    event_deepen(&q->sh->zero);
}

static void deep_items(void)
{
    short_items();
    deep();
}

static void two_in_hand(void)
{
    short_items();
    get_one();
    get_one();
}

/* The next task_done makes zero, and somebody joins. */
static void one_to_zero(void)
{
    put_one(20);
    get_one();
    join_one();
    announced();
}

/* Somebody sleeps in poll(2). Without the thread of watch.h: the parent looks itself. */
static void asked(void)
{
    int fd;
    for (int what = 0; what < JNQ_WAITS; what++)
        CHECK_EQ(ready_fd(q, (enum jnq_wait)what, event_now() + SECOND, &fd), JNQ_OK);
}

static void one_asked(void)
{
    put_one(20);
    asked();
}

static void items_asked(void)
{
    short_items();
    asked();
}

static void to_zero_asked(void)
{
    one_to_zero();
    asked();
}

static void deep_one_to_zero(void)
{
    one_to_zero();
    deep();
}

/* The next put ends a zero that nobody has recorded. */
static void unrecorded_zero(void)
{
    put_one(20);
    get_one();
    join_one();
    q->sh->dones++;
    q->me->dones++;
    finishes(model, NULL);
}

/* A warm run that is free between two that are used. */
static void fragmented(void)
{
    put_one(LARGE);
    put_one(LONGEST);
    put_one(LARGE);
    get_one();
    get_one();
}

/* The heap holds more than it may keep, it believes. */
static void overfull(void)
{
    fragmented();
    put_one(LONGEST);
    get_one();
    q->sh->heap.free_warm += 1 << 20;
}

/* Much is queued, nothing is warm, and a reader has been seen: growing waits. */
static void outrun(void)
{
    put_one(20);
    get_and_finish_one();
    for (int i = 0; i < 17; i++)
        put_one(LONGEST);
    q->takes_seen = 0;
    q->back_ns = 5000;
}

/* What is free would do for a large item only if it were in one piece. */
static void scattered(void)
{
    uint64_t there = (q->sh->units - BLOCK_BYTES / q->sh->unit_bytes - 1) * q->sh->unit_bytes;
    unsigned n = 0;
    for (; there >= 2 * LONGEST; there -= 18 * 4096, n++)
        put_one(LONGEST);
    for (; n > 1; n--)
        get_one();
}

static void exhausted(void)
{
    while (put(an_item(LONGEST, model->next), JNQ_NOW) == JNQ_OK)
        appends(model, &(struct scenario){.bytes = LONGEST});
}

static void one_lost(void)
{
    put_one(20);
    lose(1);
}

/* Queued again, before others. */
static void redelivered_items(void)
{
    short_items();
    lose(2);
}

static void redelivered_large(void)
{
    large_items();
    lose(2);
}

/* The next get takes one that has killed already, then one that has not. */
static void one_guilty(void)
{
    put_one(LARGE);
    put_one(20);
    put_one(INTEGER);
    lose(1);
}

static void letters_and_guilty(void)
{
    short_items();
    put_one(LARGE);
    lose(2);
    lose(1);
}

/* The parent has one in hand. */
static void large_in_hand(void)
{
    large_items();
    put_one(20);
    get_one();
}

static void spent_block_done(void)
{
    do {
        put_one(4000);
        get_and_finish_one();
    } while (q->sh->tail.end - q->sh->tail.pos >= 4096);
    put_one(4000);
}

static void joined_item(void)
{
    put_one(20);
    join_one();
    announced();
}

static void joined_large(void)
{
    put_one(LARGE);
    join_one();
}

/* There is room for the first of two chunks only. */
static void room_for_a_chunk(void)
{
    for (uint64_t left = q->sh->tail.end - q->sh->tail.pos; left >= 9000; left = q->sh->tail.end - q->sh->tail.pos) {
        put_one(2000);
        get_and_finish_one();
    }
}

/* The next batch begins in another block. */
static void spent_block_then_chunk(void)
{
    brimful();
    put_chunk(20);
}

static void joined_chunk(void)
{
    chunk();
    join_one();
    announced();
}

static void chunk_asked(void)
{
    chunk();
    asked();
}

static void ended_chunk(void)
{
    chunk();
    ended();
}

static void two_taken_of_a_chunk(void)
{
    chunk();
    lose(2);
}

static void ended_items(void)
{
    short_items();
    ended();
}

/* So many died with tasks in hand, that no more are remembered. */
static void graveyard(void)
{
    short_items();
    struct jnq_proc *procs = (struct jnq_proc *)(q->base + q->procs_off);
    for (unsigned i = 1; i <= GRAVES_MAX; i++)
        procs[i] = (struct jnq_proc){.start = 1, .pid = DEAD_PID, .state = PROC_GRAVE, .takes = 1};
    q->sh->procs.count = GRAVES_MAX + 1;
    q->sh->procs.ready = (GRAVES_MAX + 1) * sizeof *procs / q->unit_bytes * q->unit_bytes + q->unit_bytes;
    q->sh->procs.graves = GRAVES_MAX;
}

static void graves_to_forget(void)
{
    one_lost();
    CHECK_EQ(jnq_task_done(q, 1), JNQ_OK);
    finishes(model, NULL);
}

/* Not even a cell can be had. */
static void exhausted_by_leases(void)
{
    put_one(LONGEST);
    get_one();
    exhausted();
    while (jnq_get(q, &box, JNQ_NOW) == JNQ_LEASED) {
        takes(model, NULL);
        ours[our_leases].lease = box.lease;
        ours[our_leases++].number = box.number;
    }
    model->segment_is_full = true;
}

/* --- operations -------------------------------------------------------------------------------------------- */

static struct item next_item(void) { return an_item(acting->bytes, model->next); }

static int64_t puts_now(void) { return put(next_item(), JNQ_NOW); }

static int64_t puts_soon(void) { return put(next_item(), soon()); }

static int64_t puts_three(void) { return put_three(acting->bytes, JNQ_NOW); }

static int64_t puts_three_soon(void) { return put_three(acting->bytes, soon()); }

/* How many items are taken, or -100 if they are not the oldest. */
static int64_t get_some(uint64_t most, int64_t deadline)
{
    static _Alignas(8) char batch[1000];
    int64_t n = jnq_get_batch(q, batch, sizeof batch, most, deadline);
    const char *at = batch;
    for (int64_t i = 0; i < n; i++) {
        jnq_packed header;
        int64_t integer = integer_of(model->items[i].name);
        bool is_integer = model->items[i].bytes == INTEGER;
        memcpy(&header, at, sizeof header);
        at += sizeof header;
        if (header.form != (is_integer ? JNQ_INTEGER : JNQ_PICKLE) ||
            header.bytes != (is_integer ? sizeof integer : model->items[i].bytes) ||
            memcmp(at, is_integer ? (char *)&integer : text_of(model->items[i].name), header.bytes))
            return -100;
        at += (header.bytes + 7) / 8 * 8;
    }
    return n;
}

static int64_t gets_three(void) { return get_some(3, JNQ_NOW); }

static int64_t gets_six(void) { return get_some(6, JNQ_NOW); }

static int64_t gets_some_soon(void) { return get_some(6, soon()); }

static int64_t gets_now(void) { return jnq_get(q, &box, JNQ_NOW); }

/* Memory that is put as it is, and that its maker may look at as long as it likes. */
#define BLANK_BYTES 5000
#define GIVEN_BYTES (JNQ_PREFACE_BYTES + BLANK_BYTES)

static jnq_box blank;
static const char *blank_text;

static void make_blank(void)
{
    int rc;
    while ((rc = jnq_blank(q, BLANK_BYTES, &blank)) == JNQ_INTERRUPTED)
        ;
    CHECK_EQ(rc, JNQ_OK);
    blank_text = text_of(model->next);
    memcpy((char *)(uintptr_t)blank.payload, blank_text + JNQ_PREFACE_BYTES, BLANK_BYTES);
}

static int64_t makes_blank(void) { return jnq_blank(q, BLANK_BYTES, &blank); }

static int64_t gives_now(void) { return jnq_give(q, &blank, JNQ_PICKLE, blank_text, JNQ_PREFACE_BYTES, JNQ_NOW); }

static void give_one(void)
{
    make_blank();
    CHECK_EQ(gives_now(), JNQ_OK);
    appends(model, &(struct scenario){.bytes = GIVEN_BYTES});
}

static void give_and_let_go(void)
{
    give_one();
    jnq_release(&blank);
}

/* The part of a child; the model follows with `appends`. */
static void prepare_given(void)
{
    make_blank();
    CHECK_EQ(gives_now(), JNQ_OK);
}

static void prepare_taken(void)
{
    prepare_given();
    CHECK_EQ(jnq_get(q, &box, JNQ_NOW), model->on_death == JNQ_REDELIVER ? JNQ_LEASED : JNQ_LARGE);
    jnq_release(&box);
}

static void appends_and_takes(struct model *m, const struct scenario *s)
{
    appends(m, s);
    takes(m, s);
}

static int64_t lets_go(void)
{
    jnq_release(&blank);
    return JNQ_OK;
}

static int64_t gets_soon(void) { return jnq_get(q, &box, soon()); }

static int64_t gets_two(void)
{
    static jnq_box other;
    int64_t rc = jnq_get(q, &other, JNQ_NOW);
    return rc < 0 && rc != JNQ_LEASED && rc != JNQ_LARGE ? rc : jnq_get(q, &box, JNQ_NOW);
}

static int64_t finishes_it(void) { return jnq_finish(q, box.lease, box.number); }

static int64_t asks(void)
{
    int fd;
    return ready_fd(q, JNQ_IN_GET, soon(), &fd);
}

static int64_t departs(void)
{
    jnq_depart(q, 0);
    return q->me->exit;
}

static int64_t takes_and_departs(void)
{
    CHECK(is_item(jnq_get(q, &box, JNQ_NOW)));
    return departs();
}

static int64_t departs_failed(void)
{
    jnq_depart(q, 1);
    return q->me->exit;
}

static int64_t reports_done(void) { return jnq_task_done(q, 1); }

static int64_t reports_two_done(void) { return jnq_task_done(q, 2); }

static int64_t joins_now(void)
{
    uint64_t since = 0;
    return jnq_join(q, &since, JNQ_NOW);
}

static int64_t joins_soon(void)
{
    uint64_t since = 0;
    return jnq_join(q, &since, soon());
}

static int64_t ungets(void) { return jnq_unget(q, &box); }

static int64_t ungets_a_copy(void) { return jnq_unget_copy(q, &box); }

static int64_t releases(void)
{
    jnq_release(&box);
    return 0;
}

static int64_t shuts_down(void) { return jnq_shutdown(q, 0); }

static int64_t shuts_down_at_once(void) { return jnq_shutdown(q, 1); }

static int64_t attaches(void)
{
    jnq_queue *other;
    return jnq_attach(dup(jnq_fileno(q)), &other);
}

static int64_t detaches(void)
{
    jnq_detach(q);
    return 0;
}

static int64_t reaps(void) { return jnq_reap(q); }

static int64_t reaps_without_memory(void)
{
    no_memory = true;
    int64_t rc = jnq_reap(q);
    no_memory = false;
    return rc;
}

static int64_t checks(void) { return jnq_check(q); }

static int64_t counts(void)
{
    jnq_counters c;
    jnq_count(q, &c);
    return 0;
}

static void take_first(void) { CHECK(holds(jnq_get(q, &box, JNQ_NOW), model->items[0])); }

static void take_two(void)
{
    static jnq_box first;
    CHECK(is_item(jnq_get(q, &first, JNQ_NOW)));
    CHECK(holds(jnq_get(q, &box, JNQ_NOW), model->items[1]));
}

static void take_and_finish(void)
{
    take_first();
    CHECK_EQ(jnq_finish(q, box.lease, box.number), JNQ_OK);
}

static void takes_and_finishes(struct model *m, const struct scenario *s)
{
    takes(m, s);
    finishes(m, s);
}

static void take_and_fail(void)
{
    take_first();
    jnq_depart(q, 1);
}

static void take_to_rebox(void)
{
    take_first();
    jnq_rebox(q, &box, JNQ_PICKLE, text_of(model->items[0].name), model->items[0].bytes);
}

static void take_and_cut(void)
{
    take_first();
    CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK);
}

static void takes_and_cuts(struct model *m, const struct scenario *s)
{
    takes(m, s);
    ends(m, s);
    cuts(m, s);
}

/* --- processes that wait for an operation ------------------------------------------------------------------ */

static void sleeper_gets(void)
{
    struct item item = next_item();
    int64_t answer;
    while ((answer = jnq_get(q, &box, JNQ_FOREVER)) == JNQ_INTERRUPTED)
        ;
    CHECK(holds(answer, item));
    jnq_release(&box);
}

static void sleeper_puts(void)
{
    struct item item = next_item();
    int rc;
    while ((rc = put(item, JNQ_FOREVER)) == JNQ_INTERRUPTED)
        ;
    CHECK_EQ(rc, JNQ_OK);
}

static void sleeper_joins(void)
{
    uint64_t since = 0;
    int rc;
    while ((rc = jnq_join(q, &since, JNQ_FOREVER)) == JNQ_INTERRUPTED)
        ;
    CHECK_EQ(rc, JNQ_OK);
}

static void run_sleeper(void *arg)
{
    (void)arg;
    acting->sleeper();
}

/* --- a victim ---------------------------------------------------------------------------------------------- */

/* Where a victim stops before and after its operation. */
void steps_begin(void);
void steps_end(void);
__asm__(".pushsection .text\n"
        ".globl steps_begin\n.type steps_begin, @function\nsteps_begin: int3\nret\n.size steps_begin, . - steps_begin\n"
        ".globl steps_end\n.type steps_end, @function\nsteps_end: int3\nret\n.size steps_end, . - steps_end\n"
        ".popsection");

#define PC offsetof(struct user, regs.rip)
#define END ((uint64_t)(uintptr_t)steps_end)

static void trace(int request, pid_t pid, uint64_t address, uint64_t data)
{
    if (ptrace((enum __ptrace_request)request, pid, (void *)address, (void *)data))
        fail(__FILE__, __LINE__, strerror(errno));
}

static uint64_t pc_of(pid_t pid)
{
    errno = 0;
    uint64_t pc = (uint64_t)ptrace(PTRACE_PEEKUSER, pid, (void *)PC, NULL);
    CHECK_EQ(errno, 0);
    return pc;
}

/* Lets the victim run until it traps; false if something else happened to it: then it is dead. */
static bool resume(pid_t pid, int request)
{
    trace(request, pid, 0, 0);
    int status = wait_status(pid);
    if (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP)
        return true;
    fprintf(stderr, "the victim got status %#x", (unsigned)status);
    if (WIFSTOPPED(status)) {
        fprintf(stderr, " at %#llx", (unsigned long long)pc_of(pid));
        kill_child(pid);
    }
    fputc('\n', stderr);
    return false;
}

enum travel { ARRIVED, ASTRAY, CRASHED };

/* Lets the victim run to the instruction. */
static enum travel run_to(pid_t pid, uint64_t pc)
{
    uint64_t word = *(uint64_t *)pc; /* its text is ours */
    trace(PTRACE_POKETEXT, pid, pc, (word & ~0xffull) | 0xcc);
    if (!resume(pid, PTRACE_CONT))
        return CRASHED;
    if (pc_of(pid) != pc + 1)
        return ASTRAY; /* it is at the end */
    trace(PTRACE_POKETEXT, pid, pc, word);
    trace(PTRACE_POKEUSER, pid, PC, pc);
    return ARRIVED;
}

/* Whether it is the first instruction of a function that counts as one: see above. */
static bool is_function(uint64_t pc)
{
    return pc == (uintptr_t)snprintf || pc == (uintptr_t)strtoull || pc == (uintptr_t)strtoul;
}

/* One instruction on. False if the victim crashed. */
static bool step(pid_t pid, uint64_t *pc)
{
    if (is_function(*pc)) {
        uint64_t stack = (uint64_t)ptrace(PTRACE_PEEKUSER, pid, (void *)offsetof(struct user, regs.rsp), NULL);
        *pc = (uint64_t)ptrace(PTRACE_PEEKDATA, pid, (void *)stack, NULL); /* where it returns to */
        return run_to(pid, *pc) == ARRIVED;
    }
    const unsigned char *text = (const unsigned char *)*pc;
    uint64_t before = *pc;
    if (!resume(pid, PTRACE_SINGLESTEP))
        return false;
    if ((*pc = pc_of(pid)) != before)
        return true;
    /* A `rep` in one of its rounds: a prefix, perhaps another, the opcode. */
    *pc += (text[1] & 0xf0) == 0x40 ? 3 : 2;
    return run_to(pid, *pc) == ARRIVED;
}

static void act(void)
{
    if (acting->handle == ATTACHED)
        q = second_handle(q);
    if (acting->prepare)
        acting->prepare();
    time_ns = acting->start_ns ? acting->start_ns : START_NS;
    tick_ns = sleeping_long ? 0 : acting->tick_ns ? acting->tick_ns : TICK_NS;
    steps_begin();
    *outcome = acting->operation();
    steps_end();
}

/* A child that stands before the first instruction of the operation. */
static pid_t begin(const struct scenario *s, unsigned holder)
{
    acting = s;
    pid_t pid = fork();
    CHECK_OP(pid, >=, 0);
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
            _exit(SKIPPED);
        act();
        _exit(0);
    }
    int status = wait_status(pid);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    trace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_EXITKILL);
    doer = holder;
    model->holders[holder].pid = pid;
    if (s->prepared)
        s->prepared(model, s);
    doer = PARENT;
    return pid;
}

/* What a death leaves: the segment, as far as it is used, and what the kernel is told of the locks. */
static struct {
    void *robust_list; /* the same address in each child */
    long locks[2];     /* of that list: the first, and the one under way */
    size_t bytes[4];
    char *then[4];
} remains;

static void watch(pid_t pid, bool *changed)
{
    uint64_t heap_bytes = (q->units < 64 ? q->units : 64) * q->unit_bytes;
    const size_t bytes[] = {sizeof *q->sh, q->unit_bytes * 5, q->unit_bytes, heap_bytes};
    const char *now[] = {q->base, q->base + q->procs_off, q->base + q->map_off, q->base + q->heap_off};
    for (int i = 0; i < 4; i++) {
        size_t n = bytes[i];
        if (i == 1 && n > q->map_off - q->procs_off)
            n = q->map_off - q->procs_off;
        if (remains.bytes[i] == n && !memcmp(remains.then[i], now[i], n))
            continue;
        *changed = true;
        remains.then[i] = realloc(remains.then[i], n);
        CHECK(remains.then[i]);
        memcpy(remains.then[i], now[i], remains.bytes[i] = n);
    }
    for (int i = 0; i < 2; i++) {
        errno = 0;
        long word = ptrace(PTRACE_PEEKDATA, pid, (long *)remains.robust_list + 2 * i, NULL);
        CHECK_EQ(errno, 0);
        *changed |= word != remains.locks[i];
        remains.locks[i] = word;
    }
}

static bool is_system_call(uint64_t pc)
{
    const unsigned char *text = (const unsigned char *)pc;
    return text[0] == 0x0f && text[1] == 0x05;
}

/* Steps the victim to the moment and notes its path. */
static bool explore(pid_t pid, struct path *path, moment *when)
{
    bool changed = true;
    struct jnq_shared *then = malloc(sizeof *then);
    path->pc = malloc(MAX_STEPS * sizeof *path->pc);
    path->points = malloc((MAX_STEPS + 1) * sizeof *path->points);
    CHECK(then && path->pc && path->points);
    path->distinct = 0;
    *then = *q->sh;
    uint64_t pc = pc_of(pid);
    path->steps = 0;
    for (;;) {
        CHECK_OP(path->steps, <, MAX_STEPS);
        path->pc[path->steps] = pc;
        if (!when) {
            watch(pid, &changed);
            if (changed || pc == END)
                path->points[path->distinct++] = path->steps;
            changed = is_system_call(pc); /* which may do more than can be seen */
        }
        if (pc == END || (when && when(q->sh, then)))
            break;
        path->steps++;
        if (!step(pid, &pc))
            return false;
    }
    free(then);
    return !when || pc != END;
}

/* A breakpoint on the nth time that an address is reached costs about 3 n steps; finds the best for each step. */
static void plan(struct path *path)
{
    unsigned n = path->steps + 1, best = 0, slots = 1;
    while (slots < 2 * n)
        slots *= 2;
    struct {
        uint64_t pc;
        uint32_t count;
    } *seen = calloc(slots, sizeof *seen);
    path->nth = calloc(n, sizeof *path->nth);
    path->via = calloc(n, sizeof *path->via);
    CHECK(seen && path->nth && path->via);
    for (unsigned i = 1; i < n; i++) { /* 0 is where it stands: no breakpoint is needed */
        uint64_t slot = path->pc[i] * 0x9e3779b97f4a7c15u % slots;
        while (seen[slot].count && seen[slot].pc != path->pc[i])
            slot = (slot + 1) % slots;
        seen[slot].pc = path->pc[i];
        path->nth[i] = ++seen[slot].count;
        if (3ll * path->nth[i] - i < 3ll * path->nth[best] - best && path->pc[i] != END)
            best = i;
        path->via[i] = best;
    }
    free(seen);
}

/* Brings the victim before the k-th instruction of the path. */
static enum travel go(pid_t pid, const struct path *path, unsigned k)
{
    uint32_t at_step = path->via[k];
    uint64_t pc = path->pc[at_step];
    for (uint32_t hits = path->nth[at_step]; hits; hits--) {
        enum travel travel = run_to(pid, pc);
        if (travel != ARRIVED)
            return travel;
        if (hits > 1 && !step(pid, &(uint64_t){pc}))
            return CRASHED;
    }
    for (; at_step < k && pc != END; at_step++)
        if (!step(pid, &pc))
            return CRASHED;
    return pc == path->pc[k] ? ARRIVED : ASTRAY;
}

/* --- the verdict ------------------------------------------------------------------------------------------- */

static char blame[400];

static bool blamed(int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = snprintf(blame, sizeof blame, "line %d: ", line);
    vsnprintf(blame + n, sizeof blame - (size_t)n, format, args);
    va_end(args);
    return false;
}

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            return blamed(__LINE__, "%s", #condition);                                                                 \
    } while (0)

#define EXPECT_EQ(a, b)                                                                                                \
    do {                                                                                                               \
        long long left_ = (long long)(a), right_ = (long long)(b);                                                     \
        if (left_ != right_)                                                                                           \
            return blamed(__LINE__, "%s == %s: %lld, %lld", #a, #b, left_, right_);                                    \
    } while (0)

static bool is_as(const struct model *m)
{
    jnq_counters c = counters(q);
    uint64_t redelivered = c.redeliveries + m->uncounted;
    return c.puts == m->puts && c.takes == m->takes && c.dones == m->dones && c.queued == m->count &&
           c.unfinished == unfinished(m) && q->sh->ended == m->ended && !q->sh->cut == !m->cut &&
           c.dead_letters == m->dead_letters && c.foreign == m->foreign &&
           (redelivered == m->redelivered || redelivered == m->redelivered - m->fresh);
}

/* The entry of a holder, if it has one. */
static bool find_entry(unsigned holder, jnq_holder *out)
{
    uint32_t pid = (uint32_t)model->holders[holder].pid;
    for (uint32_t number = 1;; number++) {
        int rc = jnq_read_holder(q, number, out);
        if (rc == JNQ_TIMEOUT)
            return false;
        if (rc == JNQ_OK && out->pid == pid)
            return true;
    }
}

/* How many tasks the operation is about to report in its next step. */
static unsigned under_report(const struct scenario *s, int n)
{
    effect *next = n < EFFECTS ? s->effects[n] : NULL;
    return next == finishes ? 1 : next == finishes_two ? 2 : 0;
}

/* The words by which others can tell that are written before the step. */
static bool is_about_to(const struct scenario *s, int n)
{
    struct model early = *model;
    if (!under_report(s, n) || model->foreign)
        return false;
    s->effects[n](&early, s);
    model->foreign = early.foreign;
    bool is = is_as(model);
    model->foreign &= is;
    return is;
}

/* How many steps of the operation of the holder, which is dead, took effect, which the model follows; -1: the queue is
 * as it must never be. */
static int settle(const struct scenario *s, unsigned holder)
{
    jnq_holder entry;
    int n = 0;
    doer = holder;
    while (!is_as(model) && !is_about_to(s, n)) {
        if (n == EFFECTS || !s->effects[n]) {
            n = -1;
            break;
        }
        s->effects[n++](model, s);
    }
    doer = PARENT;
    model->holders[holder].dead = true;
    model->holders[holder].clean = find_entry(holder, &entry) && entry.exit == EXIT_CLEAN;
    if (n >= 0) {
        model->holders[holder].under = under_report(s, n);
        model->uncounted = model->redelivered - counters(q).redeliveries;
        model->fresh = 0;
    }
    return n;
}

/* The same beside a sleeper, which changes another word. */
static int settle_beside(const struct scenario *s)
{
    struct model after = *model;
    doer = VICTIM;
    s->effects[0](&after, s);
    doer = PARENT;
    jnq_counters c = counters(q);
    uint64_t is = after.puts != model->puts ? c.puts : after.takes != model->takes ? c.takes : c.dones;
    uint64_t was = after.puts != model->puts ? model->puts : after.takes != model->takes ? model->takes : model->dones;
    uint64_t by = after.puts - model->puts + after.takes - model->takes + after.dones - model->dones;
    if (is != was)
        *model = after;
    model->foreign = c.foreign;
    model->holders[VICTIM].dead = true;
    model->holders[VICTIM].under = is == was ? under_report(s, 0) : 0;
    if (is == was)
        return 0;
    return is == was + by ? 1 : -1;
}

static bool put_and_get(struct item item, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        EXPECT_EQ(put(an_item(item.bytes, item.name + i), JNQ_NOW), JNQ_OK);
    EXPECT_EQ(jnq_qsize(q), n);
    for (unsigned i = 0; i < n; i++) {
        EXPECT(holds(jnq_get(q, &box, JNQ_NOW), an_item(item.bytes, item.name + i)));
        EXPECT_EQ(done(), JNQ_OK);
        EXPECT_EQ(box.taken, 0);
    }
    return true;
}

static const uint64_t lengths[] = {INTEGER, 20, LARGE, 0, JNQ_INLINE_BYTES, 30000};
#define LENGTHS (sizeof lengths / sizeof *lengths)

/* Of this process. */
static bool workload(void)
{
    unsigned room = jnq_maxsize(q) ? (unsigned)jnq_maxsize(q) : 9, items = 0, n;
    jnq_counters before = counters(q);
    for (unsigned i = 0; i < LENGTHS; i++, items += n) {
        n = room < 2 ? 1 : 2;
        if (!put_and_get(an_item(lengths[i], i), n))
            return false;
    }
    n = room < 6 ? room : 6;
    if (!put_and_get(an_item(LARGE, 0), n)) /* all of them in memory at once */
        return false;
    items += n;
    for (unsigned left = 9; left; left -= n, items += n) { /* goes on to another block */
        n = left < room ? left : room;
        if (!put_and_get(an_item(JNQ_INLINE_BYTES, left), n))
            return false;
    }
    jnq_counters after = counters(q);
    EXPECT_EQ(after.puts, before.puts + items);
    EXPECT_EQ(after.takes, before.takes + items);
    EXPECT_EQ(after.dones, before.dones + items);
    return true;
}

#define SHARED_ITEMS 50

static void put_many(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < SHARED_ITEMS; i++) {
        int rc;
        while ((rc = put(an_item(lengths[i % LENGTHS], i), JNQ_FOREVER)) == JNQ_INTERRUPTED)
            ;
        CHECK_EQ(rc, JNQ_OK);
    }
}

static bool get_many(void)
{
    for (unsigned i = 0; i < SHARED_ITEMS; i++) {
        int64_t answer;
        while ((answer = jnq_get(q, &box, JNQ_FOREVER)) == JNQ_INTERRUPTED)
            ;
        EXPECT(holds(answer, an_item(lengths[i % LENGTHS], i)));
        EXPECT_EQ(done(), JNQ_OK);
    }
    return true;
}

static void get_many_or_fail(void *arg)
{
    (void)arg;
    if (!get_many())
        fail(__FILE__, __LINE__, blame);
}

/* Of this process and another, once in each direction. */
static bool shared_workload(void)
{
    jnq_counters before = counters(q);
    pid_t pid = start_child(put_many, NULL);
    bool whole = get_many();
    EXPECT_EQ(wait_status(pid), 0);
    if (!whole)
        return false;
    pid = start_child(get_many_or_fail, NULL);
    put_many(NULL);
    uint64_t since = 0;
    int rc;
    while ((rc = jnq_join(q, &since, JNQ_FOREVER)) == JNQ_INTERRUPTED)
        ;
    EXPECT_EQ(rc, JNQ_OK);
    EXPECT_EQ(wait_status(pid), 0);
    jnq_counters after = counters(q);
    EXPECT_EQ(after.puts, before.puts + 2 * SHARED_ITEMS);
    EXPECT_EQ(after.takes, before.takes + 2 * SHARED_ITEMS);
    EXPECT_EQ(after.dones, before.dones + 2 * SHARED_ITEMS);
    EXPECT_EQ(after.unfinished, 0);
    return true;
}

/* After the dead were found: the figures of those who have tasks in hand are right. */
static bool knows_holders(void)
{
    bool crowded = q->sh->procs.graves >= GRAVES_MAX;
    for (unsigned holder = PARENT; holder < HOLDERS; holder++) {
        jnq_holder found;
        const struct holder *h = model->holders + holder;
        uint64_t hands = hands_of(model, holder);
        if (!h->pid)
            continue;
        bool known = find_entry(holder, &found);
        if (!known && h->dead) {
            EXPECT(!hands || !unfinished(model) || model->foreign || crowded || model->on_death != JNQ_RAISE);
            continue;
        }
        EXPECT(known);
        EXPECT_EQ(found.dead, h->dead);
        EXPECT(!h->dead || (model->on_death == JNQ_RAISE && unfinished(model)));
        EXPECT(!found.unsure || h->dead);
        EXPECT(hands || found.unsure || !h->dead);
        uint64_t under = found.unsure ? h->under : 0;
        EXPECT_EQ(found.tasks, hands < under ? 0 : hands - under);
    }
    return true;
}

/* Tasks are lost exactly when nobody can finish them any more. */
static bool knows_lost(void)
{
    uint64_t since = 0;
    bool lost = model->on_death == JNQ_RAISE && !model->count && unfinished(model) && !hands_of(model, PARENT) &&
                !model->foreign;
    EXPECT_EQ(jnq_join(q, &since, JNQ_NOW), lost ? JNQ_LOST : unfinished(model) ? JNQ_TIMEOUT : JNQ_OK);
    return true;
}

/* As a reap has done that came to the end. It looks at those first whose figures say that they have something: so if
 * several died, the front list tells in which order they were found. */
static void inherit_all(void)
{
    unsigned order[HOLDERS], n = 0;
    bool known[HOLDERS] = {false};
    for (uint64_t word = model->cut ? 0 : q->sh->head.front; word >> (64 - LIST_BITS);) {
        const struct jnq_cell *cell = unit_at(q, word & ((uint64_t)-1 >> LIST_BITS));
        for (uint64_t i = 0; i < model->in_hands; i++) {
            unsigned holder = model->hands[i].holder;
            if (cell->record.number != model->hands[i].item.name || known[holder])
                continue;
            known[holder] = true;
            order[n++] = holder;
        }
        word = cell->next;
    }
    for (unsigned holder = HOLDERS; holder-- > VICTIM;)
        if (!known[holder] && model->holders[holder].dead)
            order[n++] = holder;
    while (n--)
        while (inherit_step(model, order[n], !model->holders[order[n]].clean))
            ;
    model->fresh = 0;
}

/* Frees what the dead held, and redelivers their tasks; nothing else changes. */
static bool is_reaped(void)
{
    EXPECT_EQ(jnq_reap(q), JNQ_OK);
    finds_clean(model, NULL);
    inherit_all();
    EXPECT_EQ(jnq_check(q), 0);
    EXPECT(is_as(model));
    EXPECT_EQ(counters(q).processes, 1);
    return true;
}

static bool letters_are_right(void)
{
    uint64_t cursor = 0;
    jnq_letter letter;
    for (uint64_t i = 0; i < model->dead_letters; i++) {
        struct item item = model->letters[i];
        EXPECT_EQ(jnq_read_letter(q, &cursor, &letter), JNQ_OK);
        EXPECT_EQ(letter.number, item.name);
        EXPECT_EQ(letter.deaths, item.deaths);
        EXPECT_EQ(letter.form, item.bytes == INTEGER ? JNQ_INTEGER : JNQ_PICKLE);
        int64_t integer = integer_of(item.name);
        EXPECT_EQ(letter.bytes, (letter.form == JNQ_INTEGER) ? sizeof integer : item.bytes);
        EXPECT(!memcmp(letter.payload, (letter.form == JNQ_INTEGER) ? (char *)&integer : text_of(item.name),
                       letter.bytes));
        EXPECT(letter.pid[letter.deaths < JNQ_LETTER_DEATHS ? letter.deaths - 1 : JNQ_LETTER_DEATHS - 1] != 0);
    }
    EXPECT_EQ(jnq_read_letter(q, &cursor, &letter), JNQ_EMPTY);
    return true;
}

static bool get_and_finish(void)
{
    struct item item = model->items[0];
    EXPECT(holds(jnq_get(q, &box, JNQ_NOW), item));
    takes(model, NULL);
    if (box.lease) {
        const struct jnq_cell *cell = unit_at(q, box.lease);
        EXPECT_EQ(box.number, item.name);
        EXPECT_EQ(cell->deaths, item.deaths);
        EXPECT_EQ(cell->deaths_then, item.deaths + 1);
    }
    EXPECT_EQ(done(), JNQ_OK);
    finishes(model, NULL);
    EXPECT(is_as(model));
    return true;
}

/* The tasks that we have in hand are ours, until they are done. */
static bool is_ours(void)
{
    for (; our_leases; our_leases--) {
        uint64_t lease = ours[our_leases - 1].lease, number = ours[our_leases - 1].number;
        EXPECT_EQ(jnq_finish(q, lease, number), JNQ_OK);
        model->in_hand.name = number;
        finishes(model, NULL);
        EXPECT_EQ(jnq_finish(q, lease, number), JNQ_NOT_OURS);
        EXPECT(is_as(model));
    }
    return true;
}

/* Every item that is queued is whole and in its place. */
static bool is_drained(void)
{
    if (model->since) { /* a zero is seen even after another put has ended it */
        if (!model->ended) {
            EXPECT_EQ(put(an_item(20, model->next), JNQ_NOW), JNQ_OK);
            appends(model, &(struct scenario){.bytes = 20});
        }
        EXPECT_EQ(jnq_join(q, &model->since, JNQ_NOW), model->zero ? JNQ_OK : JNQ_TIMEOUT);
        model->since = 0;
    }
    if (model->segment_is_full && !is_ours())
        return false;
    while (model->count)
        if (!get_and_finish())
            return false;
    EXPECT_EQ(jnq_get(q, &box, JNQ_NOW), model->ended ? JNQ_SHUTDOWN : JNQ_EMPTY);
    return true;
}

/* The same; and what is in the hands of others, who are dead, is reported done. */
static bool is_emptied(void)
{
    uint64_t since = 0;
    if (!is_drained())
        return false;
    if (model->on_death == JNQ_REDELIVER) {
        if (!is_ours() || !letters_are_right())
            return false;
    } else {
        while (model->tasks > model->dones) {
            EXPECT_EQ(jnq_task_done(q, 1), JNQ_OK);
            finishes(model, NULL);
        }
        EXPECT(is_as(model));
        EXPECT_EQ(jnq_task_done(q, 1), JNQ_TOO_MANY_DONE);
    }
    EXPECT_EQ(unfinished(model), 0);
    EXPECT_EQ(jnq_join(q, &since, JNQ_NOW), JNQ_OK);
    return true;
}

/* The dead not looked for, as if they had died just now. */
static bool is_drained_at_once(void)
{
    q->sh->procs.seen_ns = START_NS;
    time_ns = START_NS;
    tick_ns = 1;
    bool is = is_drained();
    tick_ns = 0;
    return is;
}

/* Of a queue that is empty. */
static bool is_usable(bool with_others)
{
    if (model->ended) {
        EXPECT_EQ(jnq_put_integer(q, 1, JNQ_NOW), JNQ_SHUTDOWN);
        return true;
    }
    jnq_counters before = counters(q);
    if (!workload() || (with_others && !shared_workload()))
        return false;
    uint64_t items = counters(q).puts - before.puts;
    model->puts += items, model->takes += items, model->dones += items, model->tasks += items;
    return true;
}

static bool leaks_nothing(void)
{
    uint64_t letters = 0;
    if (blank.taken) { /* whoever else had it is dead or done; we still look at it */
        EXPECT(!memcmp(blank.payload, blank_text + JNQ_PREFACE_BYTES, BLANK_BYTES));
        jnq_release(&blank);
    }
    for (uint64_t i = 0; i < model->dead_letters; i++) {
        uint64_t bytes = model->letters[i].bytes == INTEGER ? sizeof(int64_t) : model->letters[i].bytes;
        uint64_t copied = bytes > JNQ_INLINE_BYTES ? 0 : bytes, unit = q->unit_bytes;
        letters += (sizeof(struct jnq_cell) + copied + unit - 1) / unit * unit;
        letters += (bytes - copied + unit - 1) / unit * unit;
    }
    EXPECT_EQ(counters(q).used_bytes, (model->ended && !model->cut ? idle_bytes(q) : baseline) + letters);
    return true;
}

static bool polls(enum jnq_wait what, short event)
{
    struct pollfd one = {.fd = q->ends[what].fd, .events = event};
    CHECK_OP(poll(&one, 1, 0), >=, 0);
    return one.revents & event;
}

/* The pipes that we have asked for tell the truth. */
static bool shows_truth(void)
{
    if (!q->ends[JNQ_IN_GET].asked)
        return true;
    EXPECT_EQ(polls(JNQ_IN_GET, POLLIN), model->count || model->ended);
    EXPECT_EQ(polls(JNQ_IN_PUT, POLLOUT), !q->maxsize || model->count < q->maxsize || model->ended);
    EXPECT_EQ(polls(JNQ_IN_JOIN, POLLIN), !unfinished(model));
    return true;
}

/* What is counted for each process is at most what happened. */
static bool counts_no_more_than_happened(void)
{
    jnq_counters all = counters(q);
    uint64_t puts = 0;
    for (uint32_t owner = 1; owner <= procs_count(q); owner++) {
        jnq_holder holder;
        if (jnq_read_holder(q, owner, &holder) == JNQ_OK)
            puts += holder.puts;
    }
    EXPECT(puts <= all.puts);
    EXPECT(all.peak_bytes >= baseline);
    for (uint64_t number = 0; number <= all.deaths + 1; number++) {
        jnq_death death;
        int rc = jnq_read_death(q, number, &death);
        EXPECT(rc == JNQ_EMPTY || (rc == JNQ_OK && number && number <= all.deaths && death.pid));
    }
    return true;
}

/* Of what the dead have left. Others find it either in order or as it is: `manner` says how. */
static bool is_whole(unsigned manner)
{
    bool reaped_first = manner % 2, checked_first = manner % 4 / 2, with_others = manner % FORKED_EVERY == 0;
    if (checked_first)
        EXPECT_EQ(jnq_check(q), 0);
    if (q->sh->asked && with_others)
        asked();
    ready_look(q);
    if (!shows_truth() || !counts_no_more_than_happened())
        return false;
    if (reaped_first && !(is_reaped() && knows_holders() && (checked_first || knows_lost())))
        return false;
    if (model->on_death == JNQ_REDELIVER && !reaped_first && !(is_drained_at_once() && is_reaped()))
        return false;
    return is_emptied() && shows_truth() && is_usable(with_others) && is_reaped() && shows_truth() && leaks_nothing();
}

/* The sleeper, and who else comes too late. */
static bool wakes(const struct scenario *s, pid_t sleeper, int happened)
{
    if (!happened) {
        acting = s;
        EXPECT_EQ(s->operation(), s->result);
        if (box.taken)
            jnq_release(&box);
        s->effects[0](model, s);
    }
    EXPECT_EQ(wait_status(sleeper), 0);
    doer = SLEEPER;
    if (s->awake)
        s->awake(model, s);
    model->holders[SLEEPER] = (struct holder){.pid = sleeper, .dead = true};
    doer = PARENT;
    return true;
}

/* --- kill points ------------------------------------------------------------------------------------------- */

static struct scenario *scenario_named(const char *name);

/* What a kill point plays with. */
struct stage {
    pid_t victim, sleeper;
};

/* All is as the scenario wants it, the earlier deaths included, and the victim stands before its operation. False if
 * it did not come to that. */
static bool set(struct scenario *s, struct stage *stage)
{
    pid_t earlier[4];
    int on_death = s->on_death ? s->on_death : JNQ_RAISE;
    uint32_t max_deliveries = s->max_deliveries ? s->max_deliveries : UINT32_MAX;
    *model = (struct model){.on_death = on_death, .max_deliveries = max_deliveries};
    model->holders[PARENT].pid = getpid();
    *outcome = -1000;
    mode = on_death;
    q = s->segment ? make_small_queue(s->maxsize, s->segment) : make_mortal_queue(s->maxsize, on_death, max_deliveries);
    baseline = BLOCK_BYTES;
    our_leases = 0;
    doer = PARENT;
    if (s->setup)
        s->setup();
    acting = s;
    if (s->sleeper) {
        stage->sleeper = start_child(run_sleeper, NULL);
        while (state_of(stage->sleeper) != 'S' ||
               !(load_sc(&q->sh->items.announced) | load_sc(&q->sh->space.announced) | load_sc(&q->sh->zero.announced)))
            sched_yield();
    }
    /* All begin before anybody dies: who comes buries the dead. */
    stage->victim = begin(s, VICTIM);
    struct item in_hand = model->in_hand;
    for (unsigned i = 0; i < 4 && s->firsts[i].in; i++)
        earlier[i] = begin(scenario_named(s->firsts[i].in), EARLIER + i);
    if (on_death == JNQ_REDELIVER)
        q->sh->procs.seen_ns = START_NS; /* the dead are looked for only by those who come later */
    for (unsigned i = 0; i < 4 && s->firsts[i].in; i++) {
        struct path *path = &s->firsts[i].path;
        if (path->via) {
            if (go(earlier[i], path, s->firsts[i].at) == CRASHED)
                return blamed(__LINE__, "an earlier victim crashed");
        } else {
            if (!explore(earlier[i], path, s->firsts[i].when))
                return blamed(__LINE__, "the moment in %s never came", s->firsts[i].in);
            plan(path);
            s->firsts[i].at = path->steps;
        }
        kill_child(earlier[i]);
        if (settle(scenario_named(s->firsts[i].in), EARLIER + i) < 0)
            return blamed(__LINE__, "neither as before nor as after %s", s->firsts[i].in);
    }
    model->in_hand = in_hand;
    return true;
}

static void put_down(pid_t pid)
{
    if (!pid || waitpid(pid, NULL, WNOHANG))
        return; /* there is none, or it is dead */
    kill(pid, SIGKILL);
    wait_status(pid);
}

static void strike(const struct stage *stage)
{
    put_down(stage->victim);
    put_down(stage->sleeper);
    under_test = NULL;
    jnq_detach(q);
    q = NULL;
}

static void show_place(uint64_t pc)
{
    Dl_info info;
    if (!dladdr((void *)pc, &info) || !info.dli_fname)
        return;
    uint64_t offset = pc - (uint64_t)(uintptr_t)info.dli_fbase;
    fprintf(stderr, "  at %s + %#llx, in %s\n", info.dli_fname, (unsigned long long)offset,
            info.dli_sname ? info.dli_sname : "?");
    char command[600];
    snprintf(command, sizeof command, "addr2line -f -i -p -e '%s' %#llx >&2 2>/dev/null", info.dli_fname,
             (unsigned long long)offset);
    fflush(NULL);
    if (system(command))
        fprintf(stderr, "  (no addr2line)\n");
}

struct tally {
    unsigned number; /* of the kill point: decides how it is judged */
    unsigned points, not, half, wholly, astray, failures;
};

static struct tally total;
static char place[100]; /* what a failed check shows */

static void set_place(const char *name, const char *when, unsigned k)
{
    snprintf(place, sizeof place, "%s, %s %u", name, when, k);
    running = place;
    alarm(POINT_SECONDS);
}

/* What is left of the victim, which is dead. */
static bool judge(const struct scenario *s, const struct stage *stage, struct tally *tally)
{
    int happened = s->sleeper ? settle_beside(s) : settle(s, VICTIM);
    if (happened < 0)
        return blamed(__LINE__, "neither as before nor as after");
    if (!happened)
        tally->not++;
    else if (happened < EFFECTS && s->effects[happened])
        tally->half++;
    else
        tally->wholly++;
    if (s->sleeper && !wakes(s, stage->sleeper, happened))
        return false;
    return is_whole(tally->number);
}

static void report(const struct scenario *s, unsigned k, unsigned steps, uint64_t pc, struct tally *tally)
{
    tally->failures++;
    fprintf(stderr, "%s: killed before instruction %u of %u: %s\n", s->name, k, steps, blame);
    if (pc)
        show_place(pc);
    dump(q);
    fprintf(stderr, "  the model: puts %llu takes %llu dones %llu queued %llu unfinished %llu; check %d\n",
            (unsigned long long)model->puts, (unsigned long long)model->takes, (unsigned long long)model->dones,
            (unsigned long long)model->count, (unsigned long long)(model->tasks - model->dones), jnq_check(q));
}

/* Kills the victim before the k-th instruction, or, without a path, while it sleeps. */
static void try_point(struct scenario *s, const struct path *path, unsigned k, struct tally *tally)
{
    struct stage stage = {0};
    uint64_t pc = 0;
    set_place(s->name, path ? "killed before" : "killed asleep", k);
    sleeping_long = !path;
    bool fine = set(s, &stage);
    if (fine && path) {
        enum travel travel = go(stage.victim, path, k);
        if (travel == CRASHED) {
            fine = blamed(__LINE__, "the victim crashed");
        } else {
            pc = pc_of(stage.victim);
            tally->astray += travel == ASTRAY;
            kill_child(stage.victim);
        }
    } else if (fine) {
        trace(PTRACE_CONT, stage.victim, 0, 0);
        while (state_of(stage.victim) != 'S')
            sched_yield();
        kill_child(stage.victim);
    }
    tally->points++;
    tally->number++;
    if (!fine || !judge(s, &stage, tally))
        report(s, k, path ? path->steps : 0, pc, tally);
    strike(&stage);
}

/* Finds the path of the victim, which comes to the end; only here the operation's result is looked at. */
static bool first_run(struct scenario *s, struct path *path)
{
    struct stage stage = {0};
    struct tally tally = {0};
    set_place(s->name, "not killed", 0);
    sleeping_long = false;
    bool fine = set(s, &stage) && (explore(stage.victim, path, NULL) || blamed(__LINE__, "the victim crashed"));
    if (fine) {
        kill_child(stage.victim);
        if (*outcome != s->result)
            fine = blamed(__LINE__, "result %lld instead of %lld", (long long)*outcome, (long long)s->result);
        else if (!judge(s, &stage, &tally))
            fine = false;
        else if (s->effects[0] && !tally.wholly)
            fine = blamed(__LINE__, "it did not happen");
    }
    if (!fine)
        report(s, path->steps, path->steps, 0, &tally);
    else
        plan(path);
    strike(&stage);
    return fine;
}

static void drop_path(struct path *path)
{
    free(path->pc);
    free(path->points);
    free(path->nth);
    free(path->via);
    *path = (struct path){0};
}

static void show(const char *name, unsigned steps, const struct tally *tally, int64_t began)
{
    alarm(0);
    printf("%-34s %6u instructions %6u kill points: %6u before, %6u after", name, steps, tally->points, tally->not,
           tally->wholly);
    if (tally->half)
        printf(", %u in between", tally->half);
    if (tally->astray)
        printf(", %u astray", tally->astray);
    printf(", %u failures; %.1f s\n", tally->failures, (double)(event_now() - began) / SECOND);
    fflush(stdout);
    total.points += tally->points;
    total.failures += tally->failures;
}

/* The path of a reap that has everything to repair, for the second of two victims. */
static const struct path *reap_path(void)
{
    static struct path path;
    if (!path.steps && !first_run(scenario_named("reap_after_all"), &path))
        fail(__FILE__, __LINE__, "no reap");
    return &path;
}

/* Any two deaths: one at this operation's instructions, the other at a random one of the reap that follows. */
static void run_pairs(const struct scenario *s, const char *name, const struct path *path, unsigned stride,
                      unsigned offset)
{
    struct scenario second = *scenario_named("reap");
    struct tally tally = {.number = offset / stride};
    uint64_t random = random_state(offset);
    const struct path *then = reap_path();
    int64_t began = event_now();
    unsigned n = 0;
    second.name = name;
    second.maxsize = s->maxsize;
    second.segment = s->segment;
    second.setup = s->setup;
    second.on_death = s->on_death;
    second.max_deliveries = s->max_deliveries;
    memcpy(second.firsts, s->firsts, sizeof second.firsts);
    while (second.firsts[n].in)
        n++;
    CHECK_OP(n, <, 4);
    for (unsigned i = 0; i < EFFECTS; i++)
        second.effects[i] = s->on_death == JNQ_REDELIVER ? inherits : finds_clean;
    for (uint64_t i = offset % stride; i < path->distinct * MANNERS && tally.failures < SHOWN_FAILURES; i += stride) {
        uint32_t k = path->points[i / MANNERS];
        second.firsts[n] = (struct death){.in = s->name, .path = *path, .at = k};
        try_point(&second, then, (unsigned)below(&random, then->steps + 1), &tally);
    }
    show(name, path->steps, &tally, began);
}

static void run_points(struct scenario *s, const struct path *path, unsigned stride, unsigned offset, int64_t began)
{
    struct tally tally = {.number = offset / stride};
    for (uint64_t i = offset % stride; i < path->distinct * MANNERS && tally.failures < SHOWN_FAILURES; i += stride)
        try_point(s, path, path->points[i / MANNERS], &tally);
    if (s->sleeps && tally.failures < SHOWN_FAILURES)
        try_point(s, NULL, 0, &tally);
    show(s->name, path->steps, &tally, began);
}

static void run_scenario(struct scenario *s, unsigned stride, unsigned offset, const char *word)
{
    char name[64];
    snprintf(name, sizeof name, "%s+reap", s->name);
    bool points = strstr(s->name, word),
         pairs = strstr(name, word) && (!s->firsts[0].in || s->operation == reaps) && !s->sleeper;
    struct path path = {0};
    int64_t began = event_now();
    if (!points && !pairs)
        return;
    if (first_run(s, &path)) {
        if (points)
            run_points(s, &path, stride, offset, began);
        if (pairs)
            run_pairs(s, name, &path, PAIRS * stride, offset);
    } else {
        total.failures++;
    }
    for (unsigned i = 0; i < 4; i++)
        drop_path(&s->firsts[i].path);
    drop_path(&path);
}

/* --- moments ----------------------------------------------------------------------------------------------- */

static bool held(pthread_mutex_t *lock)
{
    if (pthread_mutex_trylock(lock))
        return true;
    pthread_mutex_unlock(lock);
    return false;
}

static bool item_put(struct jnq_shared *now, const struct jnq_shared *then)
{
    return now->puts != then->puts && held(&now->tail.lock);
}

static bool block_linked(struct jnq_shared *now, const struct jnq_shared *then)
{
    return now->tail.block != then->tail.block;
}

static bool item_taken(struct jnq_shared *now, const struct jnq_shared *then)
{
    return now->takes != then->takes && held(&now->head.lock);
}

static bool block_left(struct jnq_shared *now, const struct jnq_shared *then)
{
    return now->head.block != then->head.block;
}

static bool front_left(struct jnq_shared *now, const struct jnq_shared *then)
{
    return now->head.front != then->head.front && held(&now->head.lock);
}

static bool hints_changed(struct jnq_shared *now, const struct jnq_shared *then)
{
    bool changed = now->heap.top != then->heap.top || now->heap.rover[0] != then->heap.rover[0] ||
                   memcmp(now->heap.recent, then->heap.recent, sizeof now->heap.recent);
    return changed && held(&now->heap.lock);
}

static bool extent_staged(struct jnq_shared *now, const struct jnq_shared *then)
{
    return now->heap.used != then->heap.used;
}

static bool entry_counted(struct jnq_shared *now, const struct jnq_shared *then)
{
    return now->procs.count != then->procs.count && held(&now->procs.lock);
}

static bool dead_buried(struct jnq_shared *now, const struct jnq_shared *then)
{
    return now->procs.deaths != then->procs.deaths && held(&now->procs.lock);
}

static bool marking(struct jnq_shared *now, const struct jnq_shared *then)
{
    (void)then;
    return held(&now->heap.lock);
}

static bool queue_cut(struct jnq_shared *now, const struct jnq_shared *then) { return now->cut != then->cut; }

static bool step_noted(struct jnq_shared *now, const struct jnq_shared *then)
{
    return now->head.note.kind && now->takes == then->takes && now->head.front == then->head.front &&
           now->dones == then->dones;
}

static bool report_made(struct jnq_shared *now, const struct jnq_shared *then)
{
    return now->dones != then->dones && held(&now->head.lock);
}

/* Its own word says so, that of all does not yet. */
static bool pipe_shown(struct jnq_shared *now, const struct jnq_shared *then)
{
    return now->ready[JNQ_IN_GET].shown != then->ready[JNQ_IN_GET].shown;
}

static bool reporting(struct jnq_shared *now, const struct jnq_shared *then)
{
    const struct jnq_proc *procs = (const struct jnq_proc *)((const char *)now + now->procs_off);
    bool any = false;
    for (uint64_t i = 0; i < now->procs.count; i++)
        any |= procs[i].dones > DONES;
    return any && now->dones == then->dones;
}

static bool tasks_moved(struct jnq_shared *now, const struct jnq_shared *then)
{
    return now->head.front != then->head.front && held(&now->heap.lock);
}

static bool letters_made(struct jnq_shared *now, const struct jnq_shared *then)
{
    return now->head.dead != then->head.dead && held(&now->heap.lock);
}

/* --- the table --------------------------------------------------------------------------------------------- */

#define DEATH(scenario, moment) {.in = scenario, .when = moment}

#define REDELIVERS .on_death = JNQ_REDELIVER

static struct scenario scenarios[] = {
    /* put */
    {"put", .operation = puts_now, .bytes = 20, .effects = {appends}},
    {"put_empty", .operation = puts_now, .bytes = 0, .effects = {appends}, .setup = short_items},
    {"put_longest_inline", .operation = puts_now, .bytes = JNQ_INLINE_BYTES, .effects = {appends}},
    {"put_integer", .operation = puts_now, .bytes = INTEGER, .effects = {appends}},
    {"put_large", .operation = puts_now, .bytes = LARGE, .effects = {appends}},
    {"put_larger", .operation = puts_now, .bytes = LONGEST, .effects = {appends}},
    {"put_large_warm", .setup = fragmented, .operation = puts_now, .bytes = LARGE, .effects = {appends}},
    {"put_growing", .setup = full_block, .operation = puts_now, .bytes = JNQ_INLINE_BYTES, .effects = {appends}},
    {"put_large_growing", .setup = brimful, .operation = puts_now, .bytes = LARGE, .effects = {appends}},
    {"put_large_outrun", .setup = outrun, .operation = puts_now, .bytes = LARGE, .effects = {appends}},
    {"put_for_somebody", .setup = announced, .operation = puts_now, .bytes = 20, .effects = {appends}},
    {"put_for_long_sleepers", .setup = deep, .operation = puts_now, .bytes = 20, .effects = {appends}},
    {"put_ending_a_zero", .setup = unrecorded_zero, .operation = puts_now, .bytes = 20, .effects = {appends}},
    {"put_refused_full", .maxsize = 2, .setup = integers, .operation = puts_now, .bytes = LARGE, .result = JNQ_FULL},
    {"put_refused_ended", .setup = ended, .operation = puts_now, .bytes = LARGE, .result = JNQ_SHUTDOWN},
    {"put_refused_no_memory", .segment = 4 << 20, .setup = exhausted, .operation = puts_now, .bytes = LONGEST,
     .result = JNQ_NO_MEMORY},
    {"put_scattered", .segment = 4 << 20, .setup = scattered, .operation = puts_now, .bytes = LONGEST,
     .effects = {appends}},
    {"put_waiting", .maxsize = 2, .setup = integers, .operation = puts_soon, .bytes = 20, .result = JNQ_FULL,
     .sleeps = true},
    {"put_large_waiting", .maxsize = 2, .setup = integers, .operation = puts_soon, .bytes = LARGE, .result = JNQ_FULL,
     .sleeps = true},
    /* get */
    {"get", .setup = short_items, .operation = gets_now, .result = 20, .effects = {takes}},
    {"get_integer", .setup = integers, .operation = gets_now, .result = sizeof(int64_t), .effects = {takes}},
    {"get_large", .setup = large_items, .operation = gets_now, .result = JNQ_LARGE, .effects = {takes}},
    {"get_returned", .setup = returned_items, .operation = gets_now, .result = 20, .effects = {takes}},
    {"get_returned_large", .setup = returned_large, .operation = gets_now, .result = JNQ_LARGE, .effects = {takes}},
    {"get_leaving_a_block", .setup = spent_block, .operation = gets_now, .result = 4000, .effects = {takes}},
    {"get_large_leaving_a_block", .setup = spent_block_then_large, .operation = gets_now, .result = JNQ_LARGE,
     .effects = {takes}},
    {"get_for_somebody", .setup = announced_backlog, .operation = gets_now, .result = 20, .effects = {takes}},
    {"get_for_long_sleepers", .setup = deep_items, .operation = gets_now, .result = 20, .effects = {takes}},
    {"get_empty", .operation = gets_now, .result = JNQ_EMPTY},
    {"get_ended", .setup = ended, .operation = gets_now, .result = JNQ_SHUTDOWN},
    {"get_waiting", .operation = gets_soon, .result = JNQ_EMPTY, .sleeps = true},
    {"get_waiting_for_long", .operation = gets_soon, .result = JNQ_EMPTY, .tick_ns = 400000000},
    /* unget, release */
    {"unget", .setup = short_items, .prepare = take_first, .prepared = takes, .operation = ungets,
     .effects = {returns}},
    {"unget_large", .setup = large_items, .prepare = take_first, .prepared = takes, .operation = ungets,
     .effects = {returns}},
    {"unget_again", .setup = returned_items, .prepare = take_first, .prepared = takes, .operation = ungets,
     .effects = {returns}},
    {"unget_reboxed", .setup = short_items, .prepare = take_to_rebox, .prepared = takes, .operation = ungets,
     .effects = {returns}},
    {"unget_cut", .setup = large_items, .prepare = take_and_cut, .prepared = takes_and_cuts, .operation = ungets,
     .effects = {finishes}},
    {"release", .setup = large_items, .prepare = take_first, .prepared = takes, .operation = releases},
    {"release_giving_back", .setup = overfull, .prepare = take_first, .prepared = takes, .operation = releases},
    /* what is put as it is */
    {"blank", .setup = short_items, .operation = makes_blank},
    {"give", .setup = short_items, .prepare = make_blank, .operation = gives_now, .bytes = GIVEN_BYTES,
     .effects = {appends}},
    {"give_refused_full", .maxsize = 2, .setup = integers, .prepare = make_blank, .operation = gives_now,
     .bytes = GIVEN_BYTES, .result = JNQ_FULL},
    {"give_redelivering", .setup = short_items, .prepare = make_blank, .operation = gives_now, .bytes = GIVEN_BYTES,
     .effects = {appends}, REDELIVERS},
    {"let_go", .prepare = prepare_given, .prepared = appends, .operation = lets_go, .bytes = GIVEN_BYTES},
    {"let_go_last", .prepare = prepare_taken, .prepared = appends_and_takes, .operation = lets_go,
     .bytes = GIVEN_BYTES},
    {"let_go_redelivering", .prepare = prepare_taken, .prepared = appends_and_takes, .operation = lets_go,
     .bytes = GIVEN_BYTES, REDELIVERS},
    {"get_given", .setup = give_one, .operation = gets_now, .result = JNQ_LARGE, .effects = {takes}},
    {"get_given_redelivering", .setup = give_one, .operation = gets_now, .result = JNQ_LEASED, .effects = {takes},
     REDELIVERS},
    {"get_let_go", .setup = give_and_let_go, .operation = gets_now, .result = JNQ_LARGE, .effects = {takes}},
    {"release_given", .setup = give_one, .prepare = take_first, .prepared = takes, .operation = releases},
    {"release_let_go", .setup = give_and_let_go, .prepare = take_first, .prepared = takes, .operation = releases},
    {"finish_given", .setup = give_one, .prepare = take_first, .prepared = takes, .operation = finishes_it,
     .effects = {finishes}, REDELIVERS},
    {"unget_given", .setup = give_one, .prepare = take_first, .prepared = takes, .operation = ungets,
     .effects = {returns}},
    {"shutdown_immediate_given", .setup = give_one, .operation = shuts_down_at_once, .effects = {ends, cuts}},
    {"reap_after_give", .setup = short_items, .operation = reaps, .firsts = {DEATH("give", NULL)}},
    {"reap_after_get_given", .setup = give_one, .operation = reaps, .firsts = {DEATH("get_given", NULL)}},
    {"reap_after_release_given", .setup = give_one, .operation = reaps, .firsts = {DEATH("release_given", NULL)}},
    /* task_done, join */
    {"task_done", .setup = two_in_hand, .operation = reports_done, .effects = {finishes}},
    {"task_done_two", .setup = two_in_hand, .operation = reports_two_done, .effects = {finishes_two}},
    {"task_done_to_zero", .setup = one_to_zero, .operation = reports_done, .effects = {finishes}},
    {"task_done_for_long_sleepers", .setup = deep_one_to_zero, .operation = reports_done, .effects = {finishes}},
    {"task_done_too_many", .operation = reports_done, .result = JNQ_TOO_MANY_DONE},
    {"join", .operation = joins_now},
    {"join_unfinished", .setup = two_in_hand, .operation = joins_now, .result = JNQ_TIMEOUT},
    {"join_waiting", .setup = one_to_zero, .operation = joins_soon, .result = JNQ_TIMEOUT, .sleeps = true},
    /* shutdown */
    {"shutdown", .setup = announced_backlog, .operation = shuts_down, .effects = {ends}},
    {"shutdown_for_long_sleepers", .setup = deep, .operation = shuts_down, .effects = {ends}},
    {"shutdown_immediate", .setup = backlog, .operation = shuts_down_at_once, .effects = {ends, cuts}},
    {"shutdown_immediate_ended", .setup = ended_backlog, .operation = shuts_down_at_once, .effects = {cuts}},
    {"shutdown_immediate_to_zero", .setup = announced, .operation = shuts_down_at_once, .effects = {ends, cuts}},
    /* coming and going */
    {"attach", .setup = short_items, .operation = attaches, .handle = INHERITED},
    {"enter_put", .setup = short_items, .operation = puts_now, .bytes = 20, .effects = {appends}, .handle = INHERITED},
    {"enter_get", .setup = backlog, .operation = gets_now, .result = 20, .effects = {takes}, .handle = INHERITED},
    {"detach", .setup = short_items, .operation = detaches},
    {"detach_inherited", .setup = short_items, .operation = detaches, .handle = INHERITED},
    /* looking */
    {"reap", .setup = backlog, .operation = reaps},
    {"check", .setup = backlog, .operation = checks},
    {"count", .setup = backlog, .operation = counts},
    /* a second death, in the repair after the first */
    {"put_asked", .setup = asked, .operation = puts_now, .bytes = 20, .effects = {appends}},
    {"put_asked_inherited", .setup = asked, .operation = puts_now, .bytes = 20, .effects = {appends},
     .handle = INHERITED},
    {"put_asked_filling", .maxsize = 2, .setup = one_asked, .operation = puts_now, .bytes = 20, .effects = {appends}},
    {"get_asked", .setup = one_asked, .operation = gets_now, .result = 20, .effects = {takes}},
    {"get_asked_of_many", .setup = items_asked, .operation = gets_now, .result = 20, .effects = {takes}},
    {"get_asked_leased", .setup = one_asked, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}},
    {"unget_asked", .setup = one_asked, .prepare = take_first, .prepared = takes, .operation = ungets,
     .effects = {returns}},
    {"task_done_asked", .setup = to_zero_asked, .operation = reports_done, .effects = {finishes}},
    {"shutdown_asked", .setup = asked, .operation = shuts_down, .effects = {ends}},
    {"shutdown_immediate_asked", .setup = items_asked, .operation = shuts_down_at_once, .effects = {ends, cuts}},
    {"put_asked_after_put_asked", .setup = asked, .operation = puts_now, .bytes = 20, .effects = {appends},
     .firsts = {DEATH("put_asked", pipe_shown)}},
    {"get_asked_after_put_asked", .setup = one_asked, .operation = gets_now, .result = 20, .effects = {takes},
     .firsts = {DEATH("put_asked", NULL)}},
    {"asks", .operation = asks},
    {"asks_too", .setup = items_asked, .operation = asks},
    {"asks_too_inherited", .setup = items_asked, .operation = asks, .handle = INHERITED},
    {"put_after_asking", .operation = puts_now, .bytes = 20, .effects = {appends}, .firsts = {DEATH("asks", NULL)}},

    {"put_after_put", .setup = short_items, .operation = puts_now, .bytes = 20, .effects = {appends},
     .firsts = {DEATH("put", item_put)}},
    {"put_after_growing", .setup = full_block, .operation = puts_now, .bytes = 20, .effects = {appends},
     .firsts = {DEATH("put_growing", block_linked)}},
    {"get_after_get", .setup = short_items, .operation = gets_now, .result = 0, .effects = {takes},
     .firsts = {DEATH("get", item_taken)}},
    {"get_after_leaving", .setup = spent_block, .operation = gets_now, .result = 4000, .effects = {takes},
     .firsts = {DEATH("get_leaving_a_block", block_left)}},
    {"unget_after_front", .setup = returned_items, .prepare = take_first, .prepared = takes, .operation = ungets,
     .effects = {returns}, .firsts = {DEATH("get_returned", front_left)}},
    {"put_large_after_put_large", .setup = fragmented, .operation = puts_now, .bytes = LARGE, .effects = {appends},
     .firsts = {DEATH("put_large", hints_changed)}},
    {"release_after_put_large", .setup = fragmented, .prepare = take_first, .prepared = takes, .operation = releases,
     .firsts = {DEATH("put_large", hints_changed)}},
    {"enter_after_enter", .setup = short_items, .operation = puts_now, .bytes = 20, .effects = {appends},
     .handle = INHERITED, .firsts = {DEATH("enter_put", entry_counted)}},
    {"shutdown_after_put_and_get", .setup = large_items, .operation = shuts_down_at_once, .effects = {ends, cuts},
     .firsts = {DEATH("put", item_put), DEATH("get_large", item_taken)}},
    {"shutdown_after_shutdown", .setup = backlog, .operation = shuts_down_at_once,
     .firsts = {DEATH("shutdown_immediate", queue_cut)}},
    {"reap_after_staging", .setup = backlog, .operation = reaps, .firsts = {DEATH("put_large", extent_staged)}},
    {"reap_after_lending", .setup = large_items, .operation = reaps, .firsts = {DEATH("get_large", NULL)}},
    {"reap_after_leaving", .setup = spent_block, .operation = reaps,
     .firsts = {DEATH("get_leaving_a_block", block_left)}},
    {"reap_after_cut", .setup = backlog, .operation = reaps, .firsts = {DEATH("shutdown_immediate", queue_cut)}},
    {"reap_after_reap", .setup = large_items, .operation = reaps,
     .firsts = {DEATH("get_large", NULL), DEATH("reap", marking)}},
    {"reap_after_all", .setup = full_block, .operation = reaps,
     .firsts = {DEATH("put_growing", block_linked), DEATH("get", item_taken), DEATH("put_large", hints_changed),
                DEATH("enter_put", dead_buried)}},
    {"enter_after_all", .setup = full_block, .operation = gets_now, .result = JNQ_INLINE_BYTES, .effects = {takes},
     .handle = INHERITED,
     .firsts = {DEATH("put_growing", block_linked), DEATH("get", item_taken), DEATH("put_large", hints_changed)}},
    {"get_waiting_after_put_large", .operation = gets_soon, .result = JNQ_EMPTY, .start_ns = 2 * SECOND,
     .firsts = {DEATH("put_large", extent_staged)}},
    /* with somebody who sleeps meanwhile */
    {"put_for_a_getter", .operation = puts_now, .bytes = 20, .effects = {appends}, .sleeper = sleeper_gets,
     .awake = takes},
    {"get_for_a_putter", .maxsize = 2, .setup = integers, .operation = gets_now, .result = sizeof(int64_t), .bytes = 20,
     .effects = {takes}, .sleeper = sleeper_puts, .awake = appends},
    {"task_done_for_a_joiner", .setup = one_to_zero, .operation = reports_done, .effects = {finishes},
     .sleeper = sleeper_joins},
    /* JNQ_RAISE: whose the unfinished tasks are */
    {"own_task_done", .setup = integers, .prepare = take_first, .prepared = takes, .operation = reports_done,
     .effects = {finishes}},
    {"own_task_done_of_two", .setup = short_items, .prepare = take_two, .prepared = takes_two,
     .operation = reports_done, .effects = {finishes}},
    {"own_two_tasks_done", .setup = integers, .prepare = take_two, .prepared = takes_two, .operation = reports_two_done,
     .effects = {finishes_two}},
    {"own_task_done_to_zero", .setup = joined_item, .prepare = take_first, .prepared = takes, .operation = reports_done,
     .effects = {finishes}},
    {"own_task_done_while_another", .setup = large_in_hand, .prepare = take_first, .prepared = takes,
     .operation = reports_done, .effects = {finishes}},
    {"last_get", .setup = joined_item, .operation = gets_now, .result = 20, .effects = {takes}},
    {"last_unget", .setup = joined_large, .prepare = take_first, .prepared = takes, .operation = ungets,
     .effects = {returns}},
    {"detach_holding", .setup = joined_item, .prepare = take_first, .prepared = takes, .operation = detaches,
     .effects = {turns_foreign}},
    {"detach_failed_holding", .setup = joined_item, .prepare = take_and_fail, .prepared = takes, .operation = detaches},
    {"depart_holding", .setup = joined_item, .prepare = take_first, .prepared = takes, .operation = departs,
     .result = EXIT_CLEAN},
    {"depart_taking", .setup = joined_item, .operation = takes_and_departs, .result = EXIT_CLEAN, .effects = {takes}},
    {"depart_failed_holding", .setup = joined_item, .prepare = take_first, .prepared = takes,
     .operation = departs_failed, .result = EXIT_FAILED},
    {"join_lost", .setup = one_lost, .operation = joins_now, .result = JNQ_LOST},
    {"join_lost_waiting", .setup = one_lost, .operation = joins_soon, .result = JNQ_LOST},
    {"join_lost_inherited", .setup = one_lost, .operation = joins_soon, .result = JNQ_LOST, .handle = INHERITED},
    {"join_finding_lost", .setup = joined_item, .operation = joins_soon, .result = JNQ_LOST, .start_ns = 2 * SECOND,
     .firsts = {DEATH("get", NULL)}},
    {"bury_clean", .setup = joined_item, .operation = reaps, .effects = {finds_clean},
     .firsts = {DEATH("depart_taking", NULL)}},
    {"bury", .setup = joined_item, .operation = reaps, .firsts = {DEATH("get", NULL)}},
    {"bury_two", .setup = integers, .operation = reaps,
     .firsts = {DEATH("get", item_taken), DEATH("get_integer", NULL)}},
    {"bury_unsure", .setup = integers, .operation = reaps, .firsts = {DEATH("own_task_done", reporting)}},
    {"bury_in_full_graveyard", .setup = graveyard, .operation = reaps, .firsts = {DEATH("gets_two", NULL)}},
    {"forget_graves", .setup = graves_to_forget, .operation = reaps},
    {"gets_two", .setup = short_items, .operation = gets_two, .result = 0, .effects = {takes, takes}},
    /* JNQ_REDELIVER */
    {"lease", .setup = short_items, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED, .effects = {takes}},
    {"lease_integer", .setup = integers, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED, .effects = {takes}},
    {"lease_large", .setup = large_items, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED, .effects = {takes}},
    {"lease_longest_inline", .setup = full_block, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}},
    {"lease_redelivered", .setup = redelivered_items, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}},
    {"lease_redelivered_large", .setup = redelivered_large, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}},
    {"lease_returned", .setup = returned_large, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}},
    {"lease_leaving_a_block", .setup = spent_block_done, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}},
    {"lease_beside_ours", .setup = large_in_hand, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}},
    {"lease_for_somebody", .setup = announced_backlog, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}},
    {"lease_refused_no_memory", .segment = 4 << 20, .setup = exhausted_by_leases, REDELIVERS, .operation = gets_now,
     .result = JNQ_NO_MEMORY},
    {"lease_two", .setup = large_items, REDELIVERS, .operation = gets_two, .result = JNQ_LEASED,
     .effects = {takes, takes}},
    {"lease_reaping_first", .setup = short_items, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {inherits, takes}, .start_ns = 2 * SECOND, .firsts = {DEATH("lease", NULL)}},
    {"lease_reaping_large_first", .setup = large_items, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {inherits, takes}, .start_ns = 2 * SECOND, .firsts = {DEATH("lease_large", NULL)}},
    {"lease_burying_first", .setup = letters_and_guilty, REDELIVERS, .max_deliveries = 2, .operation = gets_now,
     .result = JNQ_LEASED, .effects = {inherits, takes}, .start_ns = 2 * SECOND, .firsts = {DEATH("lease", NULL)}},
    {"finish", .setup = short_items, REDELIVERS, .prepare = take_first, .prepared = takes, .operation = finishes_it,
     .effects = {finishes}},
    {"finish_large", .setup = large_items, REDELIVERS, .prepare = take_first, .prepared = takes,
     .operation = finishes_it, .effects = {finishes}},
    {"finish_one_of_two", .setup = large_items, REDELIVERS, .prepare = take_two, .prepared = takes_two,
     .operation = finishes_it, .effects = {finishes}},
    {"finish_to_zero", .setup = joined_item, REDELIVERS, .prepare = take_first, .prepared = takes,
     .operation = finishes_it, .effects = {finishes}},
    {"finish_large_to_zero", .setup = joined_large, REDELIVERS, .prepare = take_first, .prepared = takes,
     .operation = finishes_it, .effects = {finishes}},
    {"finish_redelivered", .setup = redelivered_large, REDELIVERS, .prepare = take_first, .prepared = takes,
     .operation = finishes_it, .effects = {finishes}},
    {"finish_beside_ours", .setup = large_in_hand, REDELIVERS, .prepare = take_first, .prepared = takes,
     .operation = finishes_it, .effects = {finishes}},
    {"finish_cut", .setup = large_items, REDELIVERS, .prepare = take_and_cut, .prepared = takes_and_cuts,
     .operation = finishes_it, .effects = {finishes}},
    {"finish_again", .setup = large_items, REDELIVERS, .prepare = take_and_finish, .prepared = takes_and_finishes,
     .operation = finishes_it, .result = JNQ_NOT_OURS},
    {"release_lease", .setup = large_items, REDELIVERS, .prepare = take_first, .prepared = takes,
     .operation = releases},
    {"unget_lease", .setup = short_items, REDELIVERS, .prepare = take_first, .prepared = takes, .operation = ungets,
     .effects = {returns}},
    {"unget_large_lease", .setup = redelivered_large, REDELIVERS, .prepare = take_first, .prepared = takes,
     .operation = ungets, .effects = {returns}},
    {"unget_lease_cut", .setup = large_items, REDELIVERS, .prepare = take_and_cut, .prepared = takes_and_cuts,
     .operation = ungets, .effects = {finishes}},
    {"leave", .setup = large_items, REDELIVERS, .prepare = take_first, .prepared = takes, .operation = detaches,
     .effects = {leaves}},
    {"leave_two", .setup = redelivered_items, REDELIVERS, .prepare = take_two, .prepared = takes_two,
     .operation = detaches, .effects = {leaves}},
    {"leave_failed", .setup = one_guilty, REDELIVERS, .max_deliveries = 2, .prepare = take_and_fail, .prepared = takes,
     .operation = detaches, .effects = {leaves_failed}},
    {"leave_cut", .setup = large_items, REDELIVERS, .prepare = take_and_cut, .prepared = takes_and_cuts,
     .operation = detaches, .effects = {leaves}},
    {"depart", .setup = one_guilty, REDELIVERS, .max_deliveries = 2, .prepare = take_first, .prepared = takes,
     .operation = departs, .result = EXIT_CLEAN},
    {"depart_failed", .setup = one_guilty, REDELIVERS, .max_deliveries = 2, .prepare = take_first, .prepared = takes,
     .operation = departs_failed, .result = EXIT_FAILED},
    {"put_beside_leases", .setup = large_in_hand, REDELIVERS, .operation = puts_now, .bytes = LARGE,
     .effects = {appends}},
    {"enter_lease", .setup = redelivered_items, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}, .handle = INHERITED},
    {"shutdown_leases", .setup = large_in_hand, REDELIVERS, .prepare = take_first, .prepared = takes,
     .operation = shuts_down_at_once, .effects = {ends, cuts}},
    {"shutdown_redelivered", .setup = redelivered_large, REDELIVERS, .operation = shuts_down_at_once,
     .effects = {ends, cuts}},
    {"shutdown_letters", .setup = letters_and_guilty, REDELIVERS, .max_deliveries = 2, .operation = shuts_down_at_once,
     .effects = {ends, cuts}},
    /* the tasks of the dead */
    {"redeliver", .setup = short_items, REDELIVERS, .operation = reaps, .effects = {inherits},
     .firsts = {DEATH("lease", NULL)}},
    {"redeliver_two", .setup = large_items, REDELIVERS, .operation = reaps, .effects = {inherits},
     .firsts = {DEATH("lease_two", NULL)}},
    {"redeliver_of_two", .setup = redelivered_items, REDELIVERS, .operation = reaps, .effects = {inherits, inherits},
     .firsts = {DEATH("lease", NULL), DEATH("lease_two", NULL)}},
    {"redeliver_letter", .setup = joined_large, REDELIVERS, .max_deliveries = 1, .operation = reaps,
     .effects = {inherits}, .firsts = {DEATH("lease", NULL)}},
    {"redeliver_letters", .setup = large_items, REDELIVERS, .max_deliveries = 1, .operation = reaps,
     .effects = {inherits}, .firsts = {DEATH("lease_two", NULL)}},
    {"redeliver_both", .setup = one_guilty, REDELIVERS, .max_deliveries = 2, .operation = reaps,
     .effects = {inherits, inherits}, .firsts = {DEATH("lease_two", NULL)}},
    {"redeliver_again", .setup = letters_and_guilty, REDELIVERS, .max_deliveries = 2, .operation = reaps,
     .effects = {inherits}, .firsts = {DEATH("lease", NULL)}},
    {"redeliver_no_memory", .setup = large_items, REDELIVERS, .operation = reaps_without_memory,
     .result = JNQ_NO_MEMORY, .firsts = {DEATH("lease_two", NULL)}},
    {"redeliver_ended", .setup = ended_items, REDELIVERS, .operation = reaps, .effects = {inherits},
     .firsts = {DEATH("lease", NULL)}},
    {"redeliver_cut", .setup = large_items, REDELIVERS, .operation = reaps, .effects = {inherits, inherits},
     .firsts = {DEATH("lease_two", NULL), DEATH("shutdown_immediate", NULL)}},
    /* a second death in a repair, a third in the next one */
    {"redeliver_after_noting", .setup = short_items, REDELIVERS, .operation = reaps,
     .firsts = {DEATH("lease", step_noted)}},
    {"redeliver_after_taking", .setup = large_items, REDELIVERS, .operation = reaps, .effects = {inherits},
     .firsts = {DEATH("lease_large", item_taken)}},
    {"redeliver_after_popping", .setup = redelivered_items, REDELIVERS, .operation = reaps, .effects = {inherits},
     .firsts = {DEATH("lease_redelivered", front_left)}},
    {"redeliver_after_redelivery", .setup = large_items, REDELIVERS, .operation = reaps,
     .firsts = {DEATH("lease_two", NULL), DEATH("redeliver_two", tasks_moved)}},
    {"redeliver_after_half", .setup = one_guilty, REDELIVERS, .max_deliveries = 2, .operation = reaps,
     .effects = {inherits}, .firsts = {DEATH("lease_two", NULL), DEATH("redeliver_both", tasks_moved)}},
    {"redeliver_after_letters", .setup = large_items, REDELIVERS, .max_deliveries = 1, .operation = reaps,
     .firsts = {DEATH("lease_two", NULL), DEATH("redeliver_letters", letters_made)}},
    {"lease_after_noting", .setup = short_items, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}, .firsts = {DEATH("lease", step_noted)}},
    {"lease_after_taking", .setup = short_items, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}, .firsts = {DEATH("lease", item_taken)}},
    {"lease_after_popping", .setup = redelivered_large, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}, .firsts = {DEATH("lease_redelivered", front_left)}},
    {"lease_after_noted_pop", .setup = redelivered_large, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}, .firsts = {DEATH("lease_redelivered", step_noted)}},
    {"lease_after_leaving", .setup = spent_block_done, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}, .firsts = {DEATH("lease_leaving_a_block", block_left)}},
    {"lease_after_finish", .setup = short_items, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}, .firsts = {DEATH("finish", report_made)}},
    {"lease_after_unget", .setup = short_items, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}, .firsts = {DEATH("unget_lease", front_left)}},
    {"finish_after_taking", .setup = short_items, REDELIVERS, .prepare = take_first, .prepared = takes,
     .operation = finishes_it, .effects = {finishes}, .firsts = {DEATH("lease", item_taken)}},
    {"finish_after_finish", .setup = large_items, REDELIVERS, .prepare = take_first, .prepared = takes,
     .operation = finishes_it, .effects = {finishes}, .firsts = {DEATH("finish_large", report_made)}},
    /* several at a time */
    {"put_batch", .operation = puts_three, .bytes = 20, .effects = {appends_three}},
    {"put_batch_of_integers", .setup = backlog, .operation = puts_three, .bytes = INTEGER, .effects = {appends_three}},
    {"put_batch_in_two", .setup = integers, .operation = puts_three, .bytes = 3000, .effects = {appends_two, appends}},
    {"put_batch_growing", .setup = brimful, .operation = puts_three, .bytes = 20, .effects = {appends_three}},
    {"put_batch_growing_between", .setup = room_for_a_chunk, .operation = puts_three, .bytes = 3000,
     .effects = {appends_two, appends}},
    {"put_batch_partly", .maxsize = 5, .setup = short_items, .operation = puts_three, .bytes = 20, .result = JNQ_FULL,
     .effects = {appends_two}},
    {"put_batch_refused", .maxsize = 3, .setup = short_items, .operation = puts_three, .bytes = 20, .result = JNQ_FULL},
    {"put_batch_waiting", .maxsize = 4, .setup = short_items, .operation = puts_three_soon, .bytes = 20,
     .result = JNQ_FULL, .effects = {appends}, .sleeps = true},
    {"put_batch_ended", .setup = ended_items, .operation = puts_three_soon, .bytes = 20, .result = JNQ_SHUTDOWN},
    {"put_batch_asked", .maxsize = 3, .setup = asked, .operation = puts_three, .bytes = 20, .effects = {appends_three}},
    {"put_batch_ending_a_zero", .setup = unrecorded_zero, .operation = puts_three, .bytes = 20,
     .effects = {appends_three}},
    {"put_batch_for_somebody", .setup = announced_backlog, .operation = puts_three, .bytes = 20,
     .effects = {appends_three}},
    {"put_batch_for_a_getter", .operation = puts_three, .bytes = 20, .effects = {appends_three},
     .sleeper = sleeper_gets, .awake = takes},
    {"put_batch_inherited", .setup = short_items, .operation = puts_three, .bytes = 20, .effects = {appends_three},
     .handle = INHERITED},
    {"put_batch_beside_leases", .setup = large_in_hand, REDELIVERS, .operation = puts_three, .bytes = 3000,
     .effects = {appends_two, appends}},
    {"put_batch_after_put_batch", .setup = integers, .operation = puts_three, .bytes = 3000,
     .effects = {appends_two, appends}, .firsts = {DEATH("put_batch_in_two", item_put)}},
    {"put_batch_after_growing", .setup = room_for_a_chunk, .operation = puts_three, .bytes = 3000,
     .effects = {appends_two, appends}, .firsts = {DEATH("put_batch_growing_between", block_linked)}},
    {"get_batch", .setup = chunk, .operation = gets_three, .result = 3, .effects = {takes_three}},
    {"get_batch_of_records", .setup = chunk_among_items, .operation = gets_six, .result = 6, .effects = {takes_six}},
    {"get_batch_midway", .setup = half_chunk, .operation = gets_three, .result = 2, .effects = {takes_two}},
    {"get_batch_before_large", .setup = chunk_before_large, .operation = gets_six, .result = 2, .effects = {takes_two}},
    {"get_batch_leaving_a_block", .setup = spent_block_then_chunk, .operation = gets_three, .result = 3,
     .effects = {takes_three}},
    {"get_batch_of_returned", .setup = chunk_given_back, .operation = gets_three, .result = 0},
    {"get_batch_of_large", .setup = large_items, .operation = gets_three, .result = 0},
    {"get_batch_waiting", .operation = gets_some_soon, .result = JNQ_EMPTY, .sleeps = true},
    {"get_batch_ended", .setup = ended, .operation = gets_some_soon, .result = 0},
    {"get_batch_of_the_last", .setup = ended_chunk, .operation = gets_six, .result = 3, .effects = {takes_three}},
    {"get_batch_asked", .maxsize = 3, .setup = chunk_asked, .operation = gets_six, .result = 3,
     .effects = {takes_three}},
    {"get_batch_joined", .setup = joined_chunk, .operation = gets_six, .result = 3, .effects = {takes_three}},
    {"get_batch_for_a_putter", .maxsize = 3, .setup = chunk, .operation = gets_three, .bytes = 20, .result = 3,
     .effects = {takes_three}, .sleeper = sleeper_puts, .awake = appends},
    {"get_batch_inherited", .setup = half_chunk, .operation = gets_three, .result = 2, .effects = {takes_two},
     .handle = INHERITED},
    {"get_batch_after_get_batch", .setup = chunk_among_items, .operation = gets_three, .result = 2,
     .effects = {takes_two}, .firsts = {DEATH("get_batch_of_records", item_taken)}},
    {"get_batch_after_noting", .setup = chunk_among_items, .operation = gets_three, .result = 3,
     .effects = {takes_three}, .firsts = {DEATH("get_batch_of_records", step_noted)}},
    {"get_batch_after_leaving", .setup = spent_block_then_chunk, .operation = gets_three, .result = 3,
     .effects = {takes_three}, .firsts = {DEATH("get_batch_leaving_a_block", block_left)}},
    {"get_of_chunk", .setup = chunk, .operation = gets_now, .result = 20, .effects = {takes}},
    {"get_amid_chunk", .setup = half_chunk, .operation = gets_now, .result = 8, .effects = {takes}},
    {"get_last_of_chunk", .setup = last_of_chunk, .operation = gets_now, .result = 20, .effects = {takes}},
    {"get_after_chunk_step", .setup = chunk, .operation = gets_now, .result = 20, .effects = {takes},
     .firsts = {DEATH("get_of_chunk", item_taken)}},
    {"lease_of_chunk", .setup = chunk, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED, .effects = {takes}},
    {"lease_amid_chunk", .setup = half_chunk, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}},
    {"lease_last_of_chunk", .setup = last_of_chunk, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}},
    {"lease_two_of_chunk", .setup = chunk, REDELIVERS, .operation = gets_two, .result = JNQ_LEASED,
     .effects = {takes, takes}},
    {"lease_rest_of_chunk", .setup = two_taken_of_a_chunk, REDELIVERS, .operation = gets_two, .result = JNQ_LEASED,
     .effects = {takes, takes}},
    {"lease_after_chunk_step", .setup = chunk, REDELIVERS, .operation = gets_now, .result = JNQ_LEASED,
     .effects = {takes}, .firsts = {DEATH("lease_of_chunk", item_taken)}},
    {"unget_of_chunk", .setup = half_chunk, .prepare = take_first, .prepared = takes, .operation = ungets,
     .effects = {returns}},
    {"unget_lease_of_chunk", .setup = half_chunk, REDELIVERS, .prepare = take_first, .prepared = takes,
     .operation = ungets, .effects = {returns}},
    {"finish_amid_chunk", .setup = half_chunk, REDELIVERS, .prepare = take_first, .prepared = takes,
     .operation = finishes_it, .effects = {finishes}},
    {"bury_batch", .setup = chunk_among_items, .operation = reaps,
     .firsts = {DEATH("get_batch_of_records", item_taken), DEATH("gets_two", NULL)}},
    {"bury_part_of_chunk", .setup = chunk, .operation = reaps, .firsts = {DEATH("gets_two", NULL)}},
    {"redeliver_part_of_chunk", .setup = chunk, REDELIVERS, .operation = reaps, .effects = {inherits},
     .firsts = {DEATH("lease_two_of_chunk", NULL)}},
    {"redeliver_after_chunk_step", .setup = chunk, REDELIVERS, .operation = reaps, .effects = {inherits},
     .firsts = {DEATH("lease_of_chunk", item_taken)}},
    {"shutdown_half_chunk", .setup = half_chunk, .operation = shuts_down_at_once, .effects = {ends, cuts}},
    {"shutdown_leases_of_chunk", .setup = half_chunk, REDELIVERS, .prepare = take_first, .prepared = takes,
     .operation = shuts_down_at_once, .effects = {ends, cuts}},
    {"unget_copy", .setup = large_items, .prepare = take_first, .prepared = takes, .operation = ungets_a_copy,
     .effects = {returns}},
    {"unget_copy_cut", .setup = large_items, .prepare = take_and_cut, .prepared = takes_and_cuts,
     .operation = ungets_a_copy, .effects = {finishes}},
};
#define SCENARIOS (sizeof scenarios / sizeof *scenarios)

static struct scenario *scenario_named(const char *name)
{
    for (unsigned i = 0; i < SCENARIOS; i++)
        if (!strcmp(scenarios[i].name, name))
            return scenarios + i;
    fail(__FILE__, __LINE__, name);
}

/* Whether a child of ours can be traced here. */
static bool may_trace(void)
{
    pid_t pid = fork();
    if (!pid) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
            _exit(SKIPPED);
        steps_begin();
        _exit(0);
    }
    int status = wait_status(pid);
    if (!WIFSTOPPED(status))
        return false;
    bool stepped = !ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) && WIFSTOPPED(wait_status(pid));
    kill_child(pid);
    return stepped;
}

int main(int argc, char **argv)
{
    unsigned stride = argc > 1 ? (unsigned)atoi(argv[1]) : 1, offset = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
    CHECK_OP(stride, >, 0);
    if (!may_trace()) {
        puts("ptrace is not permitted here");
        return SKIPPED;
    }
    signal(SIGALRM, hangs);
    use_one_cpu();
    size_t bytes;
    CHECK(!syscall(SYS_get_robust_list, 0, &remains.robust_list, &bytes));
    for (uint64_t name = 0; name < NAMES; name++)
        fill(texts[name], LONGEST, name);
    model = shared_memory(sizeof *model);
    outcome = shared_memory(sizeof *outcome);
    for (unsigned i = 0; i < SCENARIOS; i++)
        run_scenario(scenarios + i, stride, offset, argc > 3 ? argv[3] : "");
    printf("kill points: %u, failures: %u\n", total.points, total.failures);
    return total.failures || !total.points;
}
#endif
