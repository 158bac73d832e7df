// Atomic access to memory that Swift's `Atomic` cannot lay hands on: guest RAM (page table entries, locked instructions)
// and tables shared by vCPU threads. All are sequentially consistent but those whose name says otherwise. Pointers are naturally aligned.
#ifndef DAVIT_ATOMIC_H
#define DAVIT_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>

static inline bool davit_atomic_exchange32(void *_Nonnull place, uint32_t expected, uint32_t desired) {
    return __atomic_compare_exchange_n((uint32_t *)place, &expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
static inline bool davit_atomic_exchange64(void *_Nonnull place, uint64_t expected, uint64_t desired) {
    return __atomic_compare_exchange_n((uint64_t *)place, &expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
static inline uint64_t davit_atomic_load64(const void *_Nonnull place) {
    return __atomic_load_n((const uint64_t *)place, __ATOMIC_SEQ_CST);
}
static inline uint64_t davit_atomic_or64(void *_Nonnull place, uint64_t bits) {
    return __atomic_fetch_or((uint64_t *)place, bits, __ATOMIC_SEQ_CST);
}
static inline uint64_t davit_atomic_and64(void *_Nonnull place, uint64_t bits) {
    return __atomic_fetch_and((uint64_t *)place, bits, __ATOMIC_SEQ_CST);
}
static inline uint64_t davit_atomic_add64(void *_Nonnull place, uint64_t value) {
    return __atomic_fetch_add((uint64_t *)place, value, __ATOMIC_SEQ_CST);
}

// Rings that a guest and a device share.
static inline uint16_t davit_atomic_load16_acquire(const void *_Nonnull place) {
    return __atomic_load_n((const uint16_t *)place, __ATOMIC_ACQUIRE);
}
static inline void davit_atomic_store16_release(void *_Nonnull place, uint16_t value) {
    __atomic_store_n((uint16_t *)place, value, __ATOMIC_RELEASE);
}
static inline uint32_t davit_atomic_load32_acquire(const void *_Nonnull place) {
    return __atomic_load_n((const uint32_t *)place, __ATOMIC_ACQUIRE);
}
static inline void davit_atomic_store32_release(void *_Nonnull place, uint32_t value) {
    __atomic_store_n((uint32_t *)place, value, __ATOMIC_RELEASE);
}
static inline void davit_atomic_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

#endif
