// What a guest's programs and kernel spend their time with, a case each: prints "case seconds". The same binary runs natively and in guests.
// Cases are of a size that takes some 50 ms natively; the number of a turn and a checksum keep the compiler honest.
#define _GNU_SOURCE
#include <fcntl.h>
#include <immintrin.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t sink;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t mix(uint64_t x) {
    x ^= x >> 31;
    x *= 0x9E3779B97F4A7C15;
    return x ^ x >> 27;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void integer(void) {
    uint64_t a = 1, b = 2;
    for (int i = 0; i < 20000000; i++) {
        a = mix(a + (uint64_t)i);
        b += a << 3 | a >> 61;
    }
    sink = a ^ b;
}

static void branches(void) {
    static uint32_t values[4096];
    for (int i = 0; i < 4096; i++) values[i] = (uint32_t)i * 1000;
    uint64_t found = 0, x = 7;
    for (int i = 0; i < 600000; i++) {
        x = mix(x + 1);
        uint32_t wanted = (uint32_t)(x % 4096000), low = 0, high = 4096;
        while (low < high) {
            uint32_t middle = (low + high) / 2;
            if (values[middle] < wanted) low = middle + 1; else high = middle;
        }
        found += low;
    }
    sink = found;
}

static void checksum(void) {
    static uint32_t table[256];
    static uint8_t text[1 << 16];
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320 ^ c >> 1 : c >> 1;
        table[i] = c;
    }
    for (size_t i = 0; i < sizeof text; i++) text[i] = (uint8_t)mix(i);
    uint32_t crc = ~0u;
    for (int turn = 0; turn < 300; turn++)
        for (size_t i = 0; i < sizeof text; i++) crc = table[(crc ^ text[i]) & 255] ^ crc >> 8;
    sink = crc;
}

static void chase(void) {
    enum { COUNT = 1 << 14 };
    static uint32_t next[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) next[i] = (i * 5 + 12345) % COUNT;
    uint32_t at = 0;
    for (int i = 0; i < 15000000; i++) at = next[at];
    sink = at;
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void sort(void) {
    enum { COUNT = 300000 };
    uint64_t *values = malloc(COUNT * sizeof *values);
    for (uint64_t i = 0; i < COUNT; i++) values[i] = mix(i);
    qsort(values, COUNT, sizeof *values, compare);
    sink = values[COUNT / 2];
    free(values);
}

static uint64_t add(uint64_t x) { return x + 3; }
static uint64_t turn(uint64_t x) { return x << 1 | x >> 63; }
static uint64_t flip(uint64_t x) { return x ^ 0x5555; }
static uint64_t (*volatile calls[4])(uint64_t) = {add, turn, flip, mix};

static void indirect(void) {
    uint64_t x = 1;
    for (int i = 0; i < 15000000; i++) x = calls[(i * 7 + i / 3) & 3](x);
    sink = x;
}

__attribute__((noinline)) static uint64_t fibonacci(unsigned n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

static void recursion(void) { sink = fibonacci(34); }

static void bodies(void) {
    double x[5], y[5], vx[5] = {0}, vy[5] = {0};
    for (int i = 0; i < 5; i++) x[i] = i * 1.3, y[i] = i * i * 0.7;
    for (int step = 0; step < 350000; step++) {
        for (int i = 0; i < 5; i++)
            for (int j = 0; j < 5; j++) {
                double dx = x[j] - x[i], dy = y[j] - y[i], d = dx * dx + dy * dy + 0.01;
                vx[i] += dx / (d * sqrt(d)) * 1e-4;
                vy[i] += dy / (d * sqrt(d)) * 1e-4;
            }
        for (int i = 0; i < 5; i++) x[i] += vx[i] * 1e-3, y[i] += vy[i] * 1e-3;
    }
    sink = (uint64_t)(int64_t)(x[0] * 1e6);
}

static void extended(void) {
    long double sum = 0, term = 1;
    for (int i = 1; i < 6000000; i++) {
        sum += term / (long double)i;
        term = -term;
    }
    sink = (uint64_t)(sum * 1e12L);
}

__attribute__((target("avx2"))) static void vectors(void) {
    static int32_t a[8192], b[8192];
    for (int i = 0; i < 8192; i++) a[i] = i, b[i] = 8192 - i;
    __m256i sum = _mm256_setzero_si256();
    for (int turn = 0; turn < 12000; turn++)
        for (int i = 0; i < 8192; i += 8) {
            __m256i p = _mm256_loadu_si256((void *)(a + i)), q = _mm256_loadu_si256((void *)(b + i));
            sum = _mm256_add_epi32(sum, _mm256_xor_si256(_mm256_mullo_epi32(p, q), _mm256_srli_epi32(sum, 3)));
        }
    sink = (uint64_t)_mm256_extract_epi64(sum, 1);
}

__attribute__((target("aes,sse4.1"))) static void aes(void) {
    __m128i block = _mm_set1_epi32(1), key = _mm_set1_epi32(0x1234567);
    for (int i = 0; i < 3000000; i++) {
        for (int round = 0; round < 9; round++) block = _mm_aesenc_si128(block, key);
        block = _mm_aesenclast_si128(block, key);
    }
    sink = (uint64_t)_mm_extract_epi64(block, 0);
}

static void copies(void) {
    enum { SIZE = 1 << 18 };
    static uint8_t a[SIZE], b[SIZE];
    memset(a, 1, SIZE);
    for (int i = 0; i < 6000; i++) {
        memcpy(b, a, SIZE - (size_t)(i & 63));
        __asm__ volatile("" : : "r"(b) : "memory");
    }
    for (int i = 0; i < 400000; i++) {
        memcpy(b + (i & 1023), a + (i & 511), 100 + (size_t)(i & 63));
        __asm__ volatile("" : : "r"(b) : "memory");
    }
}

static void atomics(void) {
    static _Atomic uint64_t counter;
    for (int i = 0; i < 8000000; i++) {
        atomic_fetch_add(&counter, 1);
        uint64_t expected = counter;
        atomic_compare_exchange_strong(&counter, &expected, expected ^ 1);
    }
    sink = counter;
}

static void system_calls(void) { for (int i = 0; i < 400000; i++) sink += (uint64_t)getppid(); }

static void page_faults(void) {
    enum { PAGES = 2048 };
    for (int i = 0; i < 12; i++) {
        uint8_t *pages = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED) fail("mmap");
        for (size_t k = 0; k < PAGES; k++) pages[k * 4096] = (uint8_t)k;
        munmap(pages, PAGES * 4096);
    }
}

static void await(pid_t child) {
    int status;
    if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0) fail("child");
}

static void forks(void) {
    for (int i = 0; i < 250; i++) {
        pid_t child = fork();
        if (child == 0) _exit(0);
        await(child);
    }
}

static void programs(void) {
    for (int i = 0; i < 120; i++) {
        pid_t child = vfork();
        if (child == 0) {
            execl("/proc/self/exe", "benchmark", "nothing", (char *)NULL);
            _exit(1);
        }
        await(child);
    }
}

static void pipes(void) {
    int there[2], back[2];
    char byte = 'x';
    if (pipe(there) || pipe(back)) fail("pipe");
    pid_t child = fork();
    if (child == 0) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1)
            if (write(back[1], &byte, 1) != 1) _exit(1);
        _exit(0);
    }
    close(there[0]);
    for (int i = 0; i < 8000; i++)
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) fail("pipe");
    close(there[1]);
    await(child);
    close(back[0]);
    close(back[1]);
}

static void files(void) {
    char name[] = "/dev/shm/benchmark-XXXXXX", block[4096] = {1};
    int file = mkstemp(name);
    if (file < 0) fail(name);
    unlink(name);
    for (int turn = 0; turn < 30; turn++) {
        for (int i = 0; i < 512; i++)
            if (pwrite(file, block, sizeof block, i * 4096L) != sizeof block) fail("write");
        for (int i = 0; i < 512; i++)
            if (pread(file, block, sizeof block, i * 4096L) != sizeof block) fail("read");
    }
    close(file);
}

static void handler(int number) { sink += (uint64_t)number; }

static void signals(void) {
    signal(SIGUSR1, handler);
    for (int i = 0; i < 60000; i++) raise(SIGUSR1);
}

// Writes a function, calls it, changes it, calls it.
static void generated(void) {
    uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) fail("mmap");
    uint64_t sum = 0;
    for (uint32_t i = 0; i < 12000; i++) {
        uint8_t *code = page + (i % 16) * 64;
        // mov eax, i; ret
        code[0] = 0xB8;
        memcpy(code + 1, &i, 4);
        code[5] = 0xC3;
        uint32_t (*call)(void) = (uint32_t (*)(void))(uintptr_t)code;
        for (int k = 0; k < 100; k++) sum += call();
    }
    munmap(page, 4096);
    sink = sum;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int whose;

static void *player(void *argument) {
    int mine = (int)(intptr_t)argument;
    for (int i = 0; i < 6000; i++) {
        pthread_mutex_lock(&lock);
        while (whose != mine) pthread_cond_wait(&changed, &lock);
        whose = !mine;
        pthread_cond_signal(&changed);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void threads(void) {
    pthread_t players[2];
    for (intptr_t i = 0; i < 2; i++)
        if (pthread_create(&players[i], NULL, player, (void *)i)) fail("pthread_create");
    for (int i = 0; i < 2; i++) pthread_join(players[i], NULL);
}

static const struct { const char *name; void (*run)(void); } cases[] = {
    {"integer", integer}, {"branches", branches}, {"checksum", checksum}, {"pointer-chase", chase}, {"sort", sort},
    {"indirect-calls", indirect}, {"recursion", recursion}, {"sse-double", bodies}, {"x87", extended}, {"avx2", vectors},
    {"aes", aes}, {"memcpy", copies}, {"atomics", atomics}, {"syscalls", system_calls}, {"page-faults", page_faults},
    {"fork", forks}, {"exec", programs}, {"pipe", pipes}, {"files", files}, {"signals", signals}, {"jit", generated},
    {"threads", threads},
};

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "nothing") == 0) return 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (count > 1 && strcmp(arguments[1], cases[i].name) != 0) continue;
        double best = 1e9;
        // The better of two: the first warms up.
        for (int turn = 0; turn < 2; turn++) {
            double begin = now();
            cases[i].run();
            double time = now() - begin;
            if (time < best) best = time;
        }
        printf("case %s %.6f\n", cases[i].name, best);
        fflush(stdout);
    }
    printf("case end 0\n");
    return 0;
}
