// io_uring(7), by its system calls alone: reads, writes and syncs of files that complete while the caller does something else.
#ifndef DAVIT_RING_H
#define DAVIT_RING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

typedef struct davit_ring davit_ring;

enum davit_ring_operation { DAVIT_RING_READ, DAVIT_RING_WRITE, DAVIT_RING_SYNC, DAVIT_RING_WAKE };

// A ring for `entries` requests, or NULL with errno (ENOSYS, EPERM: the host has none for us).
davit_ring *_Nullable davit_ring_open(uint32_t entries);
void davit_ring_close(davit_ring *_Nonnull ring);

// Puts a request into the ring; one thread at a time. False if the ring is full. `pieces` must stay until the next
// davit_ring_submit, the memory they point at until the request completes. SYNC is fdatasync(2); WAKE completes at once.
bool davit_ring_push(davit_ring *_Nonnull ring, enum davit_ring_operation operation, int descriptor,
                     const struct iovec *_Nullable pieces, uint32_t count, uint64_t offset, uint64_t tag);
// Starts what has been pushed; one thread at a time, the same as pushes. 0, or -1 with errno.
int davit_ring_submit(davit_ring *_Nonnull ring);

// Waits until a request has completed, if none has; one thread at a time. 0, or -1 with errno.
int davit_ring_wait(davit_ring *_Nonnull ring);
// Takes a completion: its tag, and bytes or a negative error number. False if there is none. The thread that waits.
bool davit_ring_pop(davit_ring *_Nonnull ring, uint64_t *_Nonnull tag, int32_t *_Nonnull result);

#endif
