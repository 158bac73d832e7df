// The child never leaves its signal handler but for the instruction under test: the kernel loads the whole state from the
// signal frame on return, and saves it there when the instruction has trapped. FS and GS belong to the tests, so nothing
// that runs in the handler may use thread-local storage: no errno, no stack protector, raw system calls only.
#define _GNU_SOURCE
#include "oracle_processor.h"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define NO_TLS __attribute__((no_stack_protector))

// Base 0-15, 16-23 and 24-31, limit 0-15 and 16-19, access byte and flags where a descriptor has them (SDM vol. 3, figure 3-8).
#define DESCRIPTOR(base, limit, access, flags)                                                               \
    ((uint64_t)((limit) & 0xFFFF) | (uint64_t)((base) & 0xFFFFFF) << 16 | (uint64_t)(access) << 40 |         \
     (uint64_t)((limit) >> 16 & 15) << 48 | (uint64_t)(flags) << 52 | (uint64_t)((base) >> 24 & 0xFF) << 56)
#define DATA_LIMIT (ORACLE_DATA_SIZE - 1)
#define WIDE 4   // D/B

const uint64_t oracle_descriptors[ORACLE_SEGMENTS] = {
    [ORACLE_CODE16] = DESCRIPTOR(ORACLE_CODE_ADDRESS, ORACLE_CODE_SIZE - 1, 0xFB, 0),
    [ORACLE_CODE32] = DESCRIPTOR(ORACLE_CODE_ADDRESS, ORACLE_CODE_SIZE - 1, 0xFB, WIDE),
    [ORACLE_DATA16] = DESCRIPTOR(ORACLE_DATA_ADDRESS, DATA_LIMIT, 0xF3, 0),
    [ORACLE_DATA32] = DESCRIPTOR(ORACLE_DATA_ADDRESS, DATA_LIMIT, 0xF3, WIDE),
    [ORACLE_HIGH_DATA] = DESCRIPTOR(ORACLE_DATA_ADDRESS + 0x1000, DATA_LIMIT, 0xF3, WIDE),
    [ORACLE_EXPAND_DOWN] = DESCRIPTOR(ORACLE_DATA_ADDRESS, 0xFFF, 0xF7, WIDE),
    [ORACLE_READ_ONLY] = DESCRIPTOR(ORACLE_DATA_ADDRESS, DATA_LIMIT, 0xF1, WIDE),
    [ORACLE_ABSENT] = DESCRIPTOR(ORACLE_DATA_ADDRESS, DATA_LIMIT, 0x73, WIDE),
    [ORACLE_CONFORMING] = DESCRIPTOR(ORACLE_CODE_ADDRESS, ORACLE_CODE_SIZE - 1, 0x7F, WIDE),
    [ORACLE_EXECUTE_ONLY] = DESCRIPTOR(ORACLE_CODE_ADDRESS, ORACLE_CODE_SIZE - 1, 0xF9, WIDE),
};

static oracle_batch *shared;
static uint8_t *data_page, *code_page;   // writable views of what the tests see

NO_TLS static inline long raw_syscall(long number, long a, long b, long c, long d) {
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

NO_TLS static inline void copy_bytes(void *to, const void *from, size_t count) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory");
}

// Number of the general register in encodings -> index in gregs.
static const uint8_t gregs_index[16] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

static uint32_t batch_done, case_index;   // child's own: batches done, case within the batch
static int has_fsgsbase;

// Segment registers that the kernel leaves alone when it returns from a signal.
NO_TLS static void set_segments(const oracle_registers *r) {
    __asm__ volatile(
        "mov %0, %%ds; mov %1, %%es; mov %2, %%fs; mov %3, %%gs"
        :
        : "r"((uint32_t)r->ds), "r"((uint32_t)r->es), "r"((uint32_t)r->fs), "r"((uint32_t)r->gs));
    if (r->fs || r->gs) return;
    if (has_fsgsbase) {
        __asm__ volatile("wrfsbase %0; wrgsbase %1" ::"r"(ORACLE_FS_BASE), "r"(ORACLE_GS_BASE));
    } else {
        raw_syscall(SYS_arch_prctl, ARCH_SET_FS, (long)ORACLE_FS_BASE, 0, 0);
        raw_syscall(SYS_arch_prctl, ARCH_SET_GS, (long)ORACLE_GS_BASE, 0, 0);
    }
}

NO_TLS static void store_result(const ucontext_t *context, oracle_case *c, oracle_result *r) {
    const greg_t *g = context->uc_mcontext.gregs;
    for (int i = 0; i < 16; i++) r->registers.gpr[i] = (uint64_t)g[gregs_index[i]];
    r->registers.rip = (uint64_t)g[REG_RIP];
    r->registers.rflags = (uint64_t)g[REG_EFL];
    r->registers.cs = (uint16_t)g[REG_CSGSFS];
    r->registers.ss = (uint16_t)((uint64_t)g[REG_CSGSFS] >> 48);
    uint32_t ds, es, fs, gs;
    __asm__ volatile("mov %%ds, %0; mov %%es, %1; mov %%fs, %2; mov %%gs, %3" : "=r"(ds), "=r"(es), "=r"(fs), "=r"(gs));
    r->registers.ds = (uint16_t)ds;
    r->registers.es = (uint16_t)es;
    r->registers.fs = (uint16_t)fs;
    r->registers.gs = (uint16_t)gs;
    if (has_fsgsbase) {
        __asm__ volatile("rdfsbase %0; rdgsbase %1" : "=r"(r->registers.fs_base), "=r"(r->registers.gs_base));
    } else {
        raw_syscall(SYS_arch_prctl, ARCH_GET_FS, (long)&r->registers.fs_base, 0, 0);
        raw_syscall(SYS_arch_prctl, ARCH_GET_GS, (long)&r->registers.gs_base, 0, 0);
    }
    r->vector = (uint32_t)g[REG_TRAPNO];
    r->error_code = (uint32_t)g[REG_ERR];
    r->cr2 = (uint64_t)g[REG_CR2];
    if (r->vector == 3 && c->registers.rip + c->code_length < r->registers.rip) {
        // The breakpoint behind the instruction, not INT3 itself: the instruction went well.
        r->vector = 1;
        r->registers.rip -= 1;
    }
    copy_bytes(r->xsave, context->uc_mcontext.fpregs, ORACLE_XSAVE_SIZE);

    uint32_t lines = 0;
    for (uint32_t at = 0; at < ORACLE_DATA_SIZE; at += ORACLE_LINE) {
        const uint64_t *now = (const uint64_t *)(data_page + at);
        const uint64_t *before = (const uint64_t *)(shared->pattern + at);
        uint64_t difference = 0;
        for (int i = 0; i < ORACLE_LINE / 8; i++) difference |= now[i] ^ before[i];
        if (!difference) continue;
        if (lines < ORACLE_MAX_LINES) {
            r->lines[lines].offset = at;
            copy_bytes(r->lines[lines].bytes, now, ORACLE_LINE);
            lines++;
        }
        copy_bytes(data_page + at, before, ORACLE_LINE);
    }
    r->line_count = lines;
}

NO_TLS static void load_case(ucontext_t *context, const oracle_case *c) {
    greg_t *g = context->uc_mcontext.gregs;
    for (int i = 0; i < 16; i++) g[gregs_index[i]] = (greg_t)c->registers.gpr[i];
    g[REG_RIP] = (greg_t)c->registers.rip;
    g[REG_EFL] = (greg_t)(c->registers.rflags | (c->flags & ORACLE_STOP_BY_BREAKPOINT ? 0 : 0x100));
    g[REG_CSGSFS] = (greg_t)((uint64_t)c->registers.ss << 48 | c->registers.cs);

    // The code may end at the end of its pages: then what is missing is not fetched, or faults.
    uint64_t offset = c->code_address - ORACLE_CODE_ADDRESS;
    for (uint32_t i = 0; i < 16; i++) {
        if (offset + i < ORACLE_CODE_SIZE) code_page[offset + i] = i < c->code_length ? c->code[i] : 0xCC;
    }
    for (int i = 0; i < 2; i++) copy_bytes(data_page + c->overlays[i].offset, c->overlays[i].bytes, c->overlays[i].count);
    uint8_t *x = (uint8_t *)context->uc_mcontext.fpregs;
    copy_bytes(x, c->xsave, 416);                       // up to the software-reserved bytes
    copy_bytes(x + 576, c->xsave + 576, ORACLE_XSAVE_SIZE - 576);
    uint64_t *header = (uint64_t *)(x + 512);
    header[0] = (header[0] & ~7ull) | 7;                // x87, SSE and AVX state present
}

NO_TLS static __attribute__((used)) void on_signal(int number, siginfo_t *info, void *opaque) {
    ucontext_t *context = opaque;
    (void)number;
    (void)info;
    // The first signal is the child's own call for work.
    static int started;
    int running = started;
    started = 1;
    if (running) {
        store_result(context, &shared->cases[case_index], &shared->results[case_index]);
        case_index++;
        shared->current = case_index;
    }
    if (!running || case_index == shared->count) {
        if (running) {
            batch_done++;
            __atomic_store_n(&shared->finished, batch_done, __ATOMIC_RELEASE);
            raw_syscall(SYS_futex, (long)&shared->finished, FUTEX_WAKE, 1, 0);
        }
        while (__atomic_load_n(&shared->posted, __ATOMIC_ACQUIRE) == batch_done) {
            raw_syscall(SYS_futex, (long)&shared->posted, FUTEX_WAIT, batch_done, 0);
        }
        case_index = 0;
        shared->current = 0;
        copy_bytes(data_page, shared->pattern, ORACLE_DATA_SIZE + ORACLE_CONSTANT_SIZE);
    }
    set_segments(&shared->cases[case_index].registers);
    load_case(context, &shared->cases[case_index]);
}

// AC, NT and ID of the test stay set in a handler: neither the C code nor the next test may run with them.
__asm__(
    ".text\n"
    "oracle_signal_entry:\n"
    "  pushq $0x202\n"
    "  popfq\n"
    "  jmp on_signal\n");
extern void oracle_signal_entry(int, siginfo_t *, void *);

// Maps `size` bytes of one memfd at a fixed address for the tests, and elsewhere for the handler to write.
static uint8_t *map_twice(uint64_t address, size_t size, int protection) {
    int descriptor = memfd_create("oracle", MFD_CLOEXEC);
    if (descriptor < 0 || ftruncate(descriptor, (off_t)size) != 0) return NULL;
    void *seen = mmap((void *)address, size, protection, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, descriptor, 0);
    void *view = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (seen != (void *)address || view == MAP_FAILED) return NULL;
    return view;
}

_Noreturn static void run_child(void) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigset_t unblocked;
    sigemptyset(&unblocked);
    sigprocmask(SIG_SETMASK, &unblocked, NULL);
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);

    code_page = map_twice(ORACLE_CODE_ADDRESS, ORACLE_CODE_SIZE, PROT_READ | PROT_EXEC);
    data_page = map_twice(ORACLE_DATA_ADDRESS, ORACLE_DATA_SIZE + ORACLE_CONSTANT_SIZE, PROT_READ | PROT_WRITE);
    if (!code_page || !data_page) _exit(2);
    if (mprotect((void *)(ORACLE_DATA_ADDRESS + ORACLE_DATA_SIZE), ORACLE_CONSTANT_SIZE, PROT_READ) != 0) _exit(2);

    for (uint32_t i = 0; i < ORACLE_SEGMENTS; i++) {
        uint64_t d = oracle_descriptors[i];
        struct user_desc segment = {
            .entry_number = i,
            .base_addr = (uint32_t)(d >> 16 & 0xFFFFFF) | (uint32_t)(d >> 56) << 24,
            .limit = (uint32_t)(d & 0xFFFF) | (uint32_t)(d >> 48 & 15) << 16,
            .seg_32bit = d >> 54 & 1,
            .contents = d >> 42 & 3,
            .read_exec_only = !(d >> 41 & 1),
            .seg_not_present = !(d >> 47 & 1),
        };
        if (syscall(SYS_modify_ldt, 0x11, &segment, sizeof segment) != 0) _exit(2);
    }

    stack_t stack = {.ss_sp = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                     .ss_size = 1 << 20};
    if (stack.ss_sp == MAP_FAILED || sigaltstack(&stack, NULL) != 0) _exit(2);
    struct sigaction action = {.sa_sigaction = oracle_signal_entry, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigfillset(&action.sa_mask);
    static const int signals[] = {SIGTRAP, SIGSEGV, SIGFPE, SIGILL, SIGBUS};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
    __asm__ volatile("int3");
    _exit(3);
}

oracle_batch *oracle_start(int32_t *child) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return NULL;
    // AT_HWCAP2 bit 1: RDFSBASE and its like may be used.
    extern unsigned long getauxval(unsigned long);
    has_fsgsbase = getauxval(26) >> 1 & 1;
    oracle_batch *batch = shared;
    *child = fork();
    if (*child == 0) run_child();
    if (*child < 0) {
        int error = errno;
        munmap(batch, sizeof *batch);
        errno = error;
        return NULL;
    }
    return batch;
}

void oracle_post(oracle_batch *batch, uint32_t count) {
    batch->count = count;
    __atomic_fetch_add(&batch->posted, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &batch->posted, FUTEX_WAKE, 1, NULL, NULL, 0);
}

int oracle_wait(oracle_batch *batch, int32_t child) {
    uint32_t last = ~0u;
    for (int idle = 0; idle < 10;) {
        uint32_t finished = __atomic_load_n(&batch->finished, __ATOMIC_ACQUIRE);
        if (finished == batch->posted) return 0;
        struct timespec second = {1, 0};
        long result = syscall(SYS_futex, &batch->finished, FUTEX_WAIT, finished, &second, NULL, 0);
        if (result != 0 && errno == ETIMEDOUT) {
            int status;
            if (waitpid(child, &status, WNOHANG) == child) return status;
            if (batch->current == last) idle++;
            last = batch->current;
        }
    }
    return -1;
}

void oracle_stop(oracle_batch *batch, int32_t child) {
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    munmap(batch, sizeof *batch);
}

uint32_t oracle_mxcsr_mask(void) {
    uint8_t image[512] __attribute__((aligned(16))) = {0};
    __asm__ volatile("fxsave64 %0" : "=m"(image));
    uint32_t mask;
    memcpy(&mask, image + 28, sizeof mask);
    return mask ? mask : 0xFFBF;
}
