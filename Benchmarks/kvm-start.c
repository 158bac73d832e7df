// Times a program's start: `kvm-start PROGRAM ARGUMENT...` executes it with this same file, built as a library, in LD_PRELOAD; that prints
// the milliseconds from exec to the first KVM_RUN to the file that KVM_START_LOG names.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

#ifdef LIBRARY
int ioctl(int file, unsigned long request, ...) {
    static int seen;
    va_list list;
    va_start(list, request);
    unsigned long argument = va_arg(list, unsigned long);
    va_end(list);
    if (request == KVM_RUN && !__atomic_exchange_n(&seen, 1, __ATOMIC_RELAXED)) {
        FILE *log = fopen(getenv("KVM_START_LOG"), "w");
        if (log) {
            fprintf(log, "%f\n", now() - atof(getenv("KVM_START_TIME")));
            fclose(log);
        }
    }
    return ((int (*)(int, unsigned long, unsigned long))dlsym(RTLD_NEXT, "ioctl"))(file, request, argument);
}
#else
int main(int count, char **arguments) {
    char text[32];
    if (count < 2) return 64;
    snprintf(text, sizeof text, "%f", now());
    setenv("KVM_START_TIME", text, 1);
    execv(arguments[1], arguments + 1);
    return 127;
}
#endif
