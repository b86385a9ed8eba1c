#define _GNU_SOURCE
#include "procs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "atomics.h"
#include "lock.h"
#include "segment.h"

#define CALL_ENDED ((uint64_t)1) /* in left_ns */
#define SAME_WAIT_NS 10000000    /* who returns so soon has only let Python run signal handlers */
#define PIDS "/proc/self/ns/pid"
#define TIMES "/proc/self/ns/time"

static uint32_t forks = 1; /* of this process's ancestors since the library was loaded */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void count_fork(void) { store_relaxed(&forks, load_relaxed(&forks) + 1); }

static void watch_forks(void) { pthread_atfork(NULL, NULL, count_fork); }

static char process_name[JNQ_NAME_BYTES];

static struct jnq_proc *entry(struct jnq_queue *q, uint32_t owner)
{
    return (struct jnq_proc *)at(q, q->procs_off) + (owner - 1);
}

struct jnq_proc *procs_entry(struct jnq_queue *q, uint32_t owner)
{
    return owner && owner <= procs_count(q) ? entry(q, owner) : NULL;
}

void procs_name(const char *name) { strncpy(process_name, name, sizeof process_name - 1); }

/* The start time of a process, 0 if it is dead, UINT64_MAX if that cannot be told. *status is how it has ended, if that
 * can be told, else 0. */
static uint64_t start_and_status(uint32_t pid, uint16_t *status)
{
    char path[32], stat[1024];
    *status = 0;
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT && kill((pid_t)pid, 0) && errno == ESRCH ? 0 : UINT64_MAX;
    ssize_t n = read(fd, stat, sizeof stat - 1);
    int error = n < 0 ? errno : 0;
    close(fd);
    if (n <= 0)
        return error == ESRCH ? 0 : UINT64_MAX;
    stat[n] = 0;
    /* pid (name) state ...: the name may hold anything, so count from the last parenthesis. */
    char *field = strrchr(stat, ')');
    if (!field || !field[1])
        return UINT64_MAX;
    field += 2;
    bool ended = *field == 'Z' || *field == 'X' || *field == 'x';
    uint64_t threads = 0, start = UINT64_MAX;
    for (int number = 4; (field = strchr(field, ' ')); number++) {
        field++;
        if (number == 20)
            threads = strtoull(field, NULL, 10);
        else if (number == 22)
            start = strtoull(field, NULL, 10);
        else if (number == 52)
            *status = (uint16_t)strtoul(field, NULL, 10);
    }
    if (start != UINT64_MAX && ended && threads <= 1) /* more: only the main thread has ended */
        return 0;
    *status = 0;
    return start;
}

static uint64_t start_of(uint32_t pid)
{
    uint16_t status;
    return start_and_status(pid, &status);
}

bool procs_ended(uint32_t pid) { return !start_of(pid); }

/* What tells a namespace of this process from all others; 0 if that cannot be read. */
static uint64_t namespace(const char *path)
{
    struct stat file;
    return stat(path, &file) ? 0 : (uint64_t)file.st_ino;
}

static bool differs(uint64_t theirs, uint64_t ours) { return theirs && ours && theirs != ours; }

int procs_init(struct jnq_queue *q)
{
    q->sh->pids = namespace(PIDS);
    q->sh->times = namespace(TIMES);
    return lock_init(&q->sh->procs.lock);
}

bool procs_foreign(struct jnq_queue *q)
{
    return !procs_entered(q) && (differs(q->sh->pids, namespace(PIDS)) || differs(q->sh->times, namespace(TIMES)));
}

bool procs_entered(struct jnq_queue *q) { return load_acq(&q->fork) == load_relaxed(&forks); }

static int make_ready(struct jnq_queue *q, uint32_t owner)
{
    struct jnq_procs *procs = &q->sh->procs;
    while (owner * sizeof(struct jnq_proc) > procs->ready) {
        int rc = segment_ready(q, q->procs_off + procs->ready, q->unit_bytes);
        if (rc)
            return JNQ_NO_MEMORY;
        procs->ready += q->unit_bytes;
    }
    return 0;
}

int procs_enter(struct jnq_queue *q)
{
    struct jnq_procs *procs = &q->sh->procs;
    if (procs_entered(q))
        return JNQ_OK; /* another thread was first */
    pthread_once(&once, watch_forks);
    uint32_t owner = 1, pid = (uint32_t)getpid();
    while (owner <= procs->count && load_acq(&entry(q, owner)->state))
        owner++;
    if (owner > q->procs_max)
        return JNQ_CROWDED;
    int rc = make_ready(q, owner);
    if (rc)
        return rc;
    if (owner > procs->count)
        store_relaxed(&procs->count, owner);
    struct jnq_proc *proc = entry(q, owner);
    memset(&proc->takes, 0, sizeof *proc - offsetof(struct jnq_proc, takes));
    proc->pid = pid;
    proc->start = start_of(pid);
    memcpy(proc->name, process_name, sizeof proc->name);
    proc->mute = (uint8_t)load_relaxed(&q->mute);
    proc->active_ns = (uint64_t)event_coarse_now();
    store_rel(&proc->state, PROC_LIVE);
    q->me = proc;
    q->owner = owner;
    store_rel(&q->fork, load_relaxed(&forks));
    return JNQ_OK;
}

void procs_remove(struct jnq_queue *q, uint32_t owner) { store_rel(&entry(q, owner)->state, PROC_FREE); }

bool procs_is_grave(struct jnq_queue *q, uint32_t owner) { return load_acq(&entry(q, owner)->state) == PROC_GRAVE; }

bool procs_bury(struct jnq_queue *q, uint32_t owner)
{
    uint64_t graves = 0;
    for (uint32_t other = 1; other <= procs_count(q); other++)
        graves += procs_is_grave(q, other);
    if (graves >= GRAVES_MAX)
        return false;
    store_sc(&q->sh->procs.graves, graves + 1);
    store_rel(&entry(q, owner)->state, PROC_GRAVE);
    return true;
}

void procs_forget(struct jnq_queue *q)
{
    for (uint32_t owner = 1; owner <= procs_count(q); owner++)
        if (procs_is_grave(q, owner))
            procs_remove(q, owner);
    store_sc(&q->sh->procs.graves, 0);
}

bool procs_known(struct jnq_queue *q, uint32_t owner)
{
    return owner && owner <= procs_count(q) && load_acq(&entry(q, owner)->state) == PROC_LIVE;
}

static uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }

static bool reports(uint64_t dones) { return dones >> (64 - DONES_BITS); }

bool procs_holds(struct jnq_queue *q, uint32_t owner)
{
    struct jnq_proc *proc = entry(q, owner);
    uint64_t dones = load_sc(&proc->dones);
    return reports(dones) || (int64_t)(load_relaxed(&proc->takes) - (dones & DONES)) > 0;
}

bool procs_writes(struct jnq_queue *q, uint32_t owner)
{
    return procs_known(q, owner) && !load_relaxed(&entry(q, owner)->mute);
}

/* How long ago it was last noted to do something. */
static uint64_t idle(struct jnq_proc *proc, uint64_t now)
{
    uint64_t last = load_relaxed(&proc->active_ns);
    for (int i = 0; i < PROC_TAKEN; i++)
        last = later(last, load_relaxed(&proc->taken_ns[i]));
    for (int in = 0; in < JNQ_WAITS; in++)
        last = later(last, later(load_relaxed(&proc->wait_ns[in]), load_relaxed(&proc->left_ns[in])));
    return last && last < now ? now - last : 0;
}

uint64_t procs_tasks(struct jnq_queue *q, uint32_t owner)
{
    struct jnq_proc *proc = entry(q, owner);
    uint64_t dones = load_sc(&proc->dones) & DONES;
    int64_t tasks = q->on_death == JNQ_IGNORE ? 0 : (int64_t)(load_relaxed(&proc->takes) - dones);
    return tasks > 0 ? (uint64_t)tasks : 0;
}

void procs_note_status(struct jnq_queue *q, uint32_t owner)
{
    struct jnq_proc *proc = entry(q, owner);
    uint16_t status;
    if (!start_and_status(proc->pid, &status) && status)
        store_relaxed(&proc->status, status);
}

void procs_tell(struct jnq_queue *q, uint32_t owner, uint64_t tasks)
{
    struct jnq_procs *procs = &q->sh->procs;
    struct jnq_proc *proc = entry(q, owner);
    uint64_t deaths = load_relaxed(&procs->deaths);
    struct jnq_obit *obit = &procs->obits[deaths % OBITS];
    *obit = (struct jnq_obit){
        .time_ms = event_wall_ms(), .tasks = tasks, .pid = proc->pid, .status = proc->status, .exit = proc->exit};
    memcpy(obit->name, proc->name, sizeof obit->name);
    store_sc(&procs->deaths, deaths + 1);
}

int procs_obit(struct jnq_queue *q, uint64_t number, jnq_death *out)
{
    struct jnq_procs *procs = &q->sh->procs;
    if (!number || number > load_sc(&procs->deaths))
        return JNQ_EMPTY;
    struct jnq_obit obit = procs->obits[(number - 1) % OBITS];
    if (load_sc(&procs->deaths) - number >= OBITS - 1) /* it may be the one that is being overwritten */
        return JNQ_EMPTY;
    *out = (jnq_death){.time_ms = obit.time_ms,
                       .tasks = obit.tasks,
                       .pid = obit.pid,
                       .status = obit.status,
                       .failed = obit.exit == EXIT_FAILED};
    memcpy(out->name, obit.name, sizeof out->name - 1);
    return JNQ_OK;
}

void procs_read(struct jnq_queue *q, uint32_t owner, jnq_holder *out)
{
    struct jnq_proc *proc = entry(q, owner);
    uint64_t dones = load_sc(&proc->dones), takes = load_relaxed(&proc->takes), now = (uint64_t)event_now();
    uint16_t status = 0;
    memset(out, 0, sizeof *out);
    out->pid = proc->pid;
    out->dead = procs_is_grave(q, owner) || procs_dead(q, owner);
    out->exit = load_relaxed(&proc->exit);
    out->unsure = reports(dones);
    if (out->dead && !(out->status = load_relaxed(&proc->status)) && !start_and_status(proc->pid, &status))
        out->status = status;
    out->start = proc->start;
    out->tasks = procs_tasks(q, owner);
    if (out->tasks) {
        uint64_t oldest = out->tasks <= PROC_TAKEN ? takes - out->tasks : takes;
        uint64_t taken = load_relaxed(&proc->taken_ns[oldest % PROC_TAKEN]);
        out->oldest_ns = taken && taken < now ? now - taken : 0;
    }
    for (int in = 0; in < JNQ_WAITS; in++) {
        uint64_t since = load_relaxed(&proc->wait_ns[in]);
        out->waiting[in] = load_relaxed(&proc->waiting[in]);
        out->waiting_ns[in] = out->waiting[in] && since < now ? now - since : 0;
    }
    out->puts = load_relaxed(&proc->puts);
    out->gets = (int64_t)takes > 0 ? takes : 0;
    out->idle_ns = idle(proc, now);
    memcpy(out->name, proc->name, sizeof out->name - 1);
}

bool procs_wait(struct jnq_queue *q, enum jnq_wait in, int64_t now)
{
    if (!procs_entered(q))
        return false; /* join() alone needs no entry */
    struct jnq_proc *proc = q->me;
    uint64_t left = load_relaxed(&proc->left_ns[in]);
    bool another = left & CALL_ENDED || (uint64_t)now - left > SAME_WAIT_NS;
    if (add_sc(&proc->waiting[in], 1) == 1 && another)
        store_relaxed(&proc->wait_ns[in], (uint64_t)now);
    return true;
}

void procs_wait_end(struct jnq_queue *q, enum jnq_wait in, int64_t now)
{
    store_relaxed(&q->me->left_ns[in], (uint64_t)now & ~CALL_ENDED);
    sub_sc(&q->me->waiting[in], 1);
}

void procs_call_end(struct jnq_queue *q, enum jnq_wait in)
{
    if (procs_entered(q))
        store_relaxed(&q->me->left_ns[in], load_relaxed(&q->me->left_ns[in]) | CALL_ENDED);
}

void procs_waited(struct jnq_queue *q, enum jnq_wait in, int64_t ns)
{
    if (procs_entered(q) && ns > 0)
        add_relaxed(&q->me->blocked_ns[in], (uint64_t)ns);
}

void procs_woken(struct jnq_queue *q)
{
    if (procs_entered(q))
        add_relaxed(&q->me->wakes, 1);
}

void procs_active(struct jnq_queue *q) { store_relaxed(&q->me->active_ns, (uint64_t)event_coarse_now()); }

static void count_items(struct jnq_queue *q, uint64_t *items, uint64_t n)
{
    uint64_t before = load_relaxed(items), now = before + n;
    store_relaxed(items, now);
    if (before / SEEN_EVERY != now / SEEN_EVERY)
        procs_active(q);
}

void procs_put(struct jnq_queue *q, uint64_t n) { count_items(q, &q->me->puts, n); }

void procs_take(struct jnq_queue *q, int64_t n) { count_items(q, &q->me->takes, (uint64_t)n); }

void procs_sum(struct jnq_queue *q, jnq_counters *out)
{
    for (uint32_t owner = 1; owner <= procs_count(q); owner++) {
        struct jnq_proc *proc = entry(q, owner);
        bool waits = false;
        out->wakes += load_relaxed(&proc->wakes);
        for (int in = 0; in < JNQ_WAITS; in++) {
            out->blocked_ns[in] += load_relaxed(&proc->blocked_ns[in]);
            waits |= load_relaxed(&proc->waiting[in]) != 0;
        }
        if (!procs_known(q, owner))
            continue;
        out->processes++;
        if (!waits || procs_dead(q, owner)) /* who was killed asleep has not said that it stopped waiting */
            continue;
        for (int in = 0; in < JNQ_WAITS; in++)
            out->waiting[in] += load_relaxed(&proc->waiting[in]);
    }
}

bool procs_dead(struct jnq_queue *q, uint32_t owner)
{
    if (!procs_known(q, owner))
        return false;
    struct jnq_proc *proc = entry(q, owner);
    uint64_t start = start_of(proc->pid);
    return !start || (start != UINT64_MAX && proc->start != UINT64_MAX && start != proc->start);
}

uint32_t procs_count(struct jnq_queue *q)
{
    uint64_t count = load_relaxed(&q->sh->procs.count);
    return count < q->procs_max ? (uint32_t)count : q->procs_max;
}
