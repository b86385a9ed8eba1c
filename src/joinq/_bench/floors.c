/* floors: what the hardware and the kernel allow at best, without a queue, without Python. floors.py compiles and runs
 * it; by hand:
 *
 *   floors round_trip N      p50 of N round trips of a word between two processes that spin, then sleep
 *   floors wake N            p50 of N wakes: from FUTEX_WAKE to the woken process running, after 50 ms asleep
 *   floors copy BYTES        median of one copy into shared memory and one out of it, one process
 *   floors pipeline BYTES    the same between two processes that work at the same time, per item
 *   floors fresh BYTES       median of one copy out of warm shared memory into memory that the system gives for it
 *
 * It prints seconds. Exit code 1, with a line on stderr: this system cannot do it.
 *
 * Death: a child dies with its parent; a parent whose child has died waits no longer than LOOK_NS. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000
#define SPIN_NS 30000          /* before a sleep; waking a process takes about as long */
#define ASLEEP_NS 50000000     /* before a wake */
#define LOOK_NS 100000000      /* one sleep, at most */
#define MEASURE_NS 300000000   /* of copying */
#define ROUNDS_MIN 11
#define ROUNDS_MAX 100000
#define SLOTS_BYTES (16 << 20) /* of all slots of a pipeline, which are ... */
#define SLOTS_MIN 4
#define SLOTS_MAX 64

/* A word that one process writes and another waits for, alone on its cache lines. */
struct channel {
    _Alignas(128) uint32_t word;
    uint32_t asleep; /* the reader may be asleep; written by both */
};

struct shared {
    struct channel there, back;
    _Alignas(128) int64_t woken_ns; /* when the sleeper ran again */
};

static pid_t child;

_Noreturn static void give_up(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND + now.tv_nsec;
}

static void nap(int64_t ns)
{
    struct timespec span = {.tv_sec = ns / SECOND, .tv_nsec = ns % SECOND};
    nanosleep(&span, NULL);
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static uint32_t load(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }

/* --- memory and processes --------------------------------------------------------------------------------------- */

static void *private_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        give_up("mmap");
    memset(memory, 1, bytes); /* so that its pages are there */
    return memory;
}

static void *shared_memory(size_t bytes)
{
    int fd = (int)syscall(SYS_memfd_create, "floors", 1u /* MFD_CLOEXEC */);
    if (fd < 0 || ftruncate(fd, (off_t)bytes))
        give_up("memfd_create");
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        give_up("mmap");
    memset(memory, 0, bytes);
    return memory;
}

/* True in the child. */
static bool split(void)
{
    pid_t parent = getpid();
    child = fork();
    if (child < 0)
        give_up("fork");
    if (child)
        return false;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    return true;
}

static void end_child(void)
{
    kill(child, SIGKILL);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* Spinning helps only if the other process can run meanwhile. */
static int64_t spin_ns(void)
{
    cpu_set_t usable;
    return !sched_getaffinity(0, sizeof usable, &usable) && CPU_COUNT(&usable) == 1 ? 0 : SPIN_NS;
}

/* --- channels --------------------------------------------------------------------------------------------------- */

/* Sleeps while the word is `old`, or for LOOK_NS; the parent ends if its child has. */
static void sleep_once(struct channel *c, uint32_t old)
{
    struct timespec most = {.tv_nsec = LOOK_NS};
    syscall(SYS_futex, &c->word, FUTEX_WAIT, old, &most, NULL, 0);
    if (child && waitpid(child, NULL, WNOHANG) == child) {
        fprintf(stderr, "the other process has died\n");
        exit(1);
    }
}

/* Waits until the word is no longer `old`, and gives it. */
static uint32_t await(struct channel *c, uint32_t old, int64_t spin)
{
    uint32_t word;
    int64_t until = spin ? now_ns() + spin : 0;
    do {
        for (int i = 0; i < 64; i++) {
            if ((word = load(&c->word)) != old)
                return word;
            relax();
        }
    } while (spin && now_ns() < until);
    for (;;) {
        __atomic_store_n(&c->asleep, 1, __ATOMIC_SEQ_CST);
        if ((word = __atomic_load_n(&c->word, __ATOMIC_SEQ_CST)) != old)
            return word;
        sleep_once(c, old);
    }
}

static void wake(struct channel *c) { syscall(SYS_futex, &c->word, FUTEX_WAKE, 1, NULL, NULL, 0); }

/* Writes the word and wakes the reader if it may be asleep. */
static void tell(struct channel *c, uint32_t word)
{
    __atomic_store_n(&c->word, word, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&c->asleep, __ATOMIC_SEQ_CST)) {
        __atomic_store_n(&c->asleep, 0, __ATOMIC_SEQ_CST);
        wake(c);
    }
}

/* --- statistics ------------------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    double one = *(const double *)a, other = *(const double *)b;
    return (one > other) - (one < other);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static double *room_for(size_t n)
{
    double *values = calloc(n, sizeof *values);
    if (!values)
        give_up("calloc");
    return values;
}

/* --- what is measured ------------------------------------------------------------------------------------------- */

static double round_trip(size_t n)
{
    struct shared *sh = shared_memory(sizeof *sh);
    int64_t spin = spin_ns();
    if (split())
        for (uint32_t word = 0;;)
            tell(&sh->back, word = await(&sh->there, word, spin));
    size_t warm_up = n / 10 + 100;
    double *took = room_for(n);
    uint32_t last = 0;
    for (size_t i = 0; i < warm_up + n; i++) {
        int64_t began = now_ns();
        tell(&sh->there, last + 1);
        last = await(&sh->back, last, spin);
        if (i >= warm_up)
            took[i - warm_up] = (double)(now_ns() - began) / SECOND;
    }
    end_child();
    return median(took, n);
}

static double wake_up(size_t n)
{
    struct shared *sh = shared_memory(sizeof *sh);
    if (split())
        for (uint32_t word = 0;; word++) {
            tell(&sh->back, word + 1); /* about to sleep */
            while (load(&sh->there.word) == word)
                sleep_once(&sh->there, word);
            sh->woken_ns = now_ns();
        }
    double *took = room_for(n);
    int64_t began = 0;
    for (uint32_t word = 0; word <= n; word++) {
        await(&sh->back, word, 0); /* it has told when it woke the last time, too */
        if (word)
            took[word - 1] = (double)(sh->woken_ns - began) / SECOND;
        nap(ASLEEP_NS);
        began = now_ns();
        __atomic_store_n(&sh->there.word, word + 1, __ATOMIC_SEQ_CST);
        wake(&sh->there);
    }
    end_child();
    return median(took, n);
}

/* A compiler that knows what memcpy() does could leave a copy out that nobody reads. */
static void *(*const volatile copy)(void *, const void *, size_t) = memcpy;

static double copy_in_and_out(size_t bytes)
{
    char *from = private_memory(bytes), *shared = shared_memory(bytes), *to = private_memory(bytes);
    size_t at_once = bytes < 65536 ? 65536 / bytes : 1, n = 0; /* so that reading the clock does not count */
    double *took = room_for(ROUNDS_MAX);
    int64_t first = 0;
    for (int64_t began = now_ns(), now; n < ROUNDS_MIN || (n < ROUNDS_MAX && began - first < MEASURE_NS); began = now) {
        for (size_t i = 0; i < at_once; i++) {
            copy(shared, from, bytes);
            copy(to, shared, bytes);
        }
        now = now_ns();
        if (first)
            took[n++] = (double)(now - began) / (double)at_once / SECOND;
        else
            first = now; /* the first round has warmed up */
    }
    return median(took, n);
}

/* Of a private item so large that the allocator asks the system for it each time. */
static double copy_out_fresh(size_t bytes)
{
    char *shared = shared_memory(bytes);
    double *took = room_for(ROUNDS_MIN);
    for (size_t n = 0; n < ROUNDS_MIN; n++) {
        int64_t began = now_ns();
        char *to = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (to == MAP_FAILED)
            give_up("mmap");
        madvise(to, bytes, MADV_HUGEPAGE); /* if it may */
        copy(to, shared, bytes);
        munmap(to, bytes);
        took[n] = (double)(now_ns() - began) / SECOND;
    }
    return median(took, ROUNDS_MIN);
}

/* `there` is how many items the producer has put, `back` how many the consumer has taken. Each side has two payloads of
 * its own, as one that still uses the last. */
static double pipeline(size_t bytes)
{
    size_t slots = SLOTS_BYTES / bytes;
    slots = slots < SLOTS_MIN ? SLOTS_MIN : slots > SLOTS_MAX ? SLOTS_MAX : slots;
    struct shared *sh = shared_memory(sizeof *sh);
    char *shared = shared_memory(slots * bytes), *mine = private_memory(2 * bytes);
    int64_t spin = spin_ns();
    if (split())
        for (uint32_t taken = 0, put = 0;; taken++) {
            while (put == taken)
                put = await(&sh->there, put, spin);
            copy(mine + taken % 2 * bytes, shared + taken % slots * bytes, bytes);
            tell(&sh->back, taken + 1);
        }
    /* Means of batches that take about a millisecond, or of ten large items. */
    uint32_t batch = (uint32_t)(bytes < 1 << 20 ? (10 << 20) / (bytes + 256) : 10), put = 0, taken = 0;
    double *took = room_for(ROUNDS_MAX);
    size_t n = 0;
    int64_t first = 0;
    for (int64_t began = now_ns(), now; n < ROUNDS_MIN || (n < ROUNDS_MAX && began - first < MEASURE_NS); began = now) {
        for (uint32_t i = 0; i < batch; i++, put++) {
            while (put - taken == slots)
                taken = await(&sh->back, taken, spin);
            copy(shared + put % slots * bytes, mine + put % 2 * bytes, bytes);
            tell(&sh->there, put + 1);
        }
        now = now_ns();
        if (first)
            took[n++] = (double)(now - began) / batch / SECOND;
        else
            first = now;
    }
    end_child();
    return median(took, n);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        double (*measure)(size_t);
    } floors[] = {{"round_trip", round_trip},
                  {"wake", wake_up},
                  {"copy", copy_in_and_out},
                  {"fresh", copy_out_fresh},
                  {"pipeline", pipeline}};
    char *end = NULL;
    unsigned long long size = argc == 3 ? strtoull(argv[2], &end, 10) : 0;
    if (size && !*end && size <= SIZE_MAX / 4)
        for (size_t i = 0; i < sizeof floors / sizeof *floors; i++)
            if (!strcmp(argv[1], floors[i].name)) {
                printf("%.12f\n", floors[i].measure((size_t)size));
                return 0;
            }
    fprintf(stderr, "usage: %s round_trip|wake|copy|fresh|pipeline NUMBER\n", argv[0]);
    return 2;
}
