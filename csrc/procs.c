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

#define PIDS "/proc/self/ns/pid"
#define TIMES "/proc/self/ns/time"

static uint32_t forks = 1; /* of this process's ancestors since the library was loaded */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void count_fork(void) { store_relaxed(&forks, load_relaxed(&forks) + 1); }

static void watch_forks(void) { pthread_atfork(NULL, NULL, count_fork); }

static struct jnq_proc *entry(struct jnq_queue *q, uint32_t owner)
{
    return (struct jnq_proc *)at(q, q->procs_off) + (owner - 1);
}

/* The start time of a process, 0 if it is dead, UINT64_MAX if that cannot be told. */
static uint64_t start_of(uint32_t pid)
{
    char path[32], stat[512];
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
    uint64_t threads = 0;
    for (int number = 3; number < 22; number++) {
        field = strchr(field, ' ');
        if (!field)
            return UINT64_MAX;
        field++;
        if (number + 1 == 20)
            threads = strtoull(field, NULL, 10);
    }
    if (ended && threads <= 1) /* more: only the main thread has ended */
        return 0;
    return strtoull(field, NULL, 10);
}

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
    while (owner <= procs->count && procs_known(q, owner))
        owner++;
    if (owner > PROCS_MAX)
        return JNQ_CROWDED;
    int rc = make_ready(q, owner);
    if (rc)
        return rc;
    if (owner > procs->count)
        store_relaxed(&procs->count, owner);
    struct jnq_proc *proc = entry(q, owner);
    proc->pid = pid;
    proc->start = start_of(pid);
    store_rel(&proc->live, 1);
    q->owner = owner;
    store_rel(&q->fork, load_relaxed(&forks));
    return JNQ_OK;
}

void procs_remove(struct jnq_queue *q, uint32_t owner) { store_rel(&entry(q, owner)->live, 0); }

bool procs_known(struct jnq_queue *q, uint32_t owner)
{
    return owner && owner <= procs_count(q) && load_acq(&entry(q, owner)->live);
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
    return count < PROCS_MAX ? (uint32_t)count : PROCS_MAX;
}

uint64_t procs_live(struct jnq_queue *q)
{
    uint64_t live = 0;
    for (uint32_t owner = 1; owner <= procs_count(q); owner++)
        live += load_acq(&entry(q, owner)->live);
    return live;
}
