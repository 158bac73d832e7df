// Linux interfaces that glibc does not declare for Swift, or declares as macros.
#ifndef DAVIT_LINUX_H
#define DAVIT_LINUX_H

#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

// memfd_create(2) with MFD_CLOEXEC, of huge pages if asked; a descriptor, or -1 with errno.
int davit_memfd_create(const char *_Nonnull name, bool huge_pages);

// futex(2), FUTEX_WAIT_PRIVATE and FUTEX_WAKE_PRIVATE. `timeout_ns` < 0 waits without limit.
// 0, or -1 with errno (EAGAIN: *word was not `expected`; ETIMEDOUT; EINTR).
int davit_futex_wait(volatile uint32_t *_Nonnull word, uint32_t expected, int64_t timeout_ns);
int davit_futex_wake(volatile uint32_t *_Nonnull word, int count);

// Names the calling thread; at most 15 bytes.
void davit_name_thread(const char *_Nonnull name);

// Whether the calling thread may run on a processor of the host's; sched_getaffinity(2).
bool davit_may_run_on(int processor);
// Has the calling thread run on that one alone; 0, or -1 with errno.
int davit_pin_thread(int processor);

// How late the kernel may wake the calling thread out of a timed sleep, in nanoseconds.
void davit_set_timer_slack(uint64_t nanoseconds);

// The host's RAM in bytes; 0 if it cannot be told.
uint64_t davit_host_memory(void);

// Unmaps the program's own code and constants, all of it unchanged pages of its file, until they are touched again.
void davit_release_program(void);

#endif
