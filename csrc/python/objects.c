#include "objects.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "jnq.h"

#define BATCH_BYTES 16384    /* of a batch on its way */
#define SMALL_BYTES 1024     /* a longer payload is no part of a batch */
#define GIL_KEEP_BYTES 65536 /* copying more takes long enough to let other threads run */
#define HUGE_BYTES (4u << 20)
#define BUFFER_ALIGNMENT 64
#define FORK_PATIENCE_MS 60000
#define ROUND 1000 /* objects that put_many() puts before signals and other threads have their turn */

static PyObject *declined; /* the exception class */

/* --- loans -------------------------------------------------------------------------------------------------- */

/* An item, or a part of one, in memory that is ours as long as this object lives. */
typedef struct loan {
    PyObject_HEAD jnq_box *box; /* the item, or NULL: a part */
    struct loan *whole;         /* of which it is one */
    unsigned long parts;        /* of it that live */
    char *start;
    Py_ssize_t bytes;
    int is_private;                /* a copy that a fork has made */
    int is_blank;                  /* of jnq_blank(), and neither given nor about to be */
    int made;                      /* of jnq_blank() */
    PyObject *owed_to;             /* the Port to whose queue the item goes back with this object; or NULL */
    PyObject *before;              /* and then what was taken before it in a batch; or NULL */
    int counts;                    /* as taken, since it was settled */
    struct loan *next, **previous; /* all items */
} Loan;

static PyTypeObject *loan_type;
static Loan *loans;
static size_t blanks;       /* how many of them are of jnq_blank() */
static unsigned long forks; /* of this process's ancestors: what was under way before one is the parent's */

static Loan *new_loan(char *start, uint64_t bytes)
{
    Loan *loan = PyObject_New(Loan, loan_type);
    if (!loan)
        return NULL;
    loan->box = NULL;
    loan->whole = loan->next = NULL;
    loan->parts = 0;
    loan->previous = NULL;
    loan->start = start;
    loan->bytes = (Py_ssize_t)bytes;
    loan->is_private = loan->is_blank = loan->made = loan->counts = 0;
    loan->owed_to = loan->before = NULL;
    return loan;
}

/* What of a box is in use: its end need not be there, as a batch has many. */
static size_t box_bytes(const jnq_box *box)
{
    return offsetof(jnq_box, copy) + (box->payload == box->copy ? box->bytes : 0);
}

/* `from` is empty then. */
static void move_box(jnq_box *to, jnq_box *from)
{
    memcpy(to, from, box_bytes(from));
    if (from->payload == from->copy)
        to->payload = to->copy;
    from->taken = 0;
}

/* Lets the box's item go on in an object. The box is empty then; without memory for it (NULL) it is as it was. */
static Loan *lend(jnq_box *box)
{
    Loan *loan = new_loan(NULL, box->bytes);
    if (!loan)
        return NULL;
    loan->box = PyMem_Malloc(box_bytes(box));
    if (!loan->box) {
        Py_DECREF(loan);
        PyErr_NoMemory();
        return NULL;
    }
    move_box(loan->box, box);
    loan->start = (char *)loan->box->payload;
    loan->next = loans;
    loan->previous = &loans;
    if (loans)
        loans->previous = &loan->next;
    loans = loan;
    return loan;
}

static Loan *part_of(Loan *whole, uint64_t off, uint64_t bytes)
{
    Loan *part = new_loan(whole->start + off, bytes);
    if (part) {
        Py_INCREF(whole);
        part->whole = whole;
        whole->parts++;
    }
    return part;
}

/* The pages that a loan lies in. */
static jnq_piece pages_of(const Loan *loan)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), before = (uintptr_t)loan->start % page;
    return (jnq_piece){loan->start - before, (before + (uint64_t)loan->bytes + page - 1) / page * page};
}

static int in_segment(const Loan *loan)
{
    return loan->box && loan->bytes && loan->box->taken && loan->box->payload != loan->box->copy && !loan->is_private;
}

/* Unmaps the child's copy, but not what the copy of another loan is, too: of a run that this process has both given and
 * taken. */
static void drop_copy(const Loan *loan)
{
    jnq_piece pages = pages_of(loan);
    for (Loan *other = loans; other; other = other->next) {
        jnq_piece others = pages_of(other);
        if (other->is_private && others.start < pages.start + pages.bytes && pages.start < others.start + others.bytes)
            return;
    }
    munmap((void *)(uintptr_t)pages.start, pages.bytes);
}

/* A fork under way in a thread: it lasts from before the fork until the child has its copies. */
struct gate {
    int end[2]; /* a pipe, by which the child says so; or -1 */
    struct gate *next;
};

static _Thread_local struct gate gate = {.end = {-1, -1}};
static struct gate *gates; /* of all threads */

/* Items whose loans have gone meanwhile: perhaps a child is still copying them. */
static jnq_box **kept;
static size_t n_kept;

static int keep(jnq_box *box)
{
    jnq_box **more = PyMem_Realloc(kept, (n_kept + 1) * sizeof *kept);
    if (!more)
        return 0;
    kept = more;
    kept[n_kept++] = box;
    return 1;
}

static void release_kept(void)
{
    while (n_kept && !gates) {
        jnq_box *box = kept[--n_kept];
        jnq_release(box);
        PyMem_Free(box);
    }
}

static void settle(Loan *loan, int taken);

static void loan_dealloc(Loan *loan)
{
    PyTypeObject *type = Py_TYPE(loan);
    blanks -= (size_t)loan->made;
    if (loan->previous) {
        *loan->previous = loan->next;
        if (loan->next)
            loan->next->previous = loan->previous;
    }
    settle(loan, 0);
    if (loan->is_private)
        drop_copy(loan);
    if (loan->box && !(gates && in_segment(loan) && keep(loan->box))) {
        jnq_release(loan->box);
        PyMem_Free(loan->box);
    }
    if (loan->whole)
        loan->whole->parts--;
    Py_XDECREF(loan->whole);
    PyObject_Free(loan);
    Py_DECREF(type);
}

static int loan_getbuffer(Loan *loan, Py_buffer *view, int flags)
{
    return PyBuffer_FillInfo(view, (PyObject *)loan, loan->start, loan->bytes, 0, flags);
}

static PyObject *loan_lease(Loan *loan, void *unused)
{
    (void)unused;
    uint64_t lease = loan->box ? loan->box->lease : 0, number = loan->box ? loan->box->number : 0;
    return Py_BuildValue("KK", (unsigned long long)lease, (unsigned long long)number);
}

static PyObject *loan_owed(Loan *loan, void *unused)
{
    (void)unused;
    return PyBool_FromLong(loan->owed_to != NULL);
}

static PyObject *loan_settle(Loan *loan, PyObject *taken)
{
    settle(loan, taken == Py_True);
    return PyBool_FromLong(loan->counts);
}

/* Lets the task in it count as taken, and its lease be the last one of the deque; unless it is settled, or another
 * process's, from which this one was forked meanwhile. */
static int hand_over(Loan *loan, PyObject *leases)
{
    if (!loan->owed_to)
        return 0;
    PyObject *lease = loan_lease(loan, NULL);
    PyObject *done = lease ? PyObject_CallMethod(leases, "append", "(O)", lease) : NULL;
    if (done)
        settle(loan, 1);
    Py_XDECREF(lease);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static int loan_taken(Loan *loan, PyObject *leases, void *unused)
{
    (void)unused;
    if (leases)
        return hand_over(loan, leases);
    PyErr_SetString(PyExc_AttributeError, "taken cannot be deleted");
    return -1;
}

/* --- arrivals ----------------------------------------------------------------------------------------------- */

/* What this thread unpickles: how many loads are under way, one within the other, and what is to be called when the
 * outermost has everything. Until then it may go back to the queue. */
static _Thread_local struct {
    unsigned long depth;
    PyObject *calls; /* a list, or NULL: there are none */
} loading;

/* Returns what end_loading() wants. */
static Py_ssize_t begin_loading(void)
{
    loading.depth++;
    return loading.calls ? PyList_GET_SIZE(loading.calls) : 0;
}

/* If everything is there, makes the calls or leaves them to the load around this one, else forgets them. Returns 0, or
 * -1 with an exception. */
static int end_loading(Py_ssize_t before, int all)
{
    PyObject *calls = loading.calls;
    loading.depth -= loading.depth > 0; /* it is 0 in the child of a fork that came while this was unpickled */
    if (!calls)
        return 0;
    if (loading.depth)
        return all ? 0 : PyList_SetSlice(calls, before, PyList_GET_SIZE(calls), NULL);
    loading.calls = NULL;
    int rc = 0;
    for (Py_ssize_t i = 0; all && !rc && i < PyList_GET_SIZE(calls); i++) {
        PyObject *done = PyObject_CallNoArgs(PyList_GET_ITEM(calls, i));
        rc = done ? 0 : -1;
        Py_XDECREF(done);
    }
    Py_DECREF(calls);
    return rc;
}

static PyObject *when_loaded(PyObject *module, PyObject *call)
{
    (void)module;
    if (!loading.depth)
        Py_RETURN_FALSE;
    if (!loading.calls)
        loading.calls = PyList_New(0);
    if (!loading.calls || PyList_Append(loading.calls, call))
        return NULL;
    Py_RETURN_TRUE;
}

/* --- out ---------------------------------------------------------------------------------------------------- */

static uint64_t word_at(const char *start, uint64_t index)
{
    uint64_t word;
    memcpy(&word, start + index * sizeof word, sizeof word);
    return word;
}

/* Where the parts of a parcel are. */
struct parcel {
    uint64_t pickle_off, pickle_bytes, buffers;
};

static int open_parcel(const char *start, uint64_t bytes, struct parcel *parcel)
{
    uint64_t words = bytes / sizeof(uint64_t);
    if (words < 2)
        return 0;
    parcel->pickle_bytes = word_at(start, 0);
    parcel->buffers = word_at(start, 1);
    if (parcel->buffers > (words - 2) / 2)
        return 0;
    parcel->pickle_off = (2 + 2 * parcel->buffers) * sizeof(uint64_t);
    return parcel->pickle_bytes <= bytes - parcel->pickle_off;
}

static PyObject *broken_parcel(void)
{
    PyErr_SetString(PyExc_RuntimeError,
                    "the queue's memory was overwritten by something that is not joinq; make a new queue");
    return NULL;
}

/* A view of a buffer: where it is, if that is an extent of ours, else a copy. */
static PyObject *buffer_of(Loan *loan, const char *start, uint64_t off, uint64_t bytes)
{
    int stays = loan && loan->box->unit;
    PyObject *holder =
        stays ? (PyObject *)part_of(loan, off, bytes) : PyByteArray_FromStringAndSize(start + off, (Py_ssize_t)bytes);
    PyObject *view = holder ? PyMemoryView_FromObject(holder) : NULL;
    Py_XDECREF(holder);
    return view;
}

/* What unpickles: loads(pickle), and assemble(pickle, buffers). */
struct unpicklers {
    PyObject *loads, *assemble;
};

static PyObject *load_parcel(const struct unpicklers *by, Loan *loan, const char *start, uint64_t bytes)
{
    struct parcel parcel;
    if (!open_parcel(start, bytes, &parcel))
        return broken_parcel();
    PyObject *buffers = PyList_New((Py_ssize_t)parcel.buffers), *item = NULL;
    for (uint64_t i = 0; buffers && i < parcel.buffers; i++) {
        uint64_t off = word_at(start, 2 + 2 * i), length = word_at(start, 3 + 2 * i);
        int fits = off <= bytes && length <= bytes - off;
        PyObject *view = fits ? buffer_of(loan, start, off, length) : broken_parcel();
        if (!view)
            Py_CLEAR(buffers);
        else
            PyList_SET_ITEM(buffers, (Py_ssize_t)i, view);
    }
    PyObject *pickle = PyBytes_FromStringAndSize(start + parcel.pickle_off, (Py_ssize_t)parcel.pickle_bytes);
    if (pickle && buffers)
        item = PyObject_CallFunctionObjArgs(by->assemble, pickle, buffers, NULL);
    Py_XDECREF(pickle);
    Py_XDECREF(buffers);
    return item;
}

/* Most of what filling so much fresh memory costs is that each of its pages must come first: NumPy's arrays do this,
 * too. Only advice, so it does not matter whether it is taken. */
static void ask_for_huge_pages(char *start, uint64_t bytes)
{
#ifdef MADV_HUGEPAGE
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = ((uintptr_t)start + page - 1) / page * page;
    if (bytes >= HUGE_BYTES)
        madvise((void *)first, ((uintptr_t)start + bytes - first) / page * page, MADV_HUGEPAGE);
#else
    (void)start, (void)bytes;
#endif
}

static PyObject *load_bytes(const char *payload, uint64_t bytes)
{
    if (bytes <= GIL_KEEP_BYTES)
        return PyBytes_FromStringAndSize(payload, (Py_ssize_t)bytes);
    PyObject *item = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bytes);
    if (item) {
        ask_for_huge_pages(PyBytes_AS_STRING(item), bytes);
        Py_BEGIN_ALLOW_THREADS memcpy(PyBytes_AS_STRING(item), payload, bytes);
        Py_END_ALLOW_THREADS
    }
    return item;
}

static PyObject *load_pickle(const struct unpicklers *by, Loan *loan, const char *payload, uint64_t bytes)
{
    if (loan)
        return PyObject_CallFunctionObjArgs(by->loads, (PyObject *)loan, NULL);
    PyObject *pickle = PyBytes_FromStringAndSize(payload, (Py_ssize_t)bytes);
    PyObject *item = pickle ? PyObject_CallFunctionObjArgs(by->loads, pickle, NULL) : NULL;
    Py_XDECREF(pickle);
    return item;
}

static PyObject *load_object(const struct unpicklers *by, Loan *loan, uint64_t form, const char *payload,
                             uint64_t bytes)
{
    Py_ssize_t before = begin_loading();
    PyObject *item = (form == JNQ_PARCEL ? load_parcel : load_pickle)(by, loan, payload, bytes);
    if (end_loading(before, item != NULL))
        Py_CLEAR(item);
    return item;
}

/* The object that such a payload stands for. `loan`, if any, is what keeps it. */
static PyObject *load(const struct unpicklers *by, Loan *loan, uint64_t form, const char *payload, uint64_t bytes)
{
    int64_t integer;
    double number;
    switch (form) {
    case JNQ_INTEGER:
        memcpy(&integer, payload, sizeof integer);
        return PyLong_FromLongLong(integer);
    case JNQ_FLOAT:
        memcpy(&number, payload, sizeof number);
        return PyFloat_FromDouble(number);
    case JNQ_NONE:
        Py_RETURN_NONE;
    case JNQ_FALSE:
        Py_RETURN_FALSE;
    case JNQ_TRUE:
        Py_RETURN_TRUE;
    case JNQ_BYTES:
        return load_bytes(payload, bytes);
    case JNQ_UCS1:
        return PyUnicode_FromKindAndData(PyUnicode_1BYTE_KIND, payload, (Py_ssize_t)bytes);
    case JNQ_UCS2:
        return PyUnicode_FromKindAndData(PyUnicode_2BYTE_KIND, payload, (Py_ssize_t)bytes / 2);
    case JNQ_UCS4:
        return PyUnicode_FromKindAndData(PyUnicode_4BYTE_KIND, payload, (Py_ssize_t)bytes / 4);
    default:
        return load_object(by, loan, form, payload, bytes);
    }
}

/* --- in ----------------------------------------------------------------------------------------------------- */

/* The form of an object that need not be pickled, with its payload; -1 for others. */
static int plain_form(PyObject *obj, jnq_piece *payload, int64_t *word)
{
    *payload = (jnq_piece){(const char *)word, 0};
    if (PyLong_CheckExact(obj)) {
        int overflow;
        *word = PyLong_AsLongLongAndOverflow(obj, &overflow);
        payload->bytes = sizeof *word;
        return overflow ? -1 : JNQ_INTEGER;
    }
    if (PyUnicode_CheckExact(obj)) {
#if PY_VERSION_HEX < 0x030C0000
        if (PyUnicode_READY(obj)) {
            PyErr_Clear();
            return -1;
        }
#endif
        int kind = (int)PyUnicode_KIND(obj);
        *payload = (jnq_piece){PyUnicode_DATA(obj), (uint64_t)(PyUnicode_GET_LENGTH(obj) * kind)};
        return kind == PyUnicode_1BYTE_KIND ? JNQ_UCS1 : kind == PyUnicode_2BYTE_KIND ? JNQ_UCS2 : JNQ_UCS4;
    }
    if (obj == Py_None)
        return JNQ_NONE;
    if (PyFloat_CheckExact(obj)) {
        double number = PyFloat_AS_DOUBLE(obj);
        memcpy(word, &number, sizeof number);
        payload->bytes = sizeof number;
        return JNQ_FLOAT;
    }
    if (PyBytes_CheckExact(obj)) {
        *payload = (jnq_piece){PyBytes_AS_STRING(obj), (uint64_t)PyBytes_GET_SIZE(obj)};
        return JNQ_BYTES;
    }
    if (PyBool_Check(obj))
        return obj == Py_True ? JNQ_TRUE : JNQ_FALSE;
    return -1;
}

/* What an object is in the queue: its form, and the pieces of its payload. They belong to the object, to `word`, or to
 * what is kept here. */
struct load {
    int form;
    uint64_t n; /* pieces */
    jnq_piece *pieces, one;
    int64_t word;
    PyObject *pickle;   /* what dumps() gave */
    Py_buffer *buffers; /* that are held */
    Py_ssize_t n_buffers;
    uint64_t *table; /* of a parcel */
    Loan *blank;     /* to be given: then the pieces are the preface */
};

static void drop(struct load *load)
{
    if (load->blank && !load->blank->is_private)
        load->blank->is_blank = load->blank->box->kind != JNQ_GIVEN;
    for (Py_ssize_t i = 0; i < load->n_buffers; i++)
        PyBuffer_Release(&load->buffers[i]);
    PyMem_Free(load->buffers);
    PyMem_Free(load->table);
    if (load->pieces != &load->one)
        PyMem_Free(load->pieces);
    Py_XDECREF(load->pickle);
    Py_XDECREF(load->blank);
}

/* Holds the buffer of each object of the list. */
static int hold(struct load *load, PyObject *list)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        if (PyObject_GetBuffer(PyList_GET_ITEM(list, i), &load->buffers[load->n_buffers], PyBUF_SIMPLE))
            return -1;
        load->n_buffers++;
    }
    return 0;
}

static void add_piece(struct load *load, const void *start, uint64_t bytes)
{
    load->pieces[load->n++] = (jnq_piece){start, bytes};
}

/* The pieces of a pickle in several parts, with its buffers if it has any. */
static int take_apart(struct load *load, PyObject *parts, PyObject *buffers)
{
    static const char padding[BUFFER_ALIGNMENT];
    Py_ssize_t n_parts = PyList_GET_SIZE(parts), n = n_parts + PyList_GET_SIZE(buffers);
    uint64_t n_table = n > n_parts ? 2 + 2 * (uint64_t)(n - n_parts) : 0, off = n_table * sizeof(uint64_t);
    load->pieces = PyMem_New(jnq_piece, (size_t)(1 + 2 * n));
    load->buffers = PyMem_New(Py_buffer, (size_t)n);
    load->table = PyMem_New(uint64_t, (size_t)n_table);
    if (!load->pieces || !load->buffers || !load->table) {
        PyErr_NoMemory();
        return -1;
    }
    if (hold(load, parts) || hold(load, buffers))
        return -1;
    if (n_table)
        add_piece(load, load->table, off);
    for (Py_ssize_t i = 0; i < n_parts; i++) {
        add_piece(load, load->buffers[i].buf, (uint64_t)load->buffers[i].len);
        off += (uint64_t)load->buffers[i].len;
    }
    load->form = n_table ? JNQ_PARCEL : JNQ_PICKLE;
    if (!n_table)
        return 0;
    load->table[0] = off - n_table * sizeof(uint64_t);
    load->table[1] = (uint64_t)(n - n_parts);
    uint64_t *entry = load->table + 2;
    for (Py_ssize_t i = n_parts; i < n; i++) {
        uint64_t bytes = (uint64_t)load->buffers[i].len, pad = -off % BUFFER_ALIGNMENT;
        add_piece(load, padding, pad);
        add_piece(load, load->buffers[i].buf, bytes);
        off += pad;
        *entry++ = off;
        *entry++ = bytes;
        off += bytes;
    }
    return 0;
}

/* The blank in which this memory lies. */
static Loan *blank_around(jnq_queue *q, const jnq_piece *memory)
{
    for (Loan *loan = blanks ? loans : NULL; loan; loan = loan->next)
        if (loan->is_blank && loan->box->queue == q && memory->start >= loan->start &&
            memory->start + memory->bytes <= loan->start + loan->bytes)
            return loan;
    return NULL;
}

/* If all that is left of the object is one buffer in a blank of this queue, it can be given instead of copied. */
static void give_instead(struct load *load, jnq_queue *q)
{
    if (load->form != JNQ_PARCEL || load->table[1] != 1 || load->n < 4)
        return;
    const jnq_piece *memory = &load->pieces[load->n - 1];
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < load->n - 2; i++) /* without padding and buffer */
        bytes += load->pieces[i].bytes;
    Loan *blank = bytes <= JNQ_PREFACE_BYTES && memory->bytes ? blank_around(q, memory) : NULL;
    if (!blank)
        return;
    Py_INCREF(blank);
    blank->is_blank = 0; /* whatever other threads and signal handlers put until drop() */
    load->blank = blank;
    load->table[2] = JNQ_PREFACE_BYTES + (uint64_t)(memory->start - blank->start);
    load->n -= 2;
}

/* Readies an object. Returns 0, or -1 with an exception. drop() must follow in any case. */
static int pack(struct load *load, jnq_queue *q, PyObject *obj, PyObject *dumps)
{
    load->pieces = &load->one;
    load->n = 1;
    load->pickle = NULL;
    load->buffers = NULL;
    load->n_buffers = 0;
    load->table = NULL;
    load->blank = NULL;
    load->form = plain_form(obj, load->pieces, &load->word);
    if (load->form >= 0)
        return 0;
    load->form = JNQ_PICKLE;
    load->pickle = PyObject_CallFunctionObjArgs(dumps, obj, NULL);
    if (!load->pickle)
        return -1;
    if (PyBytes_CheckExact(load->pickle)) {
        load->pieces[0] = (jnq_piece){PyBytes_AS_STRING(load->pickle), (uint64_t)PyBytes_GET_SIZE(load->pickle)};
        return 0;
    }
    load->n = 0;
    if (take_apart(load, PyTuple_GET_ITEM(load->pickle, 0), PyTuple_GET_ITEM(load->pickle, 1)))
        return -1;
    give_instead(load, q);
    return 0;
}

/* --- ports -------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD jnq_queue *q;
    PyObject *handle; /* keeps q */
    PyObject *dumps;
    struct unpicklers by;
} Port;

static PyObject *port_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    PyObject *handle, *address, *dumps, *loads, *assemble;
    (void)names;
    if (!PyArg_ParseTuple(args, "OOOOO", &handle, &address, &dumps, &loads, &assemble))
        return NULL;
    void *q = PyLong_AsVoidPtr(address);
    Port *port = q ? (Port *)type->tp_alloc(type, 0) : NULL;
    if (!port)
        return NULL;
    Py_INCREF(handle);
    Py_INCREF(dumps);
    Py_INCREF(loads);
    Py_INCREF(assemble);
    port->q = q;
    port->handle = handle;
    port->dumps = dumps;
    port->by = (struct unpicklers){loads, assemble};
    return (PyObject *)port;
}

static void port_dealloc(Port *port)
{
    PyTypeObject *type = Py_TYPE(port);
    Py_XDECREF(port->handle);
    Py_XDECREF(port->dumps);
    Py_XDECREF(port->by.loads);
    Py_XDECREF(port->by.assemble);
    type->tp_free(port);
    Py_DECREF(type);
}

/* --- ports: out --------------------------------------------------------------------------------------------- */

/* Raises Declined, with the exception that is set, if any, as its reason. Takes the loan over. */
static void decline(int64_t rc, Loan *loan)
{
    PyObject *kind, *reason, *traceback;
    PyErr_Fetch(&kind, &reason, &traceback);
    if (kind) {
        PyErr_NormalizeException(&kind, &reason, &traceback);
        if (traceback)
            PyException_SetTraceback(reason, traceback);
    }
    PyObject *args = Py_BuildValue("LOO", (long long)rc, loan ? (PyObject *)loan : Py_None, reason ? reason : Py_None);
    Py_XDECREF(kind);
    Py_XDECREF(reason);
    Py_XDECREF(traceback);
    Py_XDECREF(loan);
    if (args)
        PyErr_SetObject(declined, args);
    Py_XDECREF(args);
}

/* Bytes that an item takes in a batch. */
static uint64_t packed_bytes(uint64_t bytes) { return sizeof(jnq_packed) + (bytes + 7) / 8 * 8; }

/* The item of a batch that begins at `at`, and the next one. */
static const char *next_packed(const char *at, jnq_packed *header, const char **payload)
{
    memcpy(header, at, sizeof *header);
    *payload = at + sizeof *header;
    return at + packed_bytes(header->bytes);
}

/* Items that the system had no memory for when they were to go back: this process's next get() takes them, unless they
 * can go back by then. Oldest last, as they are given back. */
static struct parked {
    jnq_box *box;
    Port *port; /* keeps the queue */
    struct parked *next;
} *parked;

/* The item in the box goes back later. Only if this process has no memory either it does not. */
static void park(Port *port, jnq_box *box)
{
    struct parked *item = PyMem_Malloc(sizeof *item), **end = &parked;
    jnq_box *moved = item ? PyMem_Malloc(box_bytes(box)) : NULL;
    if (!moved) {
        PyMem_Free(item);
        return;
    }
    move_box(moved, box);
    Py_INCREF(port);
    *item = (struct parked){.box = moved, .port = port};
    while (*end)
        end = &(*end)->next;
    *end = item;
}

/* Where on the list the first one of the port's queue is, or the last; or NULL. */
static struct parked **find_parked(const Port *port, int last)
{
    struct parked **found = NULL;
    for (struct parked **at = &parked; *at && (last || !found); at = &(*at)->next)
        if ((*at)->port->q == port->q)
            found = at;
    return found;
}

/* The same, taken off the list. */
static struct parked *pick_up(const Port *port, int last)
{
    struct parked **found = find_parked(port, last), *item = found ? *found : NULL;
    if (item)
        *found = item->next;
    return item;
}

static void drop_parked(struct parked *item)
{
    jnq_release(item->box);
    PyMem_Free(item->box);
    Py_DECREF(item->port);
    PyMem_Free(item);
}

/* jnq_get(), but what is parked comes first. */
static int64_t get(Port *port, jnq_box *box, int64_t deadline)
{
    for (struct parked *item; (item = pick_up(port, 0));) {
        int rc = jnq_unget(port->q, item->box);
        if (rc == JNQ_NO_MEMORY || rc == JNQ_INTERRUPTED) {
            item->next = parked;
            parked = item;
            item = pick_up(port, 1);
            move_box(box, item->box);
            drop_parked(item);
            return box->lease ? JNQ_LEASED : box->unit ? JNQ_LARGE : (int64_t)box->bytes;
        }
        drop_parked(item);
    }
    return jnq_get(port->q, box, deadline);
}

/* Gives the item in the box back to the queue, now or later. */
static void put_back(Port *port, jnq_box *box)
{
    int rc;
    while ((rc = jnq_unget(port->q, box)) == JNQ_INTERRUPTED)
        ;
    if (rc == JNQ_NO_MEMORY)
        park(port, box);
}

static void unget(Port *port, jnq_box *box)
{
    put_back(port, box);
    jnq_release(box);
}

/* Gives the items from `batch` to `end` back to the queue, the last one first, so that they are in order again. */
__attribute__((noinline)) static void give_back(Port *port, const char *batch, const char *end)
{
    jnq_packed header;
    const char *payload;
    while (batch < end) {
        const char *last = batch, *next;
        while ((next = next_packed(last, &header, &payload)) < end)
            last = next;
        next_packed(last, &header, &payload);
        jnq_box box;
        jnq_rebox(port->q, &box, (int)header.form, payload, header.bytes);
        unget(port, &box);
        end = last;
    }
}

/* From here on the item goes back if the loan goes, whatever exceptions come between, unless it is settled before. */
static void owe(Loan *loan, Port *port)
{
    Py_INCREF(port);
    loan->owed_to = (PyObject *)port;
}

/* Ends that: the item counts as taken, or goes back; what was taken before it goes back in any case. Views of its
 * buffers may live, in the frames of an exception, say: those stay ours. */
static void settle(Loan *loan, int taken)
{
    Port *port = (Port *)loan->owed_to;
    PyObject *before = loan->before;
    if (!port)
        return;
    loan->owed_to = loan->before = NULL;
    loan->counts = taken;
    jnq_box *box = loan->box;
    int rc = taken ? JNQ_OK : JNQ_NO_MEMORY;
    if (!taken && loan->parts && !box->lease)
        while ((rc = jnq_unget_copy(port->q, box)) == JNQ_INTERRUPTED)
            ;
    if (rc == JNQ_NO_MEMORY) /* no copy was made: rather share it than lose it */
        put_back(port, box);
    if (before)
        give_back(port, PyBytes_AS_STRING(before), PyBytes_AS_STRING(before) + PyBytes_GET_SIZE(before));
    Py_XDECREF(before);
    Py_DECREF(port);
}

/* Declines the item in the box because of the exception that is set; `before` are those of a batch before it. Without
 * memory for that, all of them go back. */
static void decline_box(Port *port, jnq_box *box, const char *before, uint64_t bytes)
{
    PyObject *kind, *reason, *traceback;
    PyErr_Fetch(&kind, &reason, &traceback);
    PyObject *more = bytes ? PyBytes_FromStringAndSize(before, (Py_ssize_t)bytes) : NULL;
    Loan *loan = more || !bytes ? lend(box) : NULL;
    if (!loan) {
        unget(port, box);
        give_back(port, before, before + bytes);
        Py_XDECREF(more);
    } else {
        owe(loan, port);
        loan->before = more;
    }
    PyErr_Clear();
    PyErr_Restore(kind, reason, traceback);
    decline(JNQ_OK, loan);
}

static PyObject *take_one(Port *port, int64_t deadline)
{
    jnq_box box;
    unsigned long then = forks;
    int64_t rc = get(port, &box, deadline);
    if (rc >= 0) {
        PyObject *item = load(&port->by, NULL, box.form, box.payload, box.bytes);
        if (!item && forks == then)
            decline_box(port, &box, NULL, 0);
        return item;
    }
    if (rc != JNQ_LARGE && rc != JNQ_LEASED) {
        decline(rc, NULL);
        return NULL;
    }
    Loan *loan = lend(&box);
    if (!loan) {
        unget(port, &box);
        return NULL;
    }
    if (rc == JNQ_LEASED) {
        owe(loan, port);
        return (PyObject *)loan;
    }
    PyObject *item = load(&port->by, loan, loan->box->form, loan->start, (uint64_t)loan->bytes);
    if (item || forks != then) {
        Py_DECREF(loan);
    } else {
        owe(loan, port);
        decline(JNQ_OK, loan);
    }
    return item;
}

/* Declines the item at `at` of a batch, which has failed, with those before it; the n - 1 behind it go back. Boxes are
 * large: so this is not inlined. */
__attribute__((noinline)) static void decline_rest(Port *port, const char *batch, const char *at, uint64_t n)
{
    jnq_packed header;
    const char *payload, *next = next_packed(at, &header, &payload), *end = next;
    jnq_box box;
    while (--n)
        end = next_packed(end, &header, &payload);
    give_back(port, next, end);
    next_packed(at, &header, &payload);
    jnq_rebox(port->q, &box, (int)header.form, payload, header.bytes);
    decline_box(port, &box, batch, (uint64_t)(at - batch));
}

/* False if a foreign write has made garbage of the lengths in a batch: then it could not be walked through. */
static int is_sound(const char *batch, uint64_t n)
{
    jnq_packed header;
    for (uint64_t off = 0; n; n--) {
        memcpy(&header, batch + off, sizeof header);
        off += packed_bytes(header.bytes);
        if (off > BATCH_BYTES)
            return 0;
    }
    return 1;
}

/* A list of the items of a batch. */
static PyObject *load_batch(Port *port, const char *batch, uint64_t n)
{
    const char *at = batch, *next = batch, *payload;
    jnq_packed header;
    uint64_t i = 0;
    unsigned long then = forks;
    Py_ssize_t before = begin_loading();
    PyObject *list = PyList_New((Py_ssize_t)n);
    if (list)
        PyObject_GC_UnTrack(list); /* nobody may find it while it has holes */
    for (int failed = !list; !failed && i < n; i += !failed) {
        at = next;
        next = next_packed(at, &header, &payload);
        PyObject *item = load(&port->by, NULL, header.form, payload, header.bytes);
        failed = !item;
        if (item)
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    if (!end_loading(before, i == n) && i == n) {
        PyObject_GC_Track(list);
        return list;
    }
    Py_CLEAR(list);
    if (forks == then)
        decline_rest(port, batch, at, i < n ? n - i : 1);
    return NULL;
}

static PyObject *take_many(Port *port, uint64_t most, int64_t deadline)
{
    /* Threads may have small stacks. Where a foreign write made garbage of a length, 8 bytes behind it may be read. */
    char *batch = PyMem_Malloc(BATCH_BYTES + 8);
    if (!batch)
        return PyErr_NoMemory();
    int64_t n = find_parked(port, 0) ? 0 : jnq_get_batch(port->q, batch, BATCH_BYTES, most, deadline);
    PyObject *items = NULL;
    if (n > 0 && is_sound(batch, (uint64_t)n))
        items = load_batch(port, batch, (uint64_t)n);
    else if (n > 0)
        decline(JNQ_CORRUPT, NULL);
    PyMem_Free(batch);
    if (n > 0)
        return items;
    if (n < 0) {
        decline(n, NULL);
        return NULL;
    }
    PyObject *list = PyList_New(1);
    if (list)
        PyObject_GC_UnTrack(list);
    PyObject *item = list ? take_one(port, deadline) : NULL;
    if (item) {
        PyList_SET_ITEM(list, 0, item);
        PyObject_GC_Track(list);
    } else {
        Py_CLEAR(list);
    }
    return list;
}

/* None is for ever: a number that great would take longer to read than all the rest. */
static int deadline_of(PyObject *number, int64_t *deadline)
{
    if (number == Py_None) {
        *deadline = JNQ_FOREVER;
        return 0;
    }
    *deadline = PyLong_AsLongLong(number);
    return *deadline == -1 && PyErr_Occurred() ? -1 : 0;
}

static PyObject *port_take(Port *port, PyObject *key)
{
    int64_t deadline;
    if (!PyTuple_CheckExact(key))
        return deadline_of(key, &deadline) ? NULL : take_one(port, deadline);
    uint64_t most = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(key, 0));
    if (PyErr_Occurred() || deadline_of(PyTuple_GET_ITEM(key, 1), &deadline))
        return NULL;
    return take_many(port, most, deadline);
}

static int port_taken(Port *port, PyObject *pair, void *unused)
{
    PyObject *batch, *leases;
    (void)port, (void)unused;
    if (!pair || !PyTuple_Check(pair)) {
        PyErr_SetString(PyExc_TypeError, "taken must be (loans, deque)");
        return -1;
    }
    int rc = PyArg_ParseTuple(pair, "O!O", &PyList_Type, &batch, &leases) ? 0 : -1;
    for (Py_ssize_t i = 0; !rc && i < PyList_GET_SIZE(batch); i++)
        rc = hand_over((Loan *)PyList_GET_ITEM(batch, i), leases);
    return rc;
}

/* Unpickles what a loan holds, once more. */
static PyObject *port_load(Port *port, PyObject *object)
{
    Loan *loan = (Loan *)object;
    return load(&port->by, loan, loan->box->form, loan->start, (uint64_t)loan->bytes);
}

/* --- ports: in ---------------------------------------------------------------------------------------------- */

static int give(Port *port, const struct load *load, int64_t deadline)
{
    char preface[JNQ_PREFACE_BYTES], *end = preface;
    for (uint64_t i = 0; i < load->n; i++) {
        memcpy(end, load->pieces[i].start, load->pieces[i].bytes);
        end += load->pieces[i].bytes;
    }
    return jnq_give(port->q, load->blank->box, load->form, preface, (uint64_t)(end - preface), deadline);
}

/* Undoes give_instead(). */
static void copy_instead(struct load *load)
{
    load->n += 2;
    load->table[2] = 0;
    for (uint64_t i = 0; i < load->n - 1; i++)
        load->table[2] += load->pieces[i].bytes;
    Py_CLEAR(load->blank);
}

/* What a put that waits does in between: runs signal handlers, and has _log.py tell of deaths. -1 if either raises. */
static int heed(Port *port)
{
    jnq_tidings before;
    if (PyErr_CheckSignals())
        return -1;
    if (!jnq_untold(port->q, 1, &before))
        return 0;
    PyObject *name = PyUnicode_FromString("joinq._log"), *log = name ? PyImport_GetModule(name) : NULL;
    Py_XDECREF(name);
    if (!log)
        return PyErr_Occurred() ? -1 : 0;
    PyObject *told = PyObject_CallMethod(log, "tell_since", "OKKK", port->handle, (unsigned long long)before.deaths,
                                         (unsigned long long)before.redeliveries, (unsigned long long)before.letters);
    Py_DECREF(log);
    Py_XDECREF(told);
    return told ? 0 : -1;
}

/* Signal handlers run while it waits; after one that forks, the blank is the parent's in the child. Returns a result of
 * jnq_put(), or JNQ_INTERRUPTED with a handler's exception. */
static int put_load(Port *port, struct load *load, int64_t deadline)
{
    int rc;
    do {
        if (load->blank && load->blank->is_private)
            copy_instead(load);
        rc = load->blank ? give(port, load, deadline)
                         : jnq_put_pieces(port->q, load->form, load->pieces, load->n, deadline);
    } while (rc == JNQ_INTERRUPTED && !heed(port));
    return rc;
}

static PyObject *port_put(Port *port, PyObject *const *args, Py_ssize_t n)
{
    int64_t deadline;
    struct load load;
    if (n != 2) {
        PyErr_SetString(PyExc_TypeError, "put() takes an object and a deadline");
        return NULL;
    }
    if (deadline_of(args[1], &deadline))
        return NULL;
    int rc = JNQ_INTERRUPTED;
    if (!pack(&load, port->q, args[0], port->dumps))
        rc = put_load(port, &load, deadline);
    drop(&load);
    return rc == JNQ_INTERRUPTED ? NULL : PyLong_FromLong(rc);
}

/* A batch that is being made, and how many of its items have been put. */
struct batch {
    uint64_t bytes, items, put;
    unsigned long forks;
    _Alignas(8) char packed[BATCH_BYTES];
};

/* After a call into Python: if that has forked, what is in the child's batch is the parent's, who puts it. */
static void disown(struct batch *batch)
{
    if (batch->forks == forks)
        return;
    batch->forks = forks;
    batch->put += batch->items;
    batch->bytes = batch->items = 0;
}

static int flush(Port *port, struct batch *batch, int64_t deadline)
{
    int rc;
    const char *rest = batch->packed;
    do {
        uint64_t put = 0;
        rc = jnq_put_batch(port->q, rest, batch->items, &put, deadline);
        batch->put += put;
        batch->items -= put;
        for (; put && batch->items; put--) { /* what is left begins behind these */
            jnq_packed header;
            const char *payload;
            rest = next_packed(rest, &header, &payload);
        }
    } while (rc == JNQ_INTERRUPTED && !heed(port) && batch->forks == forks);
    disown(batch);
    batch->bytes = batch->items = 0;
    return rc;
}

/* Adds an item for which there is room. */
static void append(struct batch *batch, int form, const jnq_piece *pieces, uint64_t n, uint64_t bytes)
{
    char *to = batch->packed + batch->bytes;
    jnq_packed header = {(uint32_t)bytes, (uint32_t)form};
    memcpy(to, &header, sizeof header);
    to += sizeof header;
    for (uint64_t i = 0; i < n; i++) {
        memcpy(to, pieces[i].start, pieces[i].bytes);
        to += pieces[i].bytes;
    }
    batch->bytes += packed_bytes(bytes);
    batch->items++;
}

static int add(Port *port, struct batch *batch, struct load *load, int64_t deadline)
{
    uint64_t bytes = 0;
    int rc = JNQ_OK;
    for (uint64_t i = 0; i < load->n; i++)
        bytes += load->pieces[i].bytes;
    int alone = load->blank || bytes > SMALL_BYTES;
    if (alone || packed_bytes(bytes) > sizeof batch->packed - batch->bytes)
        rc = flush(port, batch, deadline);
    if (rc)
        return rc;
    if (alone) {
        rc = put_load(port, load, deadline);
        batch->forks = forks;
        batch->put += !rc;
        return rc;
    }
    append(batch, load->form, load->pieces, load->n, bytes);
    return JNQ_OK;
}

/* Adds an object that need not be pickled, if there is room for it. */
static inline int add_plain(struct batch *batch, PyObject *obj)
{
    jnq_piece payload;
    int64_t word;
    int form = plain_form(obj, &payload, &word);
    if (form < 0 || packed_bytes(payload.bytes) > sizeof batch->packed - batch->bytes || payload.bytes > SMALL_BYTES)
        return 0;
    append(batch, form, &payload, 1, payload.bytes);
    return 1;
}

/* Adds or puts any object. JNQ_INTERRUPTED: with an exception. */
__attribute__((noinline)) static int add_any(Port *port, struct batch *batch, PyObject *obj, int64_t deadline)
{
    struct load load;
    int rc = pack(&load, port->q, obj, port->dumps) ? JNQ_INTERRUPTED : JNQ_OK;
    disown(batch);
    if (!rc)
        rc = add(port, batch, &load, deadline);
    drop(&load);
    return rc;
}

/* Adds what a list holds from number `at` on, up to ROUND objects. *more: it may hold others. */
static int add_list(Port *port, struct batch *batch, PyObject *list, uint64_t at, int64_t deadline, int *more)
{
    uint64_t end = at + ROUND;
    int rc = JNQ_OK;
    for (; at < end && at < (uint64_t)PyList_GET_SIZE(list); at++) {
        PyObject *obj = PyList_GET_ITEM(list, (Py_ssize_t)at);
        if (add_plain(batch, obj))
            continue;
        Py_INCREF(obj);
        rc = add_any(port, batch, obj, deadline);
        Py_DECREF(obj);
        if (rc)
            break;
    }
    *more = at < (uint64_t)PyList_GET_SIZE(list);
    return rc;
}

/* The same of an iterator; unless it may be `ahead`, each object is put before the next one is drawn. */
static int add_drawn(Port *port, struct batch *batch, PyObject *source, int ahead, int64_t deadline, int *more)
{
    int rc = JNQ_OK;
    for (int i = 0; i < ROUND && !rc; i++) {
        PyObject *obj = PyIter_Next(source);
        disown(batch);
        if (!(*more = obj != NULL))
            break;
        if (!add_plain(batch, obj))
            rc = add_any(port, batch, obj, deadline);
        Py_DECREF(obj);
        if (!rc && !ahead)
            rc = flush(port, batch, deadline);
    }
    return rc;
}

/* Puts what was drawn before an exception came, which may be a signal handler's and is not to wait. */
static void flush_at_once(Port *port, struct batch *batch)
{
    PyObject *kind, *reason, *traceback;
    PyErr_Fetch(&kind, &reason, &traceback);
    flush(port, batch, JNQ_NOW);
    PyErr_Clear();
    PyErr_Restore(kind, reason, traceback);
}

static PyObject *port_put_many(Port *port, PyObject *const *args, Py_ssize_t n)
{
    int64_t deadline;
    struct batch batch;
    if (n != 4 || !PyList_Check(args[2]) || PyList_GET_SIZE(args[2]) != 1) {
        PyErr_SetString(PyExc_TypeError, "put_many() takes a source, a deadline, [the number put], and whether ahead");
        return NULL;
    }
    uint64_t put = PyLong_AsUnsignedLongLong(PyList_GET_ITEM(args[2], 0));
    if (PyErr_Occurred() || deadline_of(args[1], &deadline))
        return NULL;
    batch.bytes = batch.items = 0;
    batch.put = put;
    batch.forks = forks;
    int more = 1, rc = PyList_CheckExact(args[0])
                           ? add_list(port, &batch, args[0], put, deadline, &more)
                           : add_drawn(port, &batch, args[0], args[3] == Py_True, deadline, &more);
    if (PyErr_Occurred())
        flush_at_once(port, &batch);
    else if (!rc)
        rc = flush(port, &batch, deadline);
    PyObject *number = PyLong_FromUnsignedLongLong(batch.put);
    if (number)
        PyList_SetItem(args[2], 0, number);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(!rc && more ? JNQ_INTERRUPTED : rc);
}

/* A memoryview of so many bytes in the queue's memory, which put() does not copy. */
static PyObject *port_buffer(Port *port, PyObject *number)
{
    jnq_box box;
    uint64_t bytes = PyLong_AsUnsignedLongLong(number);
    int rc;
    if (PyErr_Occurred())
        return NULL;
    while ((rc = jnq_blank(port->q, bytes, &box)) == JNQ_INTERRUPTED)
        if (PyErr_CheckSignals())
            return NULL;
    if (rc) {
        decline(rc, NULL);
        return NULL;
    }
    Loan *loan = lend(&box);
    if (!loan) {
        jnq_release(&box);
        return NULL;
    }
    loan->is_blank = loan->made = 1;
    blanks++;
    PyObject *view = PyMemoryView_FromObject((PyObject *)loan);
    Py_DECREF(loan);
    return view;
}

static PyObject *port_task_done(Port *port, PyObject *number)
{
    PyObject *index = PyNumber_Index(number);
    uint64_t n = index ? PyLong_AsUnsignedLongLong(index) : 0;
    Py_XDECREF(index);
    if (PyErr_Occurred())
        return NULL;
    return PyLong_FromLong(jnq_task_done(port->q, n));
}

/* --- forks -------------------------------------------------------------------------------------------------- */

static PyObject *before_fork(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    if (pipe2(gate.end, O_CLOEXEC))
        gate.end[0] = gate.end[1] = -1; /* then nobody waits */
    gate.next = gates;
    gates = &gate;
    Py_RETURN_NONE;
}

static void close_end(struct gate *of, int end)
{
    if (of->end[end] >= 0)
        close(of->end[end]);
    of->end[end] = -1;
}

static PyObject *after_fork_in_parent(PyObject *module, PyObject *unused)
{
    int waits = n_kept > 0;
    (void)module, (void)unused;
    for (Loan *loan = loans; loan && !waits; loan = loan->next)
        waits = in_segment(loan);
    close_end(&gate, 1);
    /* With the GIL, so that nothing is changed. It ends with the child, too. */
    if (waits && gate.end[0] >= 0) {
        struct pollfd said = {.fd = gate.end[0], .events = POLLIN};
        while (poll(&said, 1, FORK_PATIENCE_MS) < 0 && errno == EINTR)
            ;
    }
    close_end(&gate, 0);
    struct gate **at = &gates;
    while (*at && *at != &gate)
        at = &(*at)->next;
    if (*at)
        *at = gate.next;
    if (!gates)
        release_kept();
    Py_RETURN_NONE;
}

static int by_start(const void *a, const void *b)
{
    const char *x = ((const jnq_piece *)a)->start, *y = ((const jnq_piece *)b)->start;
    return (x > y) - (x < y);
}

/* Lets all loans of this queue have copies where they are, and the queue go on elsewhere. 0 if there is no memory. */
static int privatize(jnq_queue *q)
{
    size_t n = 0;
    for (Loan *loan = loans; loan; loan = loan->next)
        n += in_segment(loan) && loan->box->queue == q;
    jnq_piece *pages = PyMem_New(jnq_piece, n);
    if (!pages)
        return 0;
    n = 0;
    for (Loan *loan = loans; loan; loan = loan->next)
        if (in_segment(loan) && loan->box->queue == q)
            pages[n++] = pages_of(loan);
    qsort(pages, n, sizeof *pages, by_start);
    int moved = !jnq_move(q, pages, n);
    for (Loan *loan = loans; loan && moved; loan = loan->next)
        if (in_segment(loan) && loan->box->queue == q)
            loan->is_private = 1;
    PyMem_Free(pages);
    return moved;
}

static PyObject *after_fork_in_child(PyObject *module, PyObject *unused)
{
    int failed = 0;
    (void)module, (void)unused;
    for (struct gate *other = gates; other; other = other->next) { /* their threads are not here */
        close_end(other, 0);
        if (other != &gate)
            close_end(other, 1);
    }
    gates = NULL;
    forks++;
    loading.depth = 0; /* what is being unpickled is the parent's, and so are the calls */
    Py_CLEAR(loading.calls);
    for (Loan *loan = loans; loan; loan = loan->next) {
        loan->is_blank = 0;                  /* the run is the parent's to give, */
        loan->owed_to = loan->before = NULL; /* and the item to give back; nothing is let go of here */
    }
    for (Loan *loan = loans; loan && !failed; loan = loan->next)
        failed = in_segment(loan) && !privatize(loan->box->queue);
    release_kept();
    ssize_t said = gate.end[1] < 0 ? 0 : write(gate.end[1], "", 1);
    (void)said; /* if it could not, the parent sees the end being closed */
    close_end(&gate, 1);
    if (failed) { /* here, where no signal handler can raise */
        static const char text[] = "joinq: no memory for the buffers that this forked process inherits; it ends\n";
        said = write(2, text, sizeof text - 1);
        _exit(1);
    }
    Py_RETURN_NONE;
}

/* Unpickles a payload that was copied: load(loads, assemble, form, payload). */
static PyObject *load_copy(PyObject *module, PyObject *args)
{
    struct unpicklers by;
    int form;
    const char *payload;
    Py_ssize_t bytes;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOiy#", &by.loads, &by.assemble, &form, &payload, &bytes))
        return NULL;
    return load(&by, NULL, (uint64_t)form, payload, (uint64_t)bytes);
}

/* --- the module --------------------------------------------------------------------------------------------- */

static PyMethodDef port_methods[] = {
    {"put", (PyCFunction)(void (*)(void))port_put, METH_FASTCALL, NULL},
    {"put_many", (PyCFunction)(void (*)(void))port_put_many, METH_FASTCALL, NULL},
    {"task_done", (PyCFunction)port_task_done, METH_O, NULL},
    {"buffer", (PyCFunction)port_buffer, METH_O, NULL},
    {"load", (PyCFunction)port_load, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef port_attributes[] = {
    {"taken", NULL, (setter)port_taken, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot port_slots[] = {
    {Py_tp_new, port_new},           {Py_tp_dealloc, port_dealloc}, {Py_tp_methods, port_methods},
    {Py_tp_getset, port_attributes}, {Py_mp_subscript, port_take},  {0, NULL},
};

static PyType_Spec port_spec = {"joinq._jnq.Port", sizeof(Port), 0, Py_TPFLAGS_DEFAULT, port_slots};

static PyMethodDef loan_methods[] = {
    {"settle", (PyCFunction)loan_settle, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef loan_attributes[] = {
    {"lease", (getter)loan_lease, NULL, "(lease, number), as jnq_finish() wants them", NULL},
    {"owed", (getter)loan_owed, NULL, "whether it would go back: not settled, and not another process's", NULL},
    {"taken", NULL, (setter)loan_taken, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot loan_slots[] = {
    {Py_tp_dealloc, loan_dealloc},
    {Py_tp_methods, loan_methods},
    {Py_tp_getset, loan_attributes},
#if PY_VERSION_HEX >= 0x03090000
    {Py_bf_getbuffer, loan_getbuffer},
#endif
    {0, NULL},
};

static PyType_Spec loan_spec = {"joinq._jnq.Loan", sizeof(Loan), 0, Py_TPFLAGS_DEFAULT, loan_slots};

static PyMethodDef functions[] = {
    {"load", load_copy, METH_VARARGS, NULL},
    {"when_loaded", when_loaded, METH_O, NULL},
    {"before_fork", before_fork, METH_NOARGS, NULL},
    {"after_fork_in_parent", after_fork_in_parent, METH_NOARGS, NULL},
    {"after_fork_in_child", after_fork_in_child, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int add_object(PyObject *module, const char *name, PyObject *object)
{
    if (object && !PyModule_AddObject(module, name, object))
        return 0;
    Py_XDECREF(object);
    return -1;
}

int objects_add(PyObject *module)
{
    PyObject *port_type = PyType_FromSpec(&port_spec);
    loan_type = (PyTypeObject *)PyType_FromSpec(&loan_spec);
    declined = PyErr_NewException("joinq._jnq.Declined", NULL, NULL);
    Py_XINCREF((PyObject *)loan_type); /* the module's, and ours */
    Py_XINCREF(declined);
    int failed = add_object(module, "Port", port_type) | add_object(module, "Loan", (PyObject *)loan_type) |
                 add_object(module, "Declined", declined);
    return failed ? -1 : PyModule_AddFunctions(module, functions);
}
