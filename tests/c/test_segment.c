/* segment: a file is used only if it is what it should be, and a descriptor is closed only if it is ours. */
#include "harness.h"

#include "segment.h"

/* What attaching gives; the file stays the caller's. */
static int attach(int fd)
{
    jnq_queue *q;
    int rc = jnq_attach(fd, &q);
    if (!rc)
        jnq_detach(q);
    return rc;
}

static void refuses_what_is_no_queue(void)
{
    int fd = fresh_memfd();
    CHECK_EQ(attach(fd), JNQ_MISMATCH); /* empty */
    CHECK_EQ(write(fd, "hello", 5), 5);
    CHECK_EQ(attach(fd), JNQ_MISMATCH); /* shorter than a header */
    CHECK(!ftruncate(fd, 1 << 24));
    CHECK_EQ(attach(fd), JNQ_MISMATCH); /* zeros */
    char garbage[8192];
    fill(garbage, sizeof garbage, 1);
    CHECK_EQ(pwrite(fd, garbage, sizeof garbage, 0), sizeof garbage);
    CHECK_EQ(attach(fd), JNQ_MISMATCH);
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC); /* still open */
    close(fd);
    CHECK_EQ(attach(fd), EBADF);
    int pipes[2];
    CHECK(!pipe(pipes));
    CHECK_EQ(attach(pipes[0]), JNQ_MISMATCH);
    close(pipes[0]);
    close(pipes[1]);
}

/* Changes one word of a valid header for the time of an attempt to attach. */
static void refuses_word(jnq_queue *q, uint64_t *word, uint64_t value)
{
    uint64_t before = *word;
    *word = value;
    CHECK_EQ(attach(jnq_fileno(q)), JNQ_MISMATCH);
    *word = before;
}

static void refuses_another_stamp(void)
{
    jnq_queue *q = make_queue(0);
    struct jnq_shared *sh = q->sh;
    refuses_word(q, &sh->magic, 0); /* its creator died before it was finished */
    refuses_word(q, &sh->magic, sh->magic ^ 1);
    for (int bit = 0; bit < 64; bit++)
        refuses_word(q, &sh->stamp, sh->stamp ^ (uint64_t)1 << bit);
    refuses_word(q, &sh->unit_bytes, 2 * sh->unit_bytes);
    refuses_word(q, &sh->segment_bytes, sh->segment_bytes / 2);
    refuses_word(q, &sh->segment_bytes, 2 * sh->segment_bytes);
    refuses_word(q, &sh->units, sh->units + 1);
    refuses_word(q, &sh->heap_off, sh->segment_bytes);
    refuses_word(q, &sh->heap_off, sh->heap_off - sh->unit_bytes);
    refuses_word(q, &sh->map_off, sh->heap_off + sh->unit_bytes);
    refuses_word(q, &sh->procs_off, 64);
    CHECK_EQ(attach(dup(jnq_fileno(q))), JNQ_OK);
    drop_queue(q);
}

static void refuses_a_truncated_one(void)
{
    jnq_queue *q = make_queue(0);
    int fd = dup(jnq_fileno(q));
    under_test = NULL;
    uint64_t bytes = q->sh->segment_bytes;
    jnq_detach(q);
    CHECK(!ftruncate(fd, (off_t)bytes - 4096));
    CHECK_EQ(attach(fd), JNQ_MISMATCH);
    CHECK(!ftruncate(fd, 4096));
    CHECK_EQ(attach(fd), JNQ_MISMATCH);
    CHECK(!ftruncate(fd, 100));
    CHECK_EQ(attach(fd), JNQ_MISMATCH);
    close(fd);
}

static void nobody_can_cut_it_off(void)
{
    int fd = memfd_create("joinq-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    jnq_queue *q;
    CHECK_EQ(jnq_create(fd, 0, JNQ_RAISE, 3, &q), JNQ_OK);
    under_test = q;
    off_t bytes = (off_t)counters(q).segment_bytes;
    CHECK(ftruncate(fd, bytes - 4096) && errno == EPERM);
    CHECK(ftruncate(fd, 0) && errno == EPERM);
    CHECK(ftruncate(fd, bytes + 4096) && errno == EPERM);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) && errno == EPERM);
    /* Memory can still be had and given back, in both ways. */
    uint64_t empty = backed_bytes(q);
    CHECK_EQ(segment_ready(q, q->heap_off + (8 << 20), 1 << 20), 0);
    CHECK_EQ(posix_fallocate(fd, (off_t)q->heap_off + (16 << 20), 1 << 20), 0);
    CHECK_EQ(backed_bytes(q), empty + (2 << 20));
    CHECK(segment_return(q, q->heap_off + (8 << 20), 16 << 20));
    CHECK_EQ(backed_bytes(q), empty);
    CHECK_EQ(attach(dup(fd)), JNQ_OK);
    drop_queue(q);
}

static void creates_in_empty_files_only(void)
{
    jnq_queue *q = NULL;
    int fd = fresh_memfd();
    CHECK_EQ(write(fd, "x", 1), 1);
    CHECK_EQ(jnq_create(fd, 0, JNQ_RAISE, 1, &q), EEXIST);
    char byte;
    CHECK_EQ(pread(fd, &byte, 1, 0), 1);
    CHECK_EQ(byte, 'x');
    close(fd);
    CHECK_EQ(jnq_create(fd, 0, JNQ_RAISE, 1, &q), EBADF);
    fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    CHECK_EQ(jnq_create(fd, 0, JNQ_RAISE, 1, &q), EEXIST);
    close(fd);
    CHECK(q == NULL);
    q = make_queue(0);
    jnq_queue *other = NULL;
    CHECK_EQ(jnq_create(jnq_fileno(q), 0, JNQ_RAISE, 1, &other), EEXIST);
    drop_queue(q);
}

static void is_sparse_and_fits_limits(void)
{
    jnq_queue *q = make_queue(0);
    CHECK_OP(counters(q).segment_bytes, >=, (uint64_t)1 << 30);
    CHECK_OP(backed_bytes(q), <=, 256 << 10);
    drop_queue(q);
    for (uint64_t bytes = 4 << 20; bytes <= 64 << 20; bytes *= 4) {
        q = make_small_queue(0, bytes);
        CHECK_EQ(counters(q).segment_bytes, bytes);
        CHECK_EQ(q->sh->units, (bytes - q->sh->heap_off) / q->sh->unit_bytes);
        drop_queue(q);
    }
    struct rlimit usual, tiny;
    CHECK(!getrlimit(RLIMIT_FSIZE, &usual));
    tiny = usual;
    tiny.rlim_cur = 1 << 20;
    CHECK(!setrlimit(RLIMIT_FSIZE, &tiny));
    int fd = fresh_memfd();
    CHECK_EQ(jnq_create(fd, 0, JNQ_RAISE, 1, &q), ENOMEM);
    CHECK(!setrlimit(RLIMIT_FSIZE, &usual));
    CHECK_EQ(jnq_create(fd, 0, JNQ_RAISE, 1, &q), JNQ_OK); /* the failure left the file empty */
    under_test = q;
    drop_queue(q);
}

static void layout_has_no_overlap(void)
{
    jnq_queue *q = make_queue(0);
    struct jnq_shared *sh = q->sh;
    CHECK_OP(sizeof *sh, <=, sh->procs_off);
    CHECK_OP(sh->procs_off + q->procs_max * sizeof(struct jnq_proc), <=, sh->map_off);
    CHECK_OP(sh->map_off + sh->units * sizeof(uint64_t), <=, sh->heap_off);
    CHECK_OP(sh->heap_off + sh->units * sh->unit_bytes, <=, sh->segment_bytes);
    CHECK_EQ(sh->heap_off % sh->unit_bytes, 0);
    CHECK_EQ(q->bytes, sh->segment_bytes);
    drop_queue(q);
}

/* --- the descriptor -------------------------------------------------------------------------------------------- */

static void closed_descriptor_is_known(void)
{
    jnq_queue *q = make_queue(0);
    int fd = jnq_fileno(q);
    CHECK_OP(fd, >=, 0);
    close(fd);
    CHECK_EQ(jnq_fileno(q), -1);
    put_item(q, 1 << 20, 1); /* the mapping is all it needs */
    get_item(q, 1 << 20, 1);
    int other = fresh_memfd(); /* takes the number over */
    CHECK_EQ(other, fd);
    CHECK_EQ(jnq_fileno(q), -1);
    drop_queue(q);
    CHECK_EQ(fcntl(other, F_GETFD), FD_CLOEXEC); /* and is still open */
    close(other);
}

static void detach_closes_what_is_ours(void)
{
    jnq_queue *q = make_queue(0), *other = second_handle(q);
    int fd = jnq_fileno(q), second = jnq_fileno(other);
    CHECK(fd != second);
    jnq_detach(other);
    CHECK_EQ(fcntl(second, F_GETFD), -1);
    CHECK_EQ(jnq_fileno(q), fd);
    drop_queue(q);
    CHECK_EQ(fcntl(fd, F_GETFD), -1);
}

static void queue_outlives_its_creator(void)
{
    jnq_queue *q = make_queue(3), *other = second_handle(q);
    uint64_t id = jnq_id(q);
    put_item(q, 5, 5);
    put_item(q, 50000, 6);
    drop_queue(q);
    under_test = other;
    CHECK_EQ(jnq_id(other), id);
    CHECK_EQ(jnq_maxsize(other), 3);
    CHECK_EQ(jnq_qsize(other), 2);
    get_item(other, 5, 5);
    get_item(other, 50000, 6);
    drop_queue(other);
}

static void works_without_memfd(void)
{
    const char *dir = getenv("TMPDIR");
    char path[4096];
    snprintf(path, sizeof path, "%s/joinq-test-XXXXXX", dir ? dir : "/tmp");
    int fd = mkstemp(path);
    CHECK_OP(fd, >=, 0);
    unlink(path);
    jnq_queue *q;
    CHECK_EQ(jnq_create(fd, 0, JNQ_RAISE, 1, &q), JNQ_OK);
    under_test = q;
    for (uint64_t i = 0; i < 100; i++)
        put_item(q, i * 1000, i);
    for (uint64_t i = 0; i < 100; i++)
        get_item(q, i * 1000, i);
    drop_queue(q);
}

/* --- memory ------------------------------------------------------------------------------------------------------ */

static void ready_backs_and_return_gives_back(void)
{
    jnq_queue *q = make_queue(0);
    uint64_t off = q->sh->heap_off + (100 << 20), bytes = 1 << 20, before = backed_bytes(q);
    CHECK_EQ(segment_ready(q, off, bytes), 0);
    CHECK_EQ(backed_bytes(q), before + bytes);
    memset(q->base + off, 1, bytes);
    CHECK(segment_return(q, off, bytes));
    CHECK_EQ(backed_bytes(q), before);
    CHECK_EQ(q->base[off], 0);
    CHECK(segment_return(q, off, bytes));
    drop_queue(q);
}

TESTS("segment", refuses_what_is_no_queue, refuses_another_stamp, refuses_a_truncated_one, nobody_can_cut_it_off,
      creates_in_empty_files_only, is_sparse_and_fits_limits, layout_has_no_overlap, closed_descriptor_is_known,
      detach_closes_what_is_ours, queue_outlives_its_creator, works_without_memfd, ready_backs_and_return_gives_back)
