/* layout: the segment that processes share, and the handle through which one process sees it.
 *
 * `sh->` is what everybody sees, `q->` is private to this process. Positions are byte offsets from the
 * start of the segment; it is mapped at another address in every process. The heap is counted in
 * units (pages).
 *
 *   | struct jnq_shared | process table | unit map  | heap: blocks, extents, cells ...              |
 *   0                   procs_off       map_off     heap_off                            segment_bytes
 *
 * The file is sparse: reserved once, backed by memory only where used (heap.h).
 *
 * What the words mean
 *   puts    items ever put         takes  items ever taken from the blocks     dones  tasks reported done
 *   front, dead  lists of cells, with their lengths
 *   queued     = puts - takes + length of front   (0 after a cut)
 *   finished   = dones + length of dead
 *   unfinished = puts - finished      (after a cut: cut - 1 - finished; see counts.h)
 * No count is stored that could be computed: each operation takes effect in one store to one word, and a
 * process that dies before or after it leaves every derived figure right.
 *
 * State            written by         guard      order          if the writer dies here
 *   stamp          creator            none       before attach  attach finds no magic and refuses
 *   tail.pos/end   put                tail lock  plain          fifo_repair_tail derives them from tail.block
 *   tail.block     put                tail lock  plain          old value: the walk follows `next`
 *   puts           put                tail lock  sc R1 / acq    none: the one step of a put
 *   joining        join, put          none       sc             a hint; costs a load until cleared
 *   head.pos, .off get                head lock  plain          fifo_repair_head derives them from head.block
 *   head.block     get                head lock  plain          old value: the walk follows `next`
 *   head.puts_seen get                head lock  plain          a lower bound of puts; may lag
 *   head.front     get, unget,        head lock  sc             none: the one step of an unget or its get, or of
 *                  reap                                         a redelivery
 *   head.dead      reap               head lock  sc             none: the one step that makes dead letters
 *   head.note      see note.h         head lock
 *   takes          get                head lock  sc R2 / acq    none: the one step of a get
 *   dones          task_done          none       cas R3         none: the one step of a task_done
 *                  (redeliver: finish, under the head lock)
 *   foreign        task_done, reap    none       sc             none: only ever set
 *   zero_at        task_done, put     none       cas            a put records the zero it ends (counts.h)
 *   ended          shutdown           tail lock  sc R4          none: the one step of a shutdown
 *   cut            shutdown           both       sc R5          none: the one step of a discard
 *   events         see event.h
 *   heap.*, map    see heap.h         heap lock
 *   procs          see procs.h        procs lock
 *   asked, ready   see ready.h
 *   spinning,      see spin.h
 *     coming
 *   measured       creator            none       before attach  nothing is counted
 *   kind, name     creator            none       before attach  nobody else has it
 *   figures.bytes, put                tail lock  relaxed        this put is missing from them
 *     .backlog
 *   recoveries     recover.c          none       sc             a figure for people
 *   broken         recover.c, heap.c  none       sc             the next one finds the same
 *
 * Locks are taken in the order procs, tail, head, heap; one of ready alone, or after procs. None is held while waiting
 * for a state.
 *
 * Invariants (jnq_check() evaluates them with all locks held)
 *   I1  takes <= puts, and dones <= puts
 *   I2  from head.block at `takes` to tail.block at `puts` the blocks hold items numbered without a gap,
 *       and head.pos and .off, tail.pos are where that walk begins and ends
 *   I3  the runs of the unit map tile the heap
 *   I4  every block, extent and front cell that can be reached is one used run, reached once
 *   I5  every used run that cannot be reached belongs to a process of the table
 *   I6  the front list and the dead letters are as long as their words say
 *   I7  with JNQ_REDELIVER, there are as many leases as tasks that are neither queued nor finished
 *
 * Not provided: use from several pid or time namespaces (procs.h says why; it is refused) or under another page size
 * than the creator's. */
#ifndef JNQ_LAYOUT_H
#define JNQ_LAYOUT_H

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "event.h"
#include "jnq.h"

#define JNQ_MAGIC 0x716e696f6a30ff89u /* "\x89\xff0joinq", low byte first */
#define JNQ_FORMAT 6u

#define LINE_BYTES 64
#define BLOCK_BYTES 65536 /* the unit in which the queue itself grows */
#define LIST_BITS 24      /* of the front and the dead word, for the length of the list */
#define PROCS_MAX 65535   /* so many processes can be attached at once; fewer to a small segment */
#define PROCS_SHARE 32    /* of a small segment: that part is their table */
#define PROC_TAKEN 8
#define OBITS 8
#define JNQ_WAITS 3 /* enum jnq_wait */
#define SPIN_SLOTS 8
#define DONES_BITS 16
#define DONES (((uint64_t)-1) >> DONES_BITS)

/* One robust lock and the words that only its holders touch. */
struct jnq_tail {
    pthread_mutex_t lock;
    uint64_t block; /* unit of the block that is written to */
    uint64_t pos;   /* where the next record goes */
    uint64_t end;   /* no record may end behind this; a JNQ_END record always fits */
};

/* What the holder of the head lock is about to do: see note.h. */
struct jnq_note {
    uint32_t kind;  /* of the step; 0: none is under way */
    uint32_t owner; /* whose task */
    uint64_t word;  /* offset of the word that the step changes */
    uint64_t value; /* what it will be then */
    uint64_t unit;  /* the lease, or 0 */
    uint64_t takes; /* what the owner's figure will be then */
};

struct jnq_head {
    pthread_mutex_t lock;
    uint64_t block;     /* unit of the block that is read from */
    uint64_t pos;       /* the record that holds item number `takes` */
    uint64_t off;       /* where that begins in the payload of a JNQ_CHUNK; else 0 */
    uint64_t puts_seen; /* never more than puts */
    uint64_t front;     /* front list: unit of its first cell, and in the upper LIST_BITS its length; 0: empty */
    uint64_t dead;      /* dead letters: the same */
    struct jnq_note note;
    uint64_t redeliveries; /* a figure for people */
};

#define RECENT 8
struct jnq_heap {
    pthread_mutex_t lock;
    uint64_t top;            /* hint: first unit of the free run that ends the heap */
    uint64_t rover[2];       /* hints: where the next walk begins, to allocate and to shrink */
    uint64_t free_warm;      /* units that are free and backed by memory */
    uint64_t used;           /* units in used runs */
    uint64_t map_ready;      /* bytes of the unit map that are backed by memory */
    uint64_t keep;           /* units that may stay warm for large items that pass now, */
    uint64_t passed;         /* how many have passed, */
    uint64_t there;          /* and the most that were in use meanwhile */
    uint64_t peak;           /* the most that `used` has been; a figure for people */
    uint64_t recent[RECENT]; /* hints: warm free runs, newest first; 0 is none */
};

/* Who has died. */
struct jnq_obit {
    uint64_t time_ms; /* when it was found, since the epoch */
    uint64_t tasks;   /* that it had in hand */
    uint32_t pid;
    uint16_t status; /* as in its entry, as is the rest */
    uint16_t exit;
    char name[JNQ_NAME_BYTES];
};

struct jnq_procs {
    pthread_mutex_t lock;
    uint64_t count;               /* entries ever used; those behind were never touched */
    uint64_t ready;               /* bytes of the table that are backed by memory */
    uint64_t rover;               /* where the next look for the dead begins */
    uint64_t deaths;              /* of processes that did not end in order */
    uint64_t graves;              /* entries in the state PROC_GRAVE; may lag */
    uint64_t seen_ns;             /* when waiters last looked for the dead */
    struct jnq_obit obits[OBITS]; /* of the last of them, by `deaths` before */
};

enum proc_exit { EXIT_CLEAN = 1, EXIT_FAILED = 2 };
enum proc_state { PROC_FREE = 0, PROC_LIVE = 1, PROC_GRAVE = 2 };

/* One attached handle. Owner number: index + 1. */
struct jnq_proc {
    uint64_t start; /* of the process, in clock ticks since boot: tells a reused pid apart */
    /* Of all processes that have had the entry: so nothing is lost when one dies. */
    uint64_t blocked_ns[JNQ_WAITS]; /* how long their threads waited, by enum jnq_wait */
    uint64_t wakes;                 /* how often a sleeping thread was woken */
    uint32_t pid;
    uint32_t state;                /* enum proc_state; the last word to be set, the last to be cleared */
    uint64_t takes;                /* tasks taken, less those given back */
    uint64_t dones;                /* tasks reported done, and in the upper DONES_BITS how many reports are under way */
    uint64_t taken_ns[PROC_TAKEN]; /* when it took them, by the last bits of takes; not with JNQ_IGNORE */
    uint64_t wait_ns[JNQ_WAITS];   /* since when, by enum jnq_wait */
    uint64_t left_ns[JNQ_WAITS];   /* when the last one stopped waiting; odd: and its call ended */
    uint64_t puts;                 /* items put */
    uint64_t active_ns;            /* when it was last noted to do something: see procs.h */
    uint32_t waiting[JNQ_WAITS];   /* threads that wait */
    uint8_t exit;                  /* announced: enum proc_exit */
    uint8_t mute;                  /* 1: it will not put any more */
    uint16_t status;               /* of a dead one, as wait(2) has it; 0: not known */
    char name[JNQ_NAME_BYTES];
};

/* A pipe that is filled or empty, for poll(2). */
struct jnq_ready {
    pthread_mutex_t lock;
    uint32_t shown; /* 1: it is filled */
    uint32_t again; /* the state has changed while the lock was busy */
    uint64_t pipe;  /* its inode; 0: there is none */
    uint64_t dev;
    uint32_t pid; /* whose, */
    uint32_t fd;  /* and which descriptor it is there */
};

/* Of a measured queue: figures for people, which nothing depends on. */
struct jnq_figures {
    uint64_t bytes;   /* of all payloads ever put */
    uint64_t backlog; /* the most items that were ever queued */
};

struct jnq_shared {
    /* Written once by the creator; magic last. Checked by segment_open(), and not looked at again (but
     * for the last two, by procs_foreign()). */
    uint64_t magic;
    uint64_t stamp; /* format, door and struct sizes: layout_stamp() */
    uint64_t segment_bytes;
    uint64_t unit_bytes;
    uint64_t units;
    uint64_t procs_off;
    uint64_t map_off;
    uint64_t heap_off;
    uint64_t id;      /* random: tells a queue from a later one whose file has the same number */
    uint64_t maxsize; /* 0: unbounded */
    uint32_t on_death;
    uint32_t max_deliveries;
    uint64_t pids; /* the creator's namespaces: see procs_foreign() */
    uint64_t times;
    uint64_t recoveries;
    uint64_t foreign; /* whose the unfinished tasks are cannot be told any more: see counts.h */
    uint64_t broken;  /* a lock or its repair shows what only foreign writes can cause: all are refused from then on */
    uint32_t measured;
    uint32_t asked; /* by enum jnq_wait, a bit each: somebody wants to poll() for it */
    uint64_t kind;  /* enum jnq_class, for people, as is the name */
    char name[JNQ_LABEL_BYTES];

    _Alignas(LINE_BYTES) struct jnq_tail tail;

    _Alignas(LINE_BYTES) uint64_t puts;
    uint32_t ended;
    uint32_t joining;       /* somebody may be in join() */
    struct jnq_event items; /* get waits for an item */

    _Alignas(LINE_BYTES) struct jnq_head head;

    _Alignas(LINE_BYTES) uint64_t takes;
    uint64_t cut;           /* 0, or 1 + the tasks that were in hand or done when the queue was cut */
    struct jnq_event space; /* put waits for room */

    _Alignas(LINE_BYTES) uint64_t dones;
    uint64_t zero_at;      /* the greatest `puts` at which no task was seen unfinished */
    struct jnq_event zero; /* join waits for zero */

    _Alignas(LINE_BYTES) struct jnq_heap heap;
    _Alignas(LINE_BYTES) struct jnq_procs procs;
    _Alignas(LINE_BYTES) struct jnq_ready ready[JNQ_WAITS];
    _Alignas(LINE_BYTES) struct jnq_figures figures;
    _Alignas(LINE_BYTES) uint64_t spinning[SPIN_SLOTS]; /* until when, each */
    uint64_t coming;                                    /* when a large item that is being copied will be there */
};

/* A block: records in the order of their numbers, then JNQ_END if there is a next block. */
struct jnq_block {
    uint64_t next;  /* unit; valid once JNQ_END was written */
    uint64_t first; /* number of its first record */
    char room[LINE_BYTES - 16];
};

/* A record begins on a cache line and takes whole lines. Written before R1 by the one put that holds the
 * tail lock, read after it by the one get that holds the head lock; never changed in between. */
struct jnq_record {
    uint64_t number; /* of its first item */
    uint16_t kind;
    uint16_t form; /* of its item; JNQ_CHUNK: how many items it holds */
    uint32_t inline_bytes;
    union {
        char payload[LINE_BYTES - 16]; /* JNQ_INLINE, JNQ_CHUNK (jnq_packed); goes on in the following lines */
        struct {
            uint64_t unit;
            uint64_t bytes;
        } extent; /* JNQ_EXTENT */
    };
};

/* A run that is put as it is, because its maker has written the item into it: see heap.h. */
struct jnq_given {
    uint64_t giver;
    char room[LINE_BYTES - 8];
    char preface[JNQ_PREFACE_BYTES];
};

/* An item in a run of its own: in the front list, which is emptied before the blocks are; leased; or a dead letter. */
struct jnq_cell {
    uint64_t next;                     /* in a list: its word without this cell */
    uint32_t deaths;                   /* takers that the task has killed */
    uint32_t deaths_then;              /* the same, if the one that has it dies */
    uint64_t death[JNQ_LETTER_DEATHS]; /* the last of them: pid, and in the lower TIME_BITS when, in ms */
    char room[LINE_BYTES - 40];
    struct jnq_record record;
};
#define TIME_BITS 42
#define CELL_BYTES_MAX (sizeof(struct jnq_cell) + JNQ_INLINE_BYTES)

static_assert(sizeof(struct jnq_event) == 48, "an event shares a cache line with its counter");
static_assert(offsetof(struct jnq_shared, puts) % LINE_BYTES == 0, "puts begins a line");
static_assert(offsetof(struct jnq_shared, takes) % LINE_BYTES == 0, "takes begins a line");
static_assert(offsetof(struct jnq_shared, dones) % LINE_BYTES == 0, "dones begins a line");
static_assert(offsetof(struct jnq_shared, items) + sizeof(struct jnq_event) ==
                  offsetof(struct jnq_shared, puts) + LINE_BYTES,
              "what a put shows and what it must look at are one line");
static_assert(sizeof(((struct jnq_shared *)0)->spinning) == LINE_BYTES, "spinners disturb nobody else");
static_assert(sizeof(struct jnq_block) == LINE_BYTES, "records follow on a line");
static_assert(sizeof(struct jnq_record) == LINE_BYTES, "a small item takes one line");
static_assert((offsetof(struct jnq_record, payload) + JNQ_INLINE_BYTES) % LINE_BYTES == 0,
              "the longest inline record fills its lines");
static_assert(sizeof(((jnq_box *)0)->copy) == JNQ_INLINE_BYTES, "a box takes the longest inline payload");
static_assert(sizeof(struct jnq_proc) == 256, "entries do not straddle pages or share lines");
static_assert(sizeof(struct jnq_given) == 4096, "what is given begins on a page");
static_assert(sizeof(struct jnq_cell) == 2 * LINE_BYTES, "a cell's record is on a line");
static_assert(sizeof(struct jnq_shared) <= 4096, "the header fits the smallest page");

/* Changes whenever two builds could not share a segment. */
static inline uint64_t layout_stamp(void)
{
    return JNQ_FORMAT | (uint64_t)EVENT_DOOR << 8 | (uint64_t)sizeof(pthread_mutex_t) << 16 |
           (uint64_t)sizeof(struct jnq_shared) << 32 | (uint64_t)sizeof(struct jnq_record) << 48;
}

/* A process's descriptor of a pipe of struct jnq_ready. Guarded by its lock. */
struct jnq_end {
    uint64_t pipe; /* which, 0: none */
    uint64_t dev;
    uint64_t refused; /* a pipe that we may not open */
    int fd;
    bool asked; /* the program knows it */
};

/* What it has learnt of spinning in calls of one kind: see spin.h. */
struct jnq_spins {
    int32_t score; /* of late: waits that were worth it, less those that were not; above 0: spin */
    uint32_t budget_ns;
    uint32_t offer_first; /* somebody has used the CPU that was offered */
    uint32_t vain;        /* waits in which not to spin for what is coming */
};

/* What one process knows of the queue. `me`, `owner` and `fork` are written under the procs
 * lock; the rest is constant after create or attach, but for `users`, an atomic count, `news`, `noticed`, and `told`,
 * which the GIL guards, and guesses that threads may race for: `spins`, and what is said to be seen, idle, in vain or
 * counted in ns. */
struct jnq_queue {
    struct jnq_shared *sh;
    char *base; /* == sh; offsets are added to it */
    /* What the header says, too, but nobody else can write here. */
    uint64_t bytes; /* mapped; all the rest follows from it */
    uint64_t unit_bytes;
    uint64_t units;
    uint64_t procs_off;
    uint64_t map_off;
    uint64_t heap_off;
    uint64_t id;
    uint64_t maxsize;
    uint32_t procs_max; /* entries of the process table */
    int fd;             /* ours, but the program may have closed or reused it: see segment_fd() */
    dev_t dev;          /* what fd was when we got it */
    ino_t ino;
    struct jnq_proc *me; /* our entry in the process table */
    uint32_t owner;      /* its number */
    uint32_t fork;       /* fork count when it was assigned */
    uint32_t put_fork;   /* and when something was put */
    uint32_t users;      /* 1 for the handle, and one for each payload that is lent */
    uint64_t idle_takes; /* when it last found the queue empty: see cool_if_idle() */
    int64_t idle_ns;     /* since when that has not changed: the same */
    uint64_t takes_seen; /* when it last needed fresh memory: see heap.c */
    uint32_t back_ns;    /* about what backing a unit has cost: the same */
    uint32_t in_vain;    /* waits that it leaves out, because the last was in vain: the same */
    uint32_t copy_ns;    /* about what copying a unit into the queue takes: see spin.c */
    uint32_t wake_ns;    /* how long after being woken a sleeper usually runs */
    uint32_t on_death;   /* as in the segment */
    uint32_t measured;   /* the same */
    uint32_t news;       /* this process has made dead letters and not said so; 2: but been interrupted for it */
    uint32_t noticed;    /* this process has noticed a death, or moved tasks of the dead, and not said so */
    uint32_t mute;       /* this process will not put any more */
    bool watched;        /* see watch.h */
    jnq_tidings told;    /* see jnq_untold() */
    struct jnq_queue *next_watched;
    struct jnq_end ends[JNQ_WAITS];
    struct jnq_spins spins[JNQ_WAITS];
};

/* The front and the dead word: the unit of the first cell, and how many there are. */
#define LIST_MAX (((uint64_t)1 << LIST_BITS) - 1)

static inline uint64_t list_unit(uint64_t word) { return word & ((uint64_t)-1 >> LIST_BITS); }

static inline uint64_t list_length(uint64_t word) { return word >> (64 - LIST_BITS); }

static inline void *at(struct jnq_queue *q, uint64_t off) { return q->base + off; }

static inline void *unit_at(struct jnq_queue *q, uint64_t unit) { return q->base + q->heap_off + unit * q->unit_bytes; }

#endif
