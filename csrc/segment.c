#define _GNU_SOURCE
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "atomics.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Address space is plentiful, but 47 bits must do for thousands of queues; so the reservation follows the
 * memory of the machine, and is halved until it fits the limits of the process. */
#define RESERVE_MIN ((uint64_t)1 << 20)
#define RESERVE_USUAL ((uint64_t)64 << 30)
#define LOOKS 100

static uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

static uint64_t reserve_wanted(uint64_t page)
{
    uint64_t wanted = RESERVE_USUAL;
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * page;
    while (wanted < 2 * memory)
        wanted *= 2;
    /* Where address space is rationed, leave most of it to the program. */
    struct rlimit limit;
    if (!getrlimit(RLIMIT_AS, &limit) && limit.rlim_cur != RLIM_INFINITY)
        while (wanted > limit.rlim_cur / 8)
            wanted /= 2;
    if (!getrlimit(RLIMIT_FSIZE, &limit) && limit.rlim_cur != RLIM_INFINITY)
        while (wanted > limit.rlim_cur)
            wanted /= 2;
    return wanted;
}

static int map(struct jnq_queue *q, int fd, uint64_t bytes)
{
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED)
        return errno;
#ifdef MADV_DONTDUMP
    madvise(base, bytes, MADV_DONTDUMP); /* a core file with the reservation in it would be useless */
#endif
    q->base = base;
    q->sh = base;
    return 0;
}

/* Nobody may cut off what others have mapped, which would be SIGBUS for them. Files that know no seals have no name,
 * and so are safe from all but the queue's own processes. */
static void seal(int fd)
{
#ifdef F_ADD_SEALS
    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
#else
    (void)fd;
#endif
}

/* Where the parts of a segment of so many bytes lie; q->units is 0 if there is no room for them. */
static void measure(struct jnq_queue *q, uint64_t bytes)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    q->bytes = bytes;
    q->unit_bytes = page;
    uint64_t procs = bytes / PROCS_SHARE / sizeof(struct jnq_proc);
    q->procs_max = procs < PROCS_MAX ? (uint32_t)procs : PROCS_MAX;
    q->procs_off = page;
    q->map_off = q->procs_off + round_up(q->procs_max * sizeof(struct jnq_proc), page);
    q->heap_off = q->map_off + round_up(bytes / page * sizeof(uint64_t), page);
    q->units = bytes > q->heap_off ? (bytes - q->heap_off) / page : 0;
}

static int new_handle(int fd, struct jnq_queue **out, uint64_t *size)
{
    struct stat file;
    if (fstat(fd, &file))
        return errno;
    if (!S_ISREG(file.st_mode))
        return JNQ_MISMATCH;
    struct jnq_queue *q = calloc(1, sizeof *q);
    if (!q)
        return ENOMEM;
    q->fd = fd;
    q->dev = file.st_dev;
    q->ino = file.st_ino;
    *size = (uint64_t)file.st_size;
    *out = q;
    return 0;
}

static int write_header(struct jnq_queue *q)
{
    int rc = segment_ready(q, 0, q->unit_bytes);
    if (rc)
        return rc;
    struct jnq_shared *sh = q->sh;
    memset(sh, 0, sizeof *sh);
    sh->stamp = layout_stamp();
    sh->segment_bytes = q->bytes;
    sh->unit_bytes = q->unit_bytes;
    sh->units = q->units;
    sh->procs_off = q->procs_off;
    sh->map_off = q->map_off;
    sh->heap_off = q->heap_off;
    if (getentropy(&sh->id, sizeof sh->id))
        return errno;
    q->id = sh->id;
    return 0;
}

/* True if it is the header of a segment with q's measures that this build can use. */
static bool header_fits(const struct jnq_queue *q, const struct jnq_shared *sh)
{
    return sh->magic == JNQ_MAGIC && sh->stamp == layout_stamp() && sh->segment_bytes == q->bytes &&
           sh->unit_bytes == q->unit_bytes && sh->units == q->units && sh->procs_off == q->procs_off &&
           sh->map_off == q->map_off && sh->heap_off == q->heap_off;
}

void segment_abandon(struct jnq_queue *q)
{
    if (q->base)
        munmap(q->base, q->bytes);
    free(q);
}

int segment_create(int fd, struct jnq_queue **out)
{
    struct jnq_queue *q;
    uint64_t size;
    int rc = new_handle(fd, &q, &size);
    if (rc)
        return rc;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t bytes = reserve_wanted(page);
    if (size)
        rc = EEXIST; /* somebody's data */
    else
        for (rc = ENOMEM; rc && bytes >= 4 * RESERVE_MIN; bytes /= 2)
            if (!(rc = ftruncate(fd, (off_t)bytes) ? errno : map(q, fd, bytes)))
                break;
    if (!rc) {
        measure(q, bytes);
        rc = write_header(q);
    }
    if (!rc)
        seal(fd);
    if (rc) {
        segment_abandon(q);
        return rc;
    }
    *out = q;
    return 0;
}

void segment_publish(struct jnq_queue *q) { store_rel(&q->sh->magic, JNQ_MAGIC); }

int segment_open(int fd, struct jnq_queue **out)
{
    struct jnq_queue *q;
    uint64_t size;
    int rc = new_handle(fd, &q, &size);
    if (rc)
        return rc;
    measure(q, size);
    /* Looked at before it is mapped: a short file would be SIGBUS. */
    struct jnq_shared sh;
    ssize_t n = pread(fd, &sh, sizeof sh, 0);
    if (n < 0)
        rc = errno;
    else if ((size_t)n < sizeof sh || !q->units || !header_fits(q, &sh))
        rc = JNQ_MISMATCH;
    else
        rc = map(q, fd, size);
    if (rc) {
        segment_abandon(q);
        return rc;
    }
    q->id = sh.id;
    q->maxsize = sh.maxsize;
    *out = q;
    return 0;
}

/* --- looking from outside ---------------------------------------------------------------------------------- */

/* The first bytes of a file: 0, JNQ_EMPTY if it has not so many, or an errno. */
static int read_all(int fd, void *to, uint64_t bytes, uint64_t from)
{
    for (uint64_t n = 0; n < bytes;) {
        ssize_t more = pread(fd, (char *)to + n, bytes - n, (off_t)(from + n));
        if (more <= 0)
            return more ? errno : JNQ_EMPTY;
        n += (uint64_t)more;
    }
    return 0;
}

/* A header of one moment, if there is one. */
static int copy_header(const struct jnq_queue *q, int fd,
                       bool (*same)(const struct jnq_shared *, const struct jnq_shared *), struct jnq_shared *sh)
{
    struct jnq_shared before;
    int rc = read_all(fd, sh, sizeof *sh, 0);
    for (int looks = LOOKS; looks && !rc; looks--) {
        before = *sh;
        rc = read_all(fd, sh, sizeof *sh, 0);
        if (same(&before, sh))
            break;
    }
    if (rc)
        return rc;
    return sh->magic != JNQ_MAGIC ? JNQ_EMPTY : q->units && header_fits(q, sh) ? JNQ_OK : JNQ_MISMATCH;
}

int segment_copy(int fd, bool (*same)(const struct jnq_shared *, const struct jnq_shared *), struct jnq_queue **out)
{
    struct jnq_queue *q;
    struct jnq_shared sh;
    uint64_t size;
    int rc = new_handle(fd, &q, &size);
    if (rc)
        return rc == JNQ_MISMATCH ? JNQ_EMPTY : rc;
    measure(q, size);
    rc = copy_header(q, fd, same, &sh);
    if (!rc) {
        if (sh.procs.count < q->procs_max)
            q->procs_max = (uint32_t)sh.procs.count;
        uint64_t table = q->procs_max * sizeof(struct jnq_proc);
        if (posix_memalign((void **)&q->base, LINE_BYTES, q->procs_off + table))
            rc = ENOMEM;
        else
            rc = read_all(fd, q->base + q->procs_off, table, q->procs_off);
    }
    if (rc) {
        segment_forget(q);
        return rc;
    }
    memcpy(q->base, &sh, sizeof sh);
    q->sh = (struct jnq_shared *)q->base;
    q->id = sh.id;
    q->maxsize = sh.maxsize;
    *out = q;
    return JNQ_OK;
}

void segment_forget(struct jnq_queue *q)
{
    free(q->base);
    free(q);
}

/* --- under way -------------------------------------------------------------------------------------------- */

/* Another mapping of the segment: also without the descriptor, which the program may have closed. */
static int map_again(struct jnq_queue *q)
{
#ifdef MREMAP_MAYMOVE
    void *base = mremap(q->base, 0, q->bytes, MREMAP_MAYMOVE);
    if (base == MAP_FAILED)
        return errno;
#ifdef MADV_DONTDUMP
    madvise(base, q->bytes, MADV_DONTDUMP);
#endif
    q->base = base;
    q->sh = base;
    return 0;
#else
    return map(q, segment_fd(q), q->bytes);
#endif
}

/* Puts a copy in the place of the pages. */
static int copy_in_place(const jnq_piece *pages)
{
    void *place = (void *)(uintptr_t)pages->start, *copy;
    copy = mmap(NULL, pages->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy == MAP_FAILED)
        return errno;
    memcpy(copy, place, pages->bytes);
#ifdef MREMAP_MAYMOVE
    if (mremap(copy, pages->bytes, pages->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place)
        return 0;
    int rc = errno;
#else
    void *anew = mmap(place, pages->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    int rc = anew == place ? 0 : errno;
    if (!rc)
        memcpy(place, copy, pages->bytes);
#endif
    munmap(copy, pages->bytes);
    return rc;
}

int segment_move(struct jnq_queue *q, const jnq_piece *pages, uint64_t n)
{
    char *from = q->base, *end = q->base + q->bytes;
    int rc = map_again(q);
    if (q->me)
        q->me = (struct jnq_proc *)(void *)(q->base + ((char *)q->me - from)); /* the parent's, until we enter */
    for (uint64_t i = 0; i < n && !rc; i++)
        rc = copy_in_place(&pages[i]);
    for (uint64_t i = 0; i <= n && !rc; i++) {
        const char *to = i < n ? pages[i].start : end;
        if (to > from)
            munmap(from, (size_t)(to - from));
        from = i < n ? (char *)(uintptr_t)pages[i].start + pages[i].bytes : end;
    }
    return rc;
}

/* Programs close, and so reuse, numbers they do not know. */
int segment_fd(struct jnq_queue *q)
{
    struct stat file;
    bool ours = !fstat(q->fd, &file) && file.st_dev == q->dev && file.st_ino == q->ino;
    return ours ? q->fd : -1;
}

void segment_close(struct jnq_queue *q)
{
    int fd = segment_fd(q);
    segment_abandon(q);
    if (fd >= 0)
        close(fd);
}

int segment_ready(struct jnq_queue *q, uint64_t off, uint64_t bytes)
{
    int rc;
    do
        rc = madvise(q->base + off, bytes, MADV_POPULATE_WRITE);
    while (rc && (errno == EAGAIN || errno == EINTR));
    if (rc && errno == EINVAL) /* Linux before 5.14, or another system */
        do
            rc = posix_fallocate(segment_fd(q), (off_t)off, (off_t)bytes);
        while (rc == EINTR);
    return rc ? ENOMEM : 0;
}

bool segment_return(struct jnq_queue *q, uint64_t off, uint64_t bytes)
{
#ifdef MADV_REMOVE
    return !madvise(q->base + off, bytes, MADV_REMOVE);
#else
    (void)q, (void)off, (void)bytes;
    return false;
#endif
}
