// The first program in an initramfs that Davit makes: loads the kernel modules beside it, mounts the root disk, and goes on with the
// system on it. Freestanding, so that it is a few KiB; scripts/make-init-program turns it into Swift.
#include <fcntl.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#define BUFFER 4096

static long call(long number, long a, long b, long c, long d, long e) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return result;
}

static size_t length(const char *text) {
    size_t count = 0;
    while (text[count]) count++;
    return count;
}

static int starts(const char *text, const char *with) {
    while (*with)
        if (*text++ != *with++) return 0;
    return 1;
}

static int ends(const char *text, const char *with) {
    size_t all = length(text), part = length(with);
    return all >= part && starts(text + all - part, with);
}

static void say(const char *text) { call(SYS_write, 2, (long)text, (long)length(text), 0, 0); }

static void fail(const char *what, const char *which) {
    say("davit's initramfs: ");
    say(what);
    say(which);
    say("\n");
    // The kernel panics, and tells the machine.
    call(SYS_exit_group, 1, 0, 0, 0, 0);
}

static void mount_at(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
    call(SYS_mount, (long)source, (long)target, (long)type, (long)flags, (long)data);
}

static long read_file(const char *path, char *buffer) {
    long file = call(SYS_open, (long)path, O_RDONLY, 0, 0, 0), count = 0, got;
    if (file < 0) return 0;
    while ((got = call(SYS_read, file, (long)(buffer + count), BUFFER - 1 - count, 0, 0)) > 0) count += got;
    call(SYS_close, file, 0, 0, 0, 0);
    buffer[count] = 0;
    return count;
}

// The names, one a line, in order of dependence.
static void load_modules(void) {
    static char list[BUFFER];
    read_file("/modules/list", list);
    char *name = list;
    while (*name) {
        char *end = name;
        while (*end && *end != '\n') end++;
        char more = *end;
        *end = 0;
        long file = call(SYS_open, (long)name, O_RDONLY, 0, 0, 0);
        // MODULE_INIT_COMPRESSED_FILE is 4. One that fails may be built in, or for hardware that is not here.
        if (file >= 0) {
            call(SYS_finit_module, file, (long)"", ends(name, ".ko") ? 0 : 4, 0, 0);
            call(SYS_close, file, 0, 0, 0, 0);
            call(SYS_unlink, (long)name, 0, 0, 0, 0);
        }
        if (!more) break;
        name = end + 1;
    }
}

static char line[BUFFER], types[64];
static const char *root = "/dev/vda", *type = "ext4\0xfs\0btrfs\0", *options = "", *init = "/sbin/init";
static unsigned long root_flags = MS_RDONLY;

static void read_command_line(void) {
    read_file("/proc/cmdline", line);
    for (char *word = line; *word;) {
        char *end = word;
        while (*end && *end != ' ' && *end != '\n') end++;
        char more = *end;
        *end = 0;
        if (starts(word, "root=")) root = word + 5;
        if (starts(word, "rootfstype=")) {
            // Names behind one another, the last of them empty.
            for (size_t i = 0; i < sizeof types - 2; i++) types[i] = i < length(word + 11) && word[11 + i] != ',' ? word[11 + i] : 0;
            type = types;
        }
        if (starts(word, "rootflags=")) options = word + 10;
        if (starts(word, "init=")) init = word + 5;
        if (starts(word, "rw") && !word[2]) root_flags = 0;
        if (starts(word, "ro") && !word[2]) root_flags = MS_RDONLY;
        if (!more) break;
        word = end + 1;
    }
}

static void wait_for_root(void) {
    struct timespec pause = {0, 2000000};
    struct stat status;
    if (!starts(root, "/dev/")) fail("root must be a device such as /dev/vda, not ", root);
    for (int tries = 0; call(SYS_stat, (long)root, (long)&status, 0, 0, 0) < 0; tries++) {
        if (tries == 5000) fail("there is no ", root);
        call(SYS_nanosleep, (long)&pause, 0, 0, 0, 0);
    }
}

static void mount_root(void) {
    const char *one = type;
    for (; *one; one += length(one) + 1)
        if (call(SYS_mount, (long)root, (long)"/root", (long)one, (long)root_flags, (long)options) == 0) return;
    fail("no file system could be mounted from ", root);
}

__attribute__((noreturn, used)) static void run(long *stack) {
    char **environment = (char **)(stack + stack[0] + 2);
    char *arguments[] = {(char *)init, NULL};
    mount_at("dev", "/dev", "devtmpfs", 0, "");
    mount_at("proc", "/proc", "proc", 0, "");
    long console = call(SYS_open, (long)"/dev/console", O_RDWR, 0, 0, 0);
    for (long file = 0; console >= 0 && file < 3; file++) call(SYS_dup2, console, file, 0, 0, 0);
    load_modules();
    read_command_line();
    wait_for_root();
    mount_root();
    call(SYS_umount2, (long)"/proc", 0, 0, 0, 0);
    mount_at("/dev", "/root/dev", "", MS_MOVE, "");
    call(SYS_chdir, (long)"/root", 0, 0, 0, 0);
    mount_at(".", "/", "", MS_MOVE, "");
    call(SYS_chroot, (long)".", 0, 0, 0, 0);
    arguments[0] = (char *)init;
    call(SYS_execve, (long)init, (long)arguments, (long)environment, 0, 0);
    fail("cannot run ", init);
    __builtin_unreachable();
}

__attribute__((naked, noreturn, used)) void _start(void) { __asm__("mov %rsp, %rdi\n and $-16, %rsp\n call run"); }
