#define _GNU_SOURCE
#include "davit_ring.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct davit_ring {
    int descriptor;
    uint32_t pending;
    char *queues;
    size_t queues_size;
    struct io_uring_sqe *entries;
    size_t entries_size;
    uint32_t *sq_head, *sq_tail, *sq_array, sq_mask, sq_entries;
    uint32_t *cq_head, *cq_tail, cq_mask;
    struct io_uring_cqe *completions;
};

davit_ring *davit_ring_open(uint32_t entries) {
    struct io_uring_params parameters = {.flags = IORING_SETUP_CLAMP};
    davit_ring *ring = calloc(1, sizeof *ring);
    if (!ring) return NULL;
    ring->descriptor = (int)syscall(SYS_io_uring_setup, entries, &parameters);
    if (ring->descriptor < 0) {
        free(ring);
        return NULL;
    }
    // One mapping for both queues (5.4), iovecs that may go after the submission (5.5), completions that are never dropped (5.5).
    const uint32_t needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_NODROP;
    size_t sq_size = parameters.sq_off.array + parameters.sq_entries * sizeof(uint32_t);
    size_t cq_size = parameters.cq_off.cqes + parameters.cq_entries * sizeof(struct io_uring_cqe);
    ring->queues_size = sq_size > cq_size ? sq_size : cq_size;
    ring->entries_size = parameters.sq_entries * sizeof(struct io_uring_sqe);
    ring->queues = MAP_FAILED;
    ring->entries = MAP_FAILED;
    if ((parameters.features & needed) == needed) {
        ring->queues = mmap(NULL, ring->queues_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->descriptor,
                            IORING_OFF_SQ_RING);
        ring->entries = mmap(NULL, ring->entries_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->descriptor,
                             IORING_OFF_SQES);
    }
    if (ring->queues == MAP_FAILED || (void *)ring->entries == MAP_FAILED) {
        davit_ring_close(ring);
        errno = ENOSYS;
        return NULL;
    }
    ring->sq_head = (uint32_t *)(ring->queues + parameters.sq_off.head);
    ring->sq_tail = (uint32_t *)(ring->queues + parameters.sq_off.tail);
    ring->sq_array = (uint32_t *)(ring->queues + parameters.sq_off.array);
    ring->sq_mask = *(uint32_t *)(ring->queues + parameters.sq_off.ring_mask);
    ring->sq_entries = parameters.sq_entries;
    ring->cq_head = (uint32_t *)(ring->queues + parameters.cq_off.head);
    ring->cq_tail = (uint32_t *)(ring->queues + parameters.cq_off.tail);
    ring->cq_mask = *(uint32_t *)(ring->queues + parameters.cq_off.ring_mask);
    ring->completions = (struct io_uring_cqe *)(ring->queues + parameters.cq_off.cqes);
    return ring;
}

void davit_ring_close(davit_ring *ring) {
    if (ring->queues != MAP_FAILED) munmap(ring->queues, ring->queues_size);
    if ((void *)ring->entries != MAP_FAILED) munmap(ring->entries, ring->entries_size);
    close(ring->descriptor);
    free(ring);
}

bool davit_ring_push(davit_ring *ring, enum davit_ring_operation operation, int descriptor, const struct iovec *pieces,
                     uint32_t count, uint64_t offset, uint64_t tag) {
    uint32_t tail = *ring->sq_tail;
    if (tail - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE) == ring->sq_entries) return false;
    struct io_uring_sqe *entry = &ring->entries[tail & ring->sq_mask];
    memset(entry, 0, sizeof *entry);
    switch (operation) {
    case DAVIT_RING_READ: entry->opcode = IORING_OP_READV; break;
    case DAVIT_RING_WRITE: entry->opcode = IORING_OP_WRITEV; break;
    case DAVIT_RING_SYNC: entry->opcode = IORING_OP_FSYNC; entry->fsync_flags = IORING_FSYNC_DATASYNC; break;
    case DAVIT_RING_WAKE: entry->opcode = IORING_OP_NOP; break;
    }
    entry->fd = descriptor;
    entry->addr = (uintptr_t)pieces;
    entry->len = count;
    entry->off = offset;
    entry->user_data = tag;
    ring->sq_array[tail & ring->sq_mask] = tail & ring->sq_mask;
    __atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
    ring->pending++;
    return true;
}

int davit_ring_submit(davit_ring *ring) {
    while (ring->pending) {
        long done = syscall(SYS_io_uring_enter, ring->descriptor, ring->pending, 0, 0, NULL, 0);
        if (done < 0 && (errno == EINTR || errno == EAGAIN || errno == EBUSY)) continue;
        if (done < 0) return -1;
        ring->pending -= (uint32_t)done;
    }
    return 0;
}

int davit_ring_wait(davit_ring *ring) {
    while (*ring->cq_head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE)) {
        long done = syscall(SYS_io_uring_enter, ring->descriptor, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
        if (done < 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY) return -1;
    }
    return 0;
}

bool davit_ring_pop(davit_ring *ring, uint64_t *tag, int32_t *result) {
    uint32_t head = *ring->cq_head;
    if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE)) return false;
    struct io_uring_cqe *entry = &ring->completions[head & ring->cq_mask];
    *tag = entry->user_data;
    *result = entry->res;
    __atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
    return true;
}
