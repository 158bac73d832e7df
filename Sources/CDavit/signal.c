#define _GNU_SOURCE
#include "davit_signal.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
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
    int result = -1;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MOST_RANGES && result < 0; i++)
        if (ranges[i].start == start) result = 0;
    for (int i = 0; i < MOST_RANGES && result < 0; i++) {
        if (ranges[i].start) continue;
        ranges[i].end = end;
        ranges[i].resume = resume;
        __atomic_store_n(&ranges[i].start, start, __ATOMIC_RELEASE);
        result = 0;
    }
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK}, now;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++) {
        if (sigaction(caught[i], NULL, &now) != 0 || now.sa_sigaction == handle) continue;
        before[caught[i]] = now;
        sigaction(caught[i], &action, NULL);
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
