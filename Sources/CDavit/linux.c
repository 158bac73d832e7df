#define _GNU_SOURCE
#include "davit_cpu.h"
#include "davit_linux.h"

#include <link.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

int davit_memfd_create(const char *name, bool huge_pages) {
    return memfd_create(name, MFD_CLOEXEC | (huge_pages ? MFD_HUGETLB : 0));
}

int davit_futex_wait(volatile uint32_t *word, uint32_t expected, int64_t timeout_ns) {
    struct timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    return (int)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_ns < 0 ? NULL : &limit, NULL, 0);
}

int davit_futex_wake(volatile uint32_t *word, int count) {
    return (int)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

void davit_name_thread(const char *name) { pthread_setname_np(pthread_self(), name); }

bool davit_may_run_on(int processor) {
    cpu_set_t set;
    return processor >= 0 && processor < CPU_SETSIZE && sched_getaffinity(0, sizeof set, &set) == 0 && CPU_ISSET(processor, &set);
}

int davit_pin_thread(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    return sched_setaffinity(0, sizeof set, &set);
}

void davit_set_timer_slack(uint64_t nanoseconds) { prctl(PR_SET_TIMERSLACK, (unsigned long)nanoseconds); }

uint64_t davit_host_memory(void) {
    struct sysinfo host;
    return sysinfo(&host) == 0 ? (uint64_t)host.totalram * host.mem_unit : 0;
}

static int release_constants(struct dl_phdr_info *program, size_t size, void *unused) {
    (void)size, (void)unused;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < program->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &program->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || segment->p_flags & PF_W) continue;
        uintptr_t start = (program->dlpi_addr + segment->p_vaddr) & ~(page - 1);
        uintptr_t end = program->dlpi_addr + segment->p_vaddr + segment->p_memsz;
        // Safe: nobody has written there, so that the file has the same bytes.
        madvise((void *)start, end - start, MADV_DONTNEED);
    }
    return 0;
}

void davit_release_program(void) { dl_iterate_phdr(release_constants, NULL); }

void davit_cpu_wait(davit_cpu *cpu, uint32_t seen) { davit_futex_wait(&cpu->exit_request, seen, -1); }
void davit_cpu_wake(davit_cpu *cpu) { davit_futex_wake(&cpu->exit_request, 1); }
