#define _GNU_SOURCE
#include "davit_terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>

static struct termios cooked, raw;
// The terminal that is raw, or -1. Handlers read it, so it is set after `cooked` is complete.
static volatile int raw_fd = -1;

void davit_terminal_restore(void) {
    int fd = raw_fd;
    if (fd < 0) return;
    raw_fd = -1;
    // TCSANOW: waiting for output to drain could last for ever.
    tcsetattr(fd, TCSANOW, &cooked);
}

bool davit_terminal_is_raw(void) { return raw_fd >= 0; }

// Stopped from outside (kill -TSTP): the shell wants its terminal as it was.
static void on_stop(int signal) {
    (void)signal;
    int saved = errno;
    if (raw_fd >= 0) tcsetattr(raw_fd, TCSANOW, &cooked);
    raise(SIGSTOP);
    errno = saved;
}

static void on_continue(int signal) {
    (void)signal;
    int saved = errno;
    if (raw_fd >= 0) tcsetattr(raw_fd, TCSANOW, &raw);
    errno = saved;
}

int davit_terminal_make_raw(int fd) {
    static int registered;
    if (tcgetattr(fd, &cooked) != 0) return -1;
    raw = cooked;
    cfmakeraw(&raw);
    if (!registered) {
        if (atexit(davit_terminal_restore) != 0) return -1;
        struct sigaction action = {.sa_flags = SA_RESTART | SA_ONSTACK};
        sigemptyset(&action.sa_mask);
        action.sa_handler = on_stop;
        sigaction(SIGTSTP, &action, NULL);
        action.sa_handler = on_continue;
        sigaction(SIGCONT, &action, NULL);
        registered = 1;
    }
    raw_fd = fd;
    if (tcsetattr(fd, TCSANOW, &raw) != 0) {
        raw_fd = -1;
        return -1;
    }
    return 0;
}

static volatile int watcher = -1;
static volatile sig_atomic_t asked_to_end;

static void die_of(int signal) {
    struct sigaction plain = {.sa_handler = SIG_DFL};
    davit_terminal_restore();
    sigaction(signal, &plain, NULL);
    raise(signal);  // taken when the handler returns
}

static void on_end(int signal) {
    int saved = errno;
    uint64_t number = (uint64_t)signal;
    if (asked_to_end || write(watcher, &number, sizeof number) != sizeof number) die_of(signal);
    asked_to_end = 1;
    errno = saved;
}

static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS, SIGXCPU, SIGXFSZ};
#define CRASHES ((int)(sizeof crashes / sizeof *crashes))
static struct sigaction before[CRASHES];

static void on_crash(int signal, siginfo_t *info, void *context) {
    (void)context;
    davit_terminal_restore();
    for (int i = 0; i < CRASHES; i++)
        if (crashes[i] == signal) sigaction(signal, &before[i], NULL);
    // A fault happens again when the instruction is repeated, now under the action that was there before.
    if (info->si_code <= 0) raise(signal);
}

int davit_signals_watch(int event_fd) {
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    watcher = event_fd;
    struct sigaction action = {.sa_flags = SA_RESTART | SA_ONSTACK}, old;
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < (int)(sizeof ends / sizeof *ends); i++) {
        if (sigaction(ends[i], NULL, &old) != 0) return -1;
        if (old.sa_handler == SIG_IGN) continue;  // nohup, or a shell's background job
        action.sa_handler = on_end;
        if (sigaction(ends[i], &action, NULL) != 0) return -1;
    }
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    action.sa_sigaction = on_crash;
    for (int i = 0; i < CRASHES; i++)
        if (sigaction(crashes[i], &action, &before[i]) != 0) return -1;
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    return sigaction(SIGPIPE, &ignore, NULL);
}

static int size_watcher = -1;

static void on_size(int signal) {
    (void)signal;
    int error = errno;
    uint64_t one = 1;
    ssize_t result = write(size_watcher, &one, sizeof one);
    (void)result;
    errno = error;
}

int davit_terminal_watch_size(int event_fd) {
    size_watcher = event_fd;
    struct sigaction action = {.sa_handler = on_size, .sa_flags = SA_RESTART | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    return sigaction(SIGWINCH, &action, NULL);
}

// A signal frame with AVX-512 and AMX state is about 11 KiB.
#define SIGNAL_STACK_SIZE 65536

int davit_signals_make_stack(void) {
    stack_t now;
    if (sigaltstack(NULL, &now) != 0) return -1;
    if (!(now.ss_flags & SS_DISABLE)) return 0;
    void *memory = mmap(NULL, SIGNAL_STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED) return -1;
    stack_t stack = {.ss_sp = memory, .ss_size = SIGNAL_STACK_SIZE};
    return sigaltstack(&stack, NULL);
}

void davit_signals_drop_stack(void) {
    stack_t none = {.ss_flags = SS_DISABLE}, was;
    if (sigaltstack(&none, &was) == 0 && was.ss_sp && was.ss_size == SIGNAL_STACK_SIZE) munmap(was.ss_sp, was.ss_size);
}
