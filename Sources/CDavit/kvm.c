#define _GNU_SOURCE
#include "davit_kvm.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int davit_kvm(int descriptor, enum davit_kvm_request request, unsigned long argument) {
    int result = ioctl(descriptor, (unsigned long)request, argument);
    return result < 0 ? -errno : result;
}

int davit_kvm_with(int descriptor, enum davit_kvm_request request, const void *argument) {
    return davit_kvm(descriptor, request, (unsigned long)argument);
}

static _Thread_local davit_kick_target *volatile receiver;

static void on_kick(int number) {
    (void)number;
    davit_kick_target *target = receiver;
    if (!target) return;
    *target->immediate_exit = 1;
    if (target->request) __atomic_fetch_or(target->request, target->request_bits, __ATOMIC_SEQ_CST);
}

// A real-time signal: nobody else sends it by accident, and it has no default use.
static int kick_signal(void) { return SIGRTMIN; }

int davit_kick_prepare(void) {
    // On the alternate stack: emitted code has none of its own.
    struct sigaction action = {.sa_handler = on_kick, .sa_flags = SA_ONSTACK | SA_RESTART};
    sigemptyset(&action.sa_mask);
    return sigaction(kick_signal(), &action, NULL);
}

void davit_kick_receive(davit_kick_target *target) {
    // Threads of others, such as dispatch queues', may have it blocked.
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, kick_signal());
    if (target) pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
    receiver = target;
}

void davit_kick(pthread_t thread) { pthread_kill(thread, kick_signal()); }

int64_t davit_kick_timer_create(void) {
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = kick_signal()};
    // glibc has no name for this member.
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    timer_t timer;
    return timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 ? (int64_t)(intptr_t)timer : -1;
}

void davit_kick_timer_set(int64_t timer, int64_t nanoseconds) {
    struct itimerspec when = {.it_value = {nanoseconds / 1000000000, nanoseconds % 1000000000}};
    timer_settime((timer_t)(intptr_t)timer, 0, &when, NULL);
}

void davit_kick_timer_delete(int64_t timer) { timer_delete((timer_t)(intptr_t)timer); }
