// The bare minimum around KVM_RUN, to measure Davit against: a guest of one loop at CPL 3. And the same loop on the host.
//   port|memory|plain|host COUNT   prints the seconds that COUNT rounds took
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

enum { CODE = 0x10000, TABLES = 0x20000, SIZE = 1 << 20, DEVICE = 0x40000000 };
extern const char port_code[], memory_code[], loop_code[], end_code[];
void loop_code_on_host(uint64_t count);

asm(".include \"kvm-loops.inc\"\n"
    "port_code:   port_loop; out %al, $0xf4\n"
    "memory_code: memory_loop; out %al, $0xf4\n"
    "loop_code:   plain_loop; out %al, $0xf4\n"
    "end_code:\n"
    "loop_code_on_host: push %rbx; mov %rdi, %rcx; lea cell(%rip), %rbx; plain_loop; pop %rbx; ret\n"
    ".local cell; .comm cell, 8\n");

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void must(long result, const char *what) {
    if (result >= 0) return;
    perror(what);
    exit(1);
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, int is_code) {
    return (struct kvm_segment){.selector = selector, .limit = 0xFFFFFFFF, .type = type, .present = 1, .dpl = 3, .s = 1, .g = 1,
                                .l = is_code, .db = !is_code};
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    uint64_t count = strtoull(argv[2], NULL, 0);
    if (!strcmp(argv[1], "host")) {
        double start = now();
        loop_code_on_host(count);
        printf("%.6f\n", now() - start);
        return 0;
    }
    const char *code = !strcmp(argv[1], "port") ? port_code : !strcmp(argv[1], "memory") ? memory_code : loop_code;

    int kvm = open("/dev/kvm", O_RDWR), vm = ioctl(kvm, KVM_CREATE_VM, 0);
    must(vm, "KVM_CREATE_VM");
    must(ioctl(vm, KVM_SET_TSS_ADDR, 0xFFFBD000), "KVM_SET_TSS_ADDR");
    must(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
    char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region slot = {.memory_size = SIZE, .userspace_addr = (uintptr_t)memory};
    must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
    memcpy(memory + CODE, code, end_code - code);
    // The first two GiB, in pages of 2 MiB that user mode may use.
    uint64_t *tables = (uint64_t *)(memory + TABLES);
    tables[0] = (TABLES + 4096) | 7;
    for (int i = 0; i < 2; i++) tables[512 + i] = (TABLES + 8192 + 4096 * i) | 7;
    for (uint64_t i = 0; i < 1024; i++) tables[1024 + i] = i << 21 | 0x87;

    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    must(vcpu, "KVM_CREATE_VCPU");
    struct {
        struct kvm_cpuid2 header;
        struct kvm_cpuid_entry2 entries[256];
    } cpuid = {.header = {.nent = 256}};
    must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid), "KVM_GET_SUPPORTED_CPUID");
    must(ioctl(vcpu, KVM_SET_CPUID2, &cpuid), "KVM_SET_CPUID2");
    struct kvm_run *run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    struct kvm_sregs sregs;
    must(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
    sregs.cs = segment(0x1B, 11, 1);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment(0x23, 3, 0);
    sregs.tr = (struct kvm_segment){.limit = 0x67, .type = 11, .present = 1};
    sregs.cr0 = 0x80000011;
    sregs.cr3 = TABLES;
    sregs.cr4 = 0x20;
    sregs.efer = 0x500;
    must(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
    struct kvm_regs regs = {.rip = CODE, .rflags = 0x3002, .rcx = count, .rbx = code == loop_code ? 0 : DEVICE};
    must(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");

    double start = now();
    for (uint64_t exits = 0;; exits++) {
        must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
        if (run->exit_reason == KVM_EXIT_IO && run->io.port == 0xF4) break;
        if (run->exit_reason == KVM_EXIT_MMIO) memset(run->mmio.data, 0xFF, 8);
        else if (run->exit_reason != KVM_EXIT_IO) {
            fprintf(stderr, "KVM_RUN ended with reason %u after %lu exits\n", run->exit_reason, exits);
            return 1;
        }
    }
    printf("%.6f\n", now() - start);
    return 0;
}
