/* harness: what the C tests share: checks that show what they compared and what the queue held, queues in fresh files,
 * threads, and children that can be killed.
 *
 * A test is a program of one file: harness.h first, then `static void` functions without arguments, then
 * `TESTS("unit", one, other, ...)`, or TESTS_IN_ALL_MODES, which runs all of them with each of enum jnq_on_death. It
 * prints one line if all of them pass; `test_unit word` runs only those whose name holds the word.
 *
 * Environment
 *   JNQ_TEST_SCALE  multiplies how often the repeated parts run (1; builds with a sanitizer run a quarter of it)
 *   JNQ_TEST_SEED   where the random numbers begin (1); a failure shows it
 *
 * Threads: ThreadSanitizer cannot fork a process with threads, so a test joins its threads before it forks. Nor does it
 * see an order between two threads that comes about through another process: where it watches, threads share memory
 * with threads only, or processes of one thread each. */
#ifndef HARNESS_H
#define HARNESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "atomics.h"
#include "event.h"
#include "jnq.h"
#include "layout.h"

#define GUARD_SECONDS 120
#define MILLISECOND 1000000
#define SECOND 1000000000ll

/* --- sanitizers ------------------------------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif
#if defined(__SANITIZE_THREAD__)
#define THREADS_WATCHED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREADS_WATCHED 1
#endif
#endif
#ifndef THREADS_WATCHED
#define THREADS_WATCHED 0
#endif

const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "halt_on_error=1"; }
const char *__ubsan_default_options(void);
const char *__ubsan_default_options(void) { return "print_stacktrace=1"; }

/* --- checks ------------------------------------------------------------------------------------------------- */

static const char *running = "?"; /* the test */
static jnq_queue *under_test;     /* what a failure shows: the queue made last */
static int mode = JNQ_RAISE;      /* enum jnq_on_death, of the queues to be made */

static uint64_t seed(void)
{
    const char *text = getenv("JNQ_TEST_SEED");
    return text ? strtoull(text, NULL, 10) : 1;
}

static inline unsigned scaled(unsigned n)
{
    const char *text = getenv("JNQ_TEST_SCALE");
    double scale = text ? atof(text) : 1;
    double result = n * scale / (SANITIZED ? 4 : 1);
    return result < 1 ? 1 : (unsigned)result;
}

static void dump(jnq_queue *q)
{
    jnq_counters c;
    jnq_count(q, &c);
    fprintf(stderr,
            "  puts %llu takes %llu dones %llu queued %llu unfinished %llu maxsize %llu\n"
            "  segment %llu used %llu reserve %llu bytes; processes %llu recoveries %llu deaths %llu\n"
            "  on_death %d redeliveries %llu dead_letters %llu foreign %llu\n",
            (unsigned long long)c.puts, (unsigned long long)c.takes, (unsigned long long)c.dones,
            (unsigned long long)c.queued, (unsigned long long)c.unfinished, (unsigned long long)c.maxsize,
            (unsigned long long)c.segment_bytes, (unsigned long long)c.used_bytes, (unsigned long long)c.reserve_bytes,
            (unsigned long long)c.processes, (unsigned long long)c.recoveries, (unsigned long long)c.deaths,
            jnq_on_death(q), (unsigned long long)c.redeliveries, (unsigned long long)c.dead_letters,
            (unsigned long long)c.foreign);
}

_Noreturn static void fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s: %s (door %s, seed %llu, pid %d)\n", file, line, running, what, jnq_door(),
            (unsigned long long)seed(), (int)getpid());
    if (under_test)
        dump(under_test);
    abort();
}

_Noreturn static inline void fail_compared(const char *file, int line, const char *what, long long a, long long b)
{
    char text[400];
    snprintf(text, sizeof text, "%s: %lld, %lld", what, a, b);
    fail(file, line, text);
}

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fail(__FILE__, __LINE__, #condition);                                                                      \
    } while (0)

/* CHECK_OP(a, <, b) shows the values of both. */
#define CHECK_OP(a, op, b)                                                                                             \
    do {                                                                                                               \
        long long left_ = (long long)(a), right_ = (long long)(b);                                                     \
        if (!(left_ op right_))                                                                                        \
            fail_compared(__FILE__, __LINE__, #a " " #op " " #b, left_, right_);                                       \
    } while (0)
#define CHECK_EQ(a, b) CHECK_OP(a, ==, b)

static void hangs(int signal)
{
    (void)signal;
    fail(__FILE__, __LINE__, "hangs");
}

/* Ends this process, with the name of the test, if it is not done in time. */
static void guard(void)
{
    signal(SIGALRM, hangs);
    alarm(GUARD_SECONDS);
}

typedef void test_function(void);

static inline unsigned run_in_mode(int argc, char **argv, const char *names, test_function *const *tests,
                                   unsigned count)
{
    unsigned ran = 0;
    for (unsigned i = 0; i < count; i++) {
        char name[64];
        size_t n = strcspn(names, ", ");
        snprintf(name, sizeof name, "%.*s", (int)n, names);
        names += n;
        names += strspn(names, ", ");
        if (argc > 1 && !strstr(name, argv[1]))
            continue;
        running = name;
        tests[i]();
        CHECK(!under_test);
        ran++;
    }
    return ran;
}

static inline int run_tests(const char *unit, int argc, char **argv, const char *names, test_function *const *tests,
                            unsigned count, int first_mode, int last_mode)
{
    unsigned ran = 0;
    for (mode = first_mode; mode <= last_mode; mode++) {
        guard();
        ran += run_in_mode(argc, argv, names, tests, count);
    }
    printf("%s: %u tests passed (%s)\n", unit, ran, jnq_door());
    return ran ? 0 : 1;
}

#define TESTS_IN(first_mode, last_mode, unit, ...)                                                                     \
    int main(int argc, char **argv)                                                                                    \
    {                                                                                                                  \
        test_function *const tests[] = {__VA_ARGS__};                                                                  \
        return run_tests(unit, argc, argv, #__VA_ARGS__, tests, sizeof tests / sizeof *tests, first_mode, last_mode);  \
    }
#define TESTS(unit, ...) TESTS_IN(JNQ_RAISE, JNQ_RAISE, unit, __VA_ARGS__)
#define TESTS_IN_ALL_MODES(unit, ...) TESTS_IN(JNQ_IGNORE, JNQ_REDELIVER, unit, __VA_ARGS__)

/* --- random numbers and payloads ---------------------------------------------------------------------------- */

/* Requires *state != 0. */
static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline uint64_t random_state(uint64_t number) { return (seed() + number) * 0x9e3779b97f4a7c15u | 1; }

static inline uint64_t below(uint64_t *state, uint64_t end) { return next_random(state) % end; }

/* So many words of an item are made at a time, and then copied or compared by one call: most of the time of those who
 * pass large items goes into this. */
#define WORDS 64

#if THREADS_WATCHED
#define UNWATCHED __attribute__((no_sanitize("thread")))
#else
#define UNWATCHED
#endif

/* Of a buffer that nobody else has. */
UNWATCHED static inline void make_words(uint64_t words[WORDS], uint64_t first)
{
    for (uint64_t i = 0; i < WORDS; i++) {
        uint64_t word = first + i * 0xd1b54a32d192ed03u;
        words[i] = word ^ word >> 32;
    }
}

/* The bytes of the item called `name`; two names differ in nearly all of them, and so do two words of one item. */
static inline void fill(char *payload, uint64_t bytes, uint64_t name)
{
    uint64_t words[WORDS];
    for (uint64_t at = 0, n; at < bytes; at += n) {
        n = bytes - at < sizeof words ? bytes - at : sizeof words;
        make_words(words, name * 0x9e3779b97f4a7c15u + at / 8 * 0xd1b54a32d192ed03u);
        memcpy(payload + at, words, n);
    }
}

static inline bool filled(const char *payload, uint64_t bytes, uint64_t name)
{
    uint64_t words[WORDS];
    for (uint64_t at = 0, n; at < bytes; at += n) {
        n = bytes - at < sizeof words ? bytes - at : sizeof words;
        make_words(words, name * 0x9e3779b97f4a7c15u + at / 8 * 0xd1b54a32d192ed03u);
        if (memcmp(payload + at, words, n))
            return false;
    }
    return true;
}

/* --- queues --------------------------------------------------------------------------------------------------- */

static inline int fresh_memfd(void)
{
    int fd = memfd_create("joinq-test", MFD_CLOEXEC);
    CHECK_OP(fd, >=, 0);
    return fd;
}

static inline jnq_queue *make_mortal_queue(uint64_t maxsize, int on_death, uint32_t max_deliveries)
{
    jnq_queue *q;
    CHECK_EQ(jnq_create(fresh_memfd(), maxsize, on_death, max_deliveries, &q), JNQ_OK);
    return under_test = q;
}

/* One of the mode under test, without dead letters. */
static inline jnq_queue *make_queue(uint64_t maxsize) { return make_mortal_queue(maxsize, mode, UINT32_MAX); }

/* One whose segment has at most so many bytes. */
static inline jnq_queue *make_small_queue(uint64_t maxsize, uint64_t bytes)
{
    struct rlimit usual, small;
    CHECK(!getrlimit(RLIMIT_FSIZE, &usual));
    small = usual;
    small.rlim_cur = bytes;
    CHECK(!setrlimit(RLIMIT_FSIZE, &small));
    jnq_queue *q = make_queue(maxsize);
    CHECK(!setrlimit(RLIMIT_FSIZE, &usual));
    return q;
}

/* Another mapping and another owner, in this process. */
static inline jnq_queue *second_handle(jnq_queue *q)
{
    jnq_queue *other;
    CHECK_EQ(jnq_attach(dup(jnq_fileno(q)), &other), JNQ_OK);
    return other;
}

/* As if the process with this handle, and this pid, had died just now. */
static inline void kill_handle(jnq_queue *other, uint32_t pid)
{
    other->me->pid = pid;
    other->me->start--; /* an earlier process of that pid */
    other->fork = 0;    /* so that it does not leave */
    other->users = 1;
    jnq_detach(other);
}

/* Checks the invariants and leaves the queue; the test must have no other handle that it did not detach. */
static inline void drop_queue(jnq_queue *q)
{
    CHECK_EQ(jnq_check(q), 0);
    under_test = NULL;
    jnq_detach(q);
}

/* Where the counters begin: at 0, and before 32 or 63 bits are used up. */
static const uint64_t bases[] = {0, UINT32_MAX - 2u, INT64_MAX - 2u};
#define EACH_BASE(base)                                                                                                \
    for (uint64_t base##_i = 0, base; base##_i < sizeof bases / sizeof *bases && (base = bases[base##_i], 1);          \
         base##_i++)

/* As if `base` items had been put, taken and done. Requires a queue that was not used yet. */
static inline void rebase(jnq_queue *q, uint64_t base)
{
    struct jnq_shared *sh = q->sh;
    CHECK_EQ(sh->puts, 0);
    sh->puts = sh->takes = sh->dones = sh->zero_at = sh->head.puts_seen = base;
    ((struct jnq_block *)unit_at(q, sh->head.block))->first = base;
    /* Events wrap: let each do so soon. */
    struct jnq_event *events[] = {&sh->items, &sh->space, &sh->zero};
    for (int i = 0; i < 3; i++)
        events[i]->seq = events[i]->all = base ? UINT32_MAX - 2 : 0;
}

static inline jnq_counters counters(jnq_queue *q)
{
    jnq_counters c;
    jnq_count(q, &c);
    return c;
}

/* Memory behind the file, holes not counted. */
static inline uint64_t backed_bytes(jnq_queue *q)
{
    struct stat file;
    CHECK(!fstat(jnq_fileno(q), &file));
    return (uint64_t)file.st_blocks * 512;
}

/* What is used when no item is in the queue or in anybody's hands: the block of the head and that of the tail. */
static inline uint64_t idle_bytes(jnq_queue *q)
{
    return q->sh->head.block == q->sh->tail.block ? BLOCK_BYTES : 2 * BLOCK_BYTES;
}

static inline void put_item(jnq_queue *q, uint64_t bytes, uint64_t name)
{
    char *payload = malloc(bytes + 1);
    CHECK(payload != NULL);
    fill(payload, bytes, name);
    int rc;
    while ((rc = jnq_put(q, payload, bytes, JNQ_FOREVER)) == JNQ_INTERRUPTED)
        ;
    CHECK_EQ(rc, JNQ_OK);
    free(payload);
}

/* A batch, as jnq_put_batch() wants it. */
struct packed {
    uint64_t bytes, items;
    _Alignas(8) char start[4 * JNQ_INLINE_BYTES];
};

/* Adds an item of so many bytes to the batch. */
static inline void pack_item(struct packed *batch, uint64_t bytes, uint64_t name)
{
    jnq_packed header = {(uint32_t)bytes, JNQ_PICKLE};
    char *to = batch->start + batch->bytes;
    uint64_t size = sizeof header + (bytes + 7) / 8 * 8;
    CHECK_OP(size, <=, sizeof batch->start - batch->bytes);
    memcpy(to, &header, sizeof header);
    fill(to + sizeof header, bytes, name);
    batch->bytes += size;
    batch->items++;
}

/* The place behind an item of a batch, which must be this one. */
static inline const char *next_packed(const char *at, uint64_t bytes, uint64_t name)
{
    jnq_packed header;
    memcpy(&header, at, sizeof header);
    CHECK_EQ(header.bytes, bytes);
    CHECK_EQ(header.form, JNQ_PICKLE);
    CHECK(filled(at + sizeof header, bytes, name));
    return at + sizeof header + (bytes + 7) / 8 * 8;
}

/* True if an answer of jnq_get() says that there is an item in the box. */
static inline bool is_item(int64_t rc) { return rc >= JNQ_LARGE || rc == JNQ_LEASED; }

/* Takes an item, which must be there, and leaves it in the box. */
static inline void take_item(jnq_queue *q, jnq_box *box, uint64_t bytes, uint64_t name)
{
    int64_t rc = jnq_get(q, box, JNQ_NOW);
    if (jnq_on_death(q) == JNQ_REDELIVER)
        CHECK_EQ(rc, JNQ_LEASED);
    else
        CHECK_EQ(rc, bytes > JNQ_INLINE_BYTES ? JNQ_LARGE : (int)bytes);
    CHECK_EQ(box->taken, 1);
    CHECK_EQ(box->lease != 0, rc == JNQ_LEASED);
    CHECK_EQ(box->bytes, bytes);
    CHECK(filled(box->payload, bytes, name));
}

/* Reports the task in the box done, and empties it. */
static inline void finish_item(jnq_queue *q, jnq_box *box)
{
    uint64_t lease = box->lease, number = box->number;
    int rc;
    jnq_release(box);
    CHECK_EQ(box->taken, 0);
    while ((rc = lease ? jnq_finish(q, lease, number) : jnq_task_done(q, 1)) == JNQ_INTERRUPTED)
        ;
    CHECK_EQ(rc, JNQ_OK);
}

/* Takes an item that must be there, and reports it done. */
static inline void get_item(jnq_queue *q, uint64_t bytes, uint64_t name)
{
    jnq_box box;
    take_item(q, &box, bytes, name);
    finish_item(q, &box);
}

/* --- threads --------------------------------------------------------------------------------------------------- */

typedef void *thread_function(void *);

static inline pthread_t start_thread(thread_function *function, void *arg)
{
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, function, arg), 0);
    return thread;
}

static inline void join_thread(pthread_t thread) { CHECK_EQ(pthread_join(thread, NULL), 0); }

/* Runs the function in n threads, with arguments of `bytes` each that begin at `args`, until all have returned. */
static inline void in_threads(unsigned n, thread_function *function, void *args, size_t bytes)
{
    pthread_t threads[64];
    CHECK_OP(n, <=, 64);
    for (unsigned i = 0; i < n; i++)
        threads[i] = start_thread(function, (char *)args + i * bytes);
    for (unsigned i = 0; i < n; i++)
        join_thread(threads[i]);
}

static inline pid_t own_tid(void) { return (pid_t)syscall(SYS_gettid); }

/* The state letter of a thread or process: S asleep, T stopped, Z zombie; 0 if there is none. */
static inline char state_of(pid_t id)
{
    char path[40], stat[300];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)id);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, stat, sizeof stat - 1);
    close(fd);
    if (n <= 0)
        return 0;
    stat[n] = 0;
    char *name_end = strrchr(stat, ')');
    return name_end && name_end[1] ? name_end[2] : 0;
}

static inline void nap(int64_t ns) { event_pause(ns); }

/* Until a thread that has announced itself sleeps in the kernel. */
static inline void until_asleep(const uint32_t *tid)
{
    uint32_t id;
    while (!(id = load_sc(tid)) || state_of((pid_t)id) != 'S')
        nap(MILLISECOND / 10);
}

/* --- processes ------------------------------------------------------------------------------------------------- */

/* Zeroed memory that children share. */
static inline void *shared_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

typedef void child_function(void *arg);

/* Runs the function in a child, which dies with this process. */
static inline pid_t start_child(child_function *function, void *arg)
{
    fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    CHECK_OP(pid, >=, 0);
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(3);
        guard();
        function(arg);
        _exit(0);
    }
    return pid;
}

static inline int wait_status(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) != pid)
        CHECK_EQ(errno, EINTR);
    return status;
}

static inline void join_child(pid_t pid) { CHECK_EQ(wait_status(pid), 0); }

/* Kills it wherever it is; it must not have failed before. */
static inline void kill_child(pid_t pid)
{
    kill(pid, SIGKILL);
    CHECK_EQ(wait_status(pid), SIGKILL);
}

/* For a child that ends with die(). */
static inline void join_dead_child(pid_t pid) { CHECK_EQ(wait_status(pid), SIGKILL); }

_Noreturn static inline void die(void)
{
    raise(SIGKILL);
    abort();
}

#endif
