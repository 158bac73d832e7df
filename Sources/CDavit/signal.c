#define _GNU_SOURCE
#include "davit_signal.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "davit_cpu.h"

#define MOST_RANGES 1024
// Written under `lock`; the handler reads `start` last, so a range is seen whole or not at all.
static struct {
    uintptr_t start, end, resume;   // `resume` is 0 for thunks
} ranges[MOST_RANGES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const int caught[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
static struct sigaction before[NSIG];

static void handle(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t pc = (uintptr_t)registers[REG_RIP];
    for (int i = 0; i < MOST_RANGES; i++) {
        uintptr_t start = __atomic_load_n(&ranges[i].start, __ATOMIC_ACQUIRE);
        if (start && pc >= start && pc < ranges[i].end) {
            if (!ranges[i].resume) {
                registers[REG_R10] = registers[REG_TRAPNO];
                registers[REG_RIP] = registers[REG_R9];
                return;
            }
            ((davit_cpu *)registers[REG_RSP])->exit_pc = pc;
            registers[REG_RIP] = (greg_t)ranges[i].resume;
            return;
        }
    }
    struct sigaction *old = &before[number];
    if (old->sa_flags & SA_SIGINFO) {
        old->sa_sigaction(number, info, context);
    } else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN) {
        old->sa_handler(number);
    } else {
        // The fault happens again, to its default end.
        signal(number, SIG_DFL);
    }
}

int davit_catch_faults(uintptr_t start, uintptr_t end, uintptr_t resume) {
    static int installed;
    int result = -1;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MOST_RANGES && result < 0; i++) {
        if (ranges[i].start) continue;
        ranges[i].end = end;
        ranges[i].resume = resume;
        __atomic_store_n(&ranges[i].start, start, __ATOMIC_RELEASE);
        result = 0;
    }
    if (!installed) {
        struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};
        sigemptyset(&action.sa_mask);
        for (size_t i = 0; i < sizeof caught / sizeof *caught; i++) sigaction(caught[i], &action, &before[caught[i]]);
        installed = 1;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int davit_catch_thunk_faults(uintptr_t start, uintptr_t end) { return davit_catch_faults(start, end, 0); }

void davit_release_faults(uintptr_t start) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MOST_RANGES; i++)
        if (ranges[i].start == start) __atomic_store_n(&ranges[i].start, 0, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
}

int davit_prepare_thread(void) {
    stack_t stack = {.ss_size = 64 * 1024};
    stack_t old;
    sigset_t all;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++) sigdelset(&all, caught[i]);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    if (sigaltstack(NULL, &old) == 0 && !(old.ss_flags & SS_DISABLE)) return 0;
    stack.ss_sp = mmap(NULL, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack.ss_sp == MAP_FAILED) return -1;
    return sigaltstack(&stack, NULL);
}
