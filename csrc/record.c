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

uint64_t record_extent(const struct jnq_record *record) { return record->kind == JNQ_EXTENT ? record->extent.unit : 0; }

bool record_well_formed(const struct jnq_record *record)
{
    switch (record->kind) {
    case JNQ_EXTENT:
        return true;
    case JNQ_INLINE:
        return record->inline_bytes <= JNQ_INLINE_BYTES;
    case JNQ_INTEGER: /* another integer would look like another answer of jnq_get() */
        return record->inline_bytes == sizeof record->integer && record->integer >= -JNQ_INTEGER_MIN &&
               record->integer <= JNQ_INTEGER_MIN;
    default:
        return false;
    }
}

int record_lend(struct jnq_queue *q, const struct jnq_record *record, jnq_box *box)
{
    if (!record_well_formed(record))
        return JNQ_CORRUPT;
    box->kind = record->kind;
    box->unit = 0;
    box->bytes = record->inline_bytes;
    box->payload = record->payload;
    if (record->kind != JNQ_EXTENT)
        return JNQ_OK;
    if (!record->extent.unit || record->extent.bytes > heap_bytes(q, record->extent.unit))
        return JNQ_CORRUPT;
    box->unit = record->extent.unit;
    box->bytes = record->extent.bytes;
    box->payload = unit_at(q, box->unit);
    return JNQ_LARGE;
}

int record_unpack(struct jnq_queue *q, const struct jnq_record *record, jnq_box *box)
{
    int rc = record_lend(q, record, box);
    if (rc == JNQ_OK) {
        memcpy(box->copy, box->payload, box->bytes);
        box->payload = box->copy;
    } else if (rc == JNQ_LARGE) {
        heap_own(q, box->unit);
    }
    return rc;
}
