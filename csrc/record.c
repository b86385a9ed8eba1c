#include "record.h"

#include <string.h>

#include "heap.h"

uint64_t record_room(uint32_t inline_bytes)
{
    return (offsetof(struct jnq_record, payload) + inline_bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
}

uint64_t record_size(const struct jnq_record *record)
{
    return record_room(record->kind == JNQ_EXTENT ? 0 : record->inline_bytes);
}

uint64_t record_items(const struct jnq_record *record) { return record->kind == JNQ_CHUNK ? record->form : 1; }

uint64_t record_extent(const struct jnq_record *record) { return record->kind == JNQ_EXTENT ? record->extent.unit : 0; }

uint64_t record_packed(uint64_t bytes) { return sizeof(jnq_packed) + (bytes + 7) / 8 * 8; }

static bool fits_form(uint64_t form, uint64_t bytes)
{
    switch (form) {
    case JNQ_INTEGER:
    case JNQ_FLOAT:
        return bytes == 8;
    case JNQ_NONE:
    case JNQ_FALSE:
    case JNQ_TRUE:
        return bytes == 0;
    default:
        return form < JNQ_FORMS;
    }
}

bool record_well_formed(const struct jnq_record *record)
{
    switch (record->kind) {
    case JNQ_EXTENT:
        return record->form < JNQ_FORMS;
    case JNQ_INLINE:
        return record->inline_bytes <= JNQ_INLINE_BYTES && fits_form(record->form, record->inline_bytes);
    case JNQ_CHUNK: /* its items are looked at when they are taken */
        return record->inline_bytes <= JNQ_INLINE_BYTES && record->form;
    default:
        return false;
    }
}

const jnq_packed *record_at(const struct jnq_record *record, uint64_t off)
{
    const jnq_packed *item = (const jnq_packed *)(const void *)(record->payload + off);
    uint64_t end = record->inline_bytes;
    if (end > JNQ_INLINE_BYTES || off % 8 || off >= end || end - off < sizeof *item)
        return NULL;
    return record_packed(item->bytes) <= end - off && fits_form(item->form, item->bytes) ? item : NULL;
}

uint64_t record_after(const struct jnq_record *record, uint64_t off)
{
    const jnq_packed *item = record->kind == JNQ_CHUNK ? record_at(record, off) : NULL;
    return item ? off + record_packed(item->bytes) : 0;
}

uint64_t record_off(const struct jnq_record *record, uint64_t index)
{
    uint64_t off = 0;
    for (; index; index--) {
        off = record_after(record, off);
        if (!off)
            return UINT64_MAX;
    }
    return off;
}

void record_gather(char *to, const jnq_piece *pieces, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        memcpy(to, pieces[i].start, pieces[i].bytes);
        to += pieces[i].bytes;
    }
}

bool record_lies(struct jnq_queue *q, const char *from, uint64_t bytes)
{
    return bytes <= (uint64_t)(q->base + q->bytes - from);
}

int record_lend(struct jnq_queue *q, const struct jnq_record *record, uint64_t off, jnq_box *box)
{
    if (!record_well_formed(record))
        return JNQ_CORRUPT;
    box->kind = record->kind;
    box->form = record->form;
    box->unit = 0;
    box->bytes = record->inline_bytes;
    box->payload = record->payload;
    if (box->kind == JNQ_EXTENT) {
        uint64_t unit = record->extent.unit, preface = heap_preface(q, unit), room = heap_bytes(q, unit);
        box->bytes = record->extent.bytes;
        if (!unit || room < preface || box->bytes > room - preface)
            return JNQ_CORRUPT;
        box->unit = unit;
        box->payload = (const char *)unit_at(q, unit) + preface;
        return JNQ_LARGE;
    }
    if (box->kind == JNQ_CHUNK) {
        const jnq_packed *item = record_at(record, off);
        if (!item)
            return JNQ_CORRUPT;
        box->kind = JNQ_INLINE;
        box->form = item->form;
        box->bytes = item->bytes;
        box->payload = (const char *)(item + 1);
    }
    return box->bytes <= JNQ_INLINE_BYTES && record_lies(q, box->payload, box->bytes) ? JNQ_OK : JNQ_CORRUPT;
}

int record_unpack(struct jnq_queue *q, const struct jnq_record *record, uint64_t off, jnq_box *box)
{
    int rc = record_lend(q, record, off, box);
    if (rc == JNQ_OK) {
        memcpy(box->copy, box->payload, box->bytes);
        box->payload = box->copy;
    } else if (rc == JNQ_LARGE) {
        heap_own(q, box->unit);
    }
    return rc;
}
