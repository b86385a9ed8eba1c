#define _GNU_SOURCE
#include "ready.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "counts.h"
#include "fifo.h"
#include "lock.h"
#include "procs.h"

#define CHUNK 4096          /* the smallest a pipe can be */
#define PATIENCE_NS 1000000 /* for the lock: its holder is a few system calls from the end, if it runs */

bool ready_to_get(struct jnq_queue *q) { return counts_queued(q) || load_sc(&q->sh->ended); }

bool ready_to_put(struct jnq_queue *q) { return fifo_room(q) || load_sc(&q->sh->ended); }

/* Whether the pipe is to be filled. */
static bool truth(struct jnq_queue *q, enum jnq_wait what)
{
    switch (what) {
    case JNQ_IN_GET:
        return ready_to_get(q);
    case JNQ_IN_PUT:
        return !ready_to_put(q);
    default:
        return !counts_unfinished(q);
    }
}

int ready_init(struct jnq_queue *q)
{
    int rc = 0;
    for (int what = 0; what < JNQ_WAITS && !rc; what++)
        rc = lock_init(&q->sh->ready[what].lock);
    return rc;
}

/* --- the pipe ------------------------------------------------------------------------------------------- */

static bool is_pipe(int fd, uint64_t dev, uint64_t ino)
{
    struct stat file;
    return ino && fd >= 0 && !fstat(fd, &file) && S_ISFIFO(file.st_mode) && file.st_dev == dev && file.st_ino == ino;
}

static int open_through(uint32_t pid, uint32_t fd)
{
    char path[48];
    snprintf(path, sizeof path, "/proc/%u/fd/%u", pid, fd);
    return open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

/* False if nobody can open the pipe where it was said to be. Of the dead who are not yet waited for root alone learns
 * that they have nothing open. */
static bool is_found(const struct jnq_ready *r)
{
    char path[48];
    struct stat file;
    snprintf(path, sizeof path, "/proc/%u/fd/%u", r->pid, r->fd);
    if (r->pipe && !stat(path, &file))
        return file.st_ino == r->pipe && file.st_dev == r->dev;
    return r->pipe && errno != ENOENT && !procs_ended(r->pid);
}

/* Our descriptor of the pipe that is asked for now, or -1. */
static int our_end(struct jnq_queue *q, enum jnq_wait what)
{
    struct jnq_ready *r = &q->sh->ready[what];
    struct jnq_end *end = &q->ends[what];
    return end->pipe == r->pipe && end->dev == r->dev && is_pipe(end->fd, end->dev, end->pipe) ? end->fd : -1;
}

static void close_end(struct jnq_end *end)
{
    if (is_pipe(end->fd, end->dev, end->pipe))
        close(end->fd);
    *end = (struct jnq_end){.fd = -1};
}

/* The same, opened if need be; else an errno as a negative number. */
static int find_end(struct jnq_queue *q, enum jnq_wait what)
{
    struct jnq_ready *r = &q->sh->ready[what];
    struct jnq_end *end = &q->ends[what];
    int fd = our_end(q, what);
    if (fd >= 0 || !r->pipe)
        return r->pipe ? fd : -ENOENT;
    if (end->refused == r->pipe)
        return -EACCES;
    if (!is_found(r))
        return -ENOENT; /* it could be anything now, and to be opened may mean something to it */
    fd = open_through(r->pid, r->fd);
    if (fd < 0) {
        int rc = -errno;
        if (rc == -EACCES && is_found(r)) /* its owner lives */
            end->refused = r->pipe;
        return rc;
    }
    if (!is_pipe(fd, r->dev, r->pipe)) {
        close(fd);
        return -ENOENT;
    }
    if (end->asked && is_pipe(end->fd, end->dev, end->pipe)) { /* what we gave out is another: the watcher serves it */
        close(fd);
        return -EACCES;
    }
    close_end(end);
    *end = (struct jnq_end){.fd = fd, .pipe = r->pipe, .dev = r->dev};
    return fd;
}

static void set(int fd, enum jnq_wait what, bool filled)
{
    char chunk[CHUNK] = {0};
    if (!filled)
        while (read(fd, chunk, CHUNK) == CHUNK)
            ;
    else /* for it to be readable one byte would do, for it not to be writable it must be full */
        while (write(fd, chunk, what == JNQ_IN_PUT ? CHUNK : 1) == CHUNK)
            ;
}

static bool is_filled(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, 0) > 0;
}

/* --- showing -------------------------------------------------------------------------------------------- */

static enum lock_result lock(struct jnq_queue *q, enum jnq_wait what, int64_t until)
{
    struct jnq_ready *r = &q->sh->ready[what];
    enum lock_result held = lock_until(&r->lock, until);
    if (held != LOCK_ORPHANED)
        return held;
    int fd = our_end(q, what);
    store_sc(&r->shown, fd >= 0 ? is_filled(fd) : !truth(q, what)); /* the latter so that it is set anew */
    lock_repaired(&r->lock);
    return LOCK_HELD;
}

/* Under the lock. */
static void show_truth(struct jnq_queue *q, enum jnq_wait what)
{
    struct jnq_ready *r = &q->sh->ready[what];
    for (bool now; (now = truth(q, what)) != load_sc(&r->shown);) {
        int fd = find_end(q, what);
        if (fd == -ENOENT) { /* who has it is gone; others who have asked will tell where theirs is */
            r->pipe = 0;
            clear_bits_sc(&q->sh->asked, 1u << what);
        }
        if (fd < 0)
            return;
        store_sc(&r->shown, now);
        set(fd, what, now);
    }
}

static void show(struct jnq_queue *q, enum jnq_wait what)
{
    struct jnq_ready *r = &q->sh->ready[what];
    if (truth(q, what) == load_sc(&r->shown))
        return;
    store_sc(&r->again, 1);
    while (load_sc(&r->again) && lock(q, what, event_now() + PATIENCE_NS) == LOCK_HELD) {
        store_sc(&r->again, 0);
        show_truth(q, what);
        lock_release(&r->lock);
    }
}

void ready_show(struct jnq_queue *q)
{
    uint32_t asked = load_sc(&q->sh->asked);
    if (procs_foreign(q))
        return; /* the kernel would not see it die with the lock */
    for (int what = 0; what < JNQ_WAITS; what++)
        if (asked & 1u << what)
            show(q, (enum jnq_wait)what);
}

/* --- asking --------------------------------------------------------------------------------------------- */

/* A pipe with one descriptor for both of its ends. */
static int make_pipe(struct jnq_end *end)
{
    int ends[2];
    if (pipe2(ends, O_NONBLOCK | O_CLOEXEC))
        return errno;
    fcntl(ends[0], F_SETPIPE_SZ, CHUNK);
    int fd = open_through((uint32_t)getpid(), (uint32_t)ends[0]), rc = fd < 0 ? errno : 0;
    close(ends[0]);
    close(ends[1]);
    struct stat file;
    if (!rc && fstat(fd, &file))
        rc = errno;
    if (!rc)
        *end = (struct jnq_end){.fd = fd, .pipe = file.st_ino, .dev = file.st_dev};
    else if (fd >= 0)
        close(fd);
    return rc;
}

/* Tells the others where our pipe is to be found. Under the lock. */
static void publish(struct jnq_queue *q, enum jnq_wait what)
{
    struct jnq_ready *r = &q->sh->ready[what];
    struct jnq_end *end = &q->ends[what];
    r->pid = (uint32_t)getpid();
    r->fd = (uint32_t)end->fd;
    r->dev = end->dev;
    r->pipe = end->pipe;
    store_sc(&r->shown, is_filled(end->fd));
    set_bits_sc(&q->sh->asked, 1u << what);
}

static int ask(struct jnq_queue *q, enum jnq_wait what)
{
    struct jnq_end *end = &q->ends[what];
    int fd = find_end(q, what), rc = 0;
    if (fd < 0 && !is_pipe(end->fd, end->dev, end->pipe)) { /* none at all, or the program has closed it */
        rc = make_pipe(end);
        if (!rc && !is_found(&q->sh->ready[what]))
            publish(q, what);
    }
    if (!rc)
        end->asked = true;
    return rc;
}

static void look(struct jnq_queue *q, enum jnq_wait what)
{
    struct jnq_ready *r = &q->sh->ready[what];
    struct jnq_end *end = &q->ends[what];
    if (lock(q, what, 0) != LOCK_HELD)
        return;
    if (end->asked && is_pipe(end->fd, end->dev, end->pipe)) {
        if (!is_found(r))
            publish(q, what);
        if (our_end(q, what) < 0) /* we could not open that of the others */
            set(end->fd, what, truth(q, what));
        else
            store_sc(&r->shown, is_filled(end->fd));
        show_truth(q, what);
    }
    lock_release(&r->lock);
    show(q, what); /* what has changed meanwhile */
}

void ready_look(struct jnq_queue *q)
{
    if (procs_foreign(q))
        return;
    for (int what = 0; what < JNQ_WAITS; what++)
        look(q, (enum jnq_wait)what);
}

int ready_fd(struct jnq_queue *q, enum jnq_wait what, int64_t until, int *fd)
{
    struct jnq_ready *r = &q->sh->ready[what];
    enum lock_result held = lock(q, what, until);
    if (held != LOCK_HELD)
        return held == LOCK_BUSY && !lock_is_forged(&r->lock, q->bytes) ? JNQ_INTERRUPTED : JNQ_CORRUPT;
    int rc = ask(q, what);
    *fd = q->ends[what].fd;
    lock_release(&r->lock);
    if (!rc)
        ready_look(q);
    return rc;
}

void ready_close(struct jnq_queue *q)
{
    for (int what = 0; what < JNQ_WAITS; what++)
        close_end(&q->ends[what]);
}
