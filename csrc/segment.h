/* segment: the file that holds a queue, its mapping, and the memory behind parts of it.
 *
 * State: the stamp (layout.h); everything else of the segment belongs to other units.
 *
 * The file is made as large as address space, file size limit and file system allow (RESERVE in
 * segment.c) but stays sparse. The mapping is complete from the start: the file descriptor is not needed after
 * create or attach but for handing it to another process, and on kernels before 5.14 for segment_ready(). Its size is
 * sealed where the file allows it (a memfd made with MFD_ALLOW_SEALING).
 *
 * Not provided: growth of the reservation. */
#ifndef JNQ_SEGMENT_H
#define JNQ_SEGMENT_H

#include "layout.h"

/* Makes handle and mapping of an empty file, header zeroed and backed, sizes and offsets set, without magic.
 * Returns 0, JNQ_MISMATCH (no regular file) or an errno. */
int segment_create(int fd, struct jnq_queue **out);

/* Makes the segment valid for segment_open(). */
void segment_publish(struct jnq_queue *q);

/* Maps an existing segment. Returns JNQ_OK, JNQ_MISMATCH or an errno. */
int segment_open(int fd, struct jnq_queue **out);

/* Makes a handle whose memory is a copy of the header and of the used part of the process table. The header is read
 * until two copies in a row are `same`, or many times. For what only reads. Returns JNQ_OK, JNQ_EMPTY (no queue),
 * JNQ_MISMATCH (not of this build) or an errno. */
int segment_copy(int fd, bool (*same)(const struct jnq_shared *, const struct jnq_shared *), struct jnq_queue **out);

/* Frees such a handle. */
void segment_forget(struct jnq_queue *q);

/* Unmaps it and frees the handle, but leaves the file descriptor open: for callers that failed. */
void segment_abandon(struct jnq_queue *q);

/* The same, and closes the file descriptor. */
void segment_close(struct jnq_queue *q);

/* See jnq_move(). */
int segment_move(struct jnq_queue *q, const jnq_piece *pages, uint64_t n);

/* The file descriptor if it is still ours, or -1. */
int segment_fd(struct jnq_queue *q);

/* Backs the bytes with memory. Returns 0, or ENOMEM (part of them may be backed). */
int segment_ready(struct jnq_queue *q, uint64_t off, uint64_t bytes);

/* Gives their memory back; they read as zeros afterwards. Returns false if the system cannot. */
bool segment_return(struct jnq_queue *q, uint64_t off, uint64_t bytes);

#endif
