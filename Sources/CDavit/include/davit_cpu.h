// The software engine's state of one virtual CPU. It is declared in C because translated code addresses its fields
// by offset. Only the vCPU's own thread touches it, `exit_request` aside (see there).
#ifndef DAVIT_CPU_H
#define DAVIT_CPU_H

#include <stdbool.h>
#include <stdint.h>

// Index of a segment register in `davit_cpu.segment`: the order of the sreg field (Intel SDM vol. 2, table B-8),
// then the two system segments.
enum davit_segment_index {
    DAVIT_ES, DAVIT_CS, DAVIT_SS, DAVIT_DS, DAVIT_FS, DAVIT_GS, DAVIT_LDTR, DAVIT_TR, DAVIT_SEGMENTS
};

// A segment register with its hidden part. `attributes` holds bits 40-55 of the descriptor with the limit's bits taken
// out: type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15. `limit` is in bytes, G already applied.
// A null selector has attributes 0 (P clear).
typedef struct davit_segment {
    uint64_t base;
    uint32_t limit;
    uint16_t selector;
    uint16_t attributes;
} davit_segment;

typedef struct davit_table_register {
    uint64_t base;
    uint16_t limit;
} davit_table_register;

// First-level software TLB: direct mapped, one entry for 4 KiB of linear address space. Tags are negated page addresses: an access of
// `size` bytes at `va` hits if `tag[i] + va + size - 1 < 4096` with i = (va >> 12) % DAVIT_TLB_ENTRIES. One unsigned compare, or one PEXT that
// leaves the flags alone, tests tag and page crossing. The host address is then `va + addend[i]`. An invalid entry has the tag of
// page i ^ 2, which neither an address of page i nor one that crosses from there to page i + 1 can hit. A page without
// a write tag may still be readable (read-only, clean, or holding translated code); MMIO has neither tag.
#define DAVIT_TLB_ENTRIES 1024
typedef struct davit_tlb {
    uint64_t read_tag[DAVIT_TLB_ENTRIES];
    uint64_t write_tag[DAVIT_TLB_ENTRIES];
    uint64_t addend[DAVIT_TLB_ENTRIES];
} davit_tlb;

// One first-level TLB for each set of rights with which data is accessed.
enum davit_tlb_mode {
    DAVIT_TLB_USER,        // CPL 3
    DAVIT_TLB_KERNEL,      // CPL 0-2, SMAP in force
    DAVIT_TLB_KERNEL_AC,   // CPL 0-2, SMAP off or overridden by EFLAGS.AC
    DAVIT_TLB_MODES
};

// Extended state in the standard (non-compacted) XSAVE layout: legacy area 0-511, header 512-575, AVX at 576.
// Behind them AVX-512's, which a processor that stands in for KVM's keeps for its guest.
#define DAVIT_XSAVE_SIZE 2688

#define DAVIT_JUMP_ENTRIES 2048

#define DAVIT_WINDOWS 16

// In the size of a TLB miss: it is that of several accesses' common check.
#define DAVIT_WINDOW_MISS 0x10000u

// An entry of the jump cache's second level. No key is 0.
#define DAVIT_JUMPS 32768
typedef struct davit_jump {
    uint64_t key, target;
} davit_jump;

#define DAVIT_CPU_PADDING 24

typedef struct davit_cpu {
    uint64_t gpr[16];      // RAX RCX RDX RBX RSP RBP RSI RDI R8-R15
    uint64_t rip;          // of the instruction being carried out; it moves on only when that is done
    uint64_t next_rip;     // of the one after it; branches write here
    uint64_t rflags;       // all of RFLAGS, bit 1 set

    // Volatile for another thread's sake: anybody may set it (atomic OR) to make the vCPU look up at the next
    // instruction boundary; the vCPU clears what it has served. Bits: enum davit_exit.
    volatile uint32_t exit_request;
    uint32_t tlb_mode;     // enum davit_tlb_mode in force for data accesses

    davit_tlb *_Nonnull tlb_current;  // &tlb[tlb_mode]
    uint32_t cpl;
    uint32_t code_size;    // default operand size of the code segment in bytes: 2, 4, or 8 for 64-bit mode
    // Interrupts are held off for one instruction after STI, MOV SS and POP SS (SDM vol. 3, 6.8.3).
    uint32_t shadow;       // 0 none, 1 STI, 2 MOV/POP SS (which holds off debug traps too)

    davit_segment segment[DAVIT_SEGMENTS];
    davit_table_register gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, efer, xcr0;
    uint64_t dr[8];

    // Model-specific registers that the CPU itself obeys; those that are only stored are kept by the engine.
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t tsc_aux, pat, apic_base, misc_enable;
    uint64_t tsc_offset;   // guest TSC = host TSC + this

    // x87 pointers as the guest sees them (the host's own would name emitted code): those in `xsave` mean nothing.
    uint64_t fpu_ip, fpu_dp;
    uint16_t fpu_opcode, fpu_cs, fpu_ds;
    uint16_t unused;
    uint32_t halted;       // in HLT, waiting for an interrupt

    uint64_t instructions; // retired, for --stats and benchmarks

    // What translated code has at hand (SoftEngine/Translator). The masks are operands of PEXT and PDEP, which compute
    // without touching the flags.
    uint64_t tlb_index_mask, page_mask, jump_index_mask, arithmetic_mask, interrupts_off_mask;
    uint64_t high_half_mask, stepping_mask;
    uint64_t host_rsp;      // the host stack to return to
    uint64_t code;          // where to enter emitted code
    uint64_t exit_pc;       // where emitted code was left, or faulted
    uint64_t exit_value;    // by reason: the linear address of a TLB miss
    uint32_t exit_reason;   // enum davit_leave
    uint32_t exit_detail;   // by reason
    uint32_t x87_in_image;  // 1: x87 state is in `xsave`; 0: in the host's registers
    uint32_t host_mxcsr;
    uint32_t kernel_runs_low; // kernels have run at addresses below 2^47
    uint32_t interrupt_waits; // an interrupt was found that RFLAGS.IF held off
    uint64_t scratch[8];
    // What checks that several accesses share leave for those that follow: host address less linear address.
    uint64_t windows[DAVIT_WINDOWS];
    // SYSCALL and SYSRET in line: 0 if STAR, SFMASK and EFER allow it, the segments that they load (CS and SS of CPL 0, then of
    // CPL 3), and the flags that SYSCALL leaves.
    uint32_t slow_calls;
    uint32_t unused2;
    uint64_t call_flags;
    davit_segment call_segment[4];

    // The MMU's tables and what it knows of physical memory; see davit_tlb.h.
    struct davit_translation *_Nonnull translations;
    uint64_t *_Nonnull pcid_generations;
    uint64_t pcid;              // in force; 0 without CR4.PCIDE
    uint64_t global_generation;
    uint64_t ram_base;          // host address of guest physical address 0
    uint64_t low_ram_end, high_ram_start, high_ram_size;
    uint64_t apic_page;         // guest physical page of the local APIC's registers, all ones if it has none
    uint64_t *_Nonnull code_pages;  // two words for each page of RAM, of which the first is 0 where no code is cached
    uint64_t refills;           // of the first level by the second, from translated code
    uint32_t local_tlbs;        // bit n: the TLB number n (as in `tlb_groups`) holds pages that are not global
    uint32_t unused3;

    // The second level of the jump cache, which outlives switches of address spaces: DAVIT_JUMPS entries, keyed by RIP ^ tag. Tags
    // are 16 bits in the key's top, by enum davit_tlb_mode: address space and the rest of the mode. `jump_numbers` are what keys of the
    // first level have for the mode.
    struct davit_jump *_Nonnull jumps;
    uint64_t jump_tags[DAVIT_TLB_MODES], jump_numbers[DAVIT_TLB_MODES];

    // Which 64ths of each first-level TLB (DAVIT_TLB_MODES of data, then two of fetches) and of the jump cache hold anything: a flush
    // empties those alone.
    uint64_t tlb_groups[DAVIT_TLB_MODES + 2];
    uint64_t jump_groups[2];

    // Swift does not import over-aligned structs: the owner aligns the whole to a page, the padding aligns this to 64 bytes.
    uint8_t padding[DAVIT_CPU_PADDING];
    uint8_t xsave[DAVIT_XSAVE_SIZE];
    davit_tlb tlb[DAVIT_TLB_MODES];
    davit_tlb fetch_tlb_user, fetch_tlb_kernel;   // read_tag and addend only

    // Where indirect jumps and jumps to other pages find translated code, by guest RIP: a hit has
    // jump_key[i] + RIP + mode number == 0, i = PEXT(RIP, jump_index_mask). The first half is for CPL 3, the second for
    // kernels. Each is emptied with the first-level TLB of its fetches.
    uint64_t jump_key[2 * DAVIT_JUMP_ENTRIES];
    uint64_t jump_target[2 * DAVIT_JUMP_ENTRIES];
} davit_cpu;
_Static_assert(__builtin_offsetof(davit_cpu, xsave) % 64 == 0, "XSAVE needs 64-byte alignment: adjust DAVIT_CPU_PADDING");

// Bits of `exit_request`.
enum davit_exit {
    DAVIT_EXIT_STOP = 1,        // somebody wants the vCPU out of run()
    DAVIT_EXIT_INTERRUPT = 2,   // an interrupt, NMI, INIT or SIPI may be deliverable: look
    DAVIT_EXIT_SINGLE_STEP = 4, // RFLAGS.TF, a debug register or a trace wants a look after each instruction
    DAVIT_EXIT_CALL = 8,        // run the calls that other threads left for this vCPU (TLB and code flushes)
};

// Why emitted code was left: `exit_reason`.
enum davit_leave {
    DAVIT_LEAVE_LOOKUP,     // go on at `rip`, which has no translation at hand
    DAVIT_LEAVE_LINK,       // go on at `rip`; the jump that was left can be linked: the link's number follows `exit_pc`
    DAVIT_LEAVE_INTERPRET,  // the instruction is for the interpreter: the numbers of its unit, boundary and operation follow `exit_pc`
    DAVIT_LEAVE_INDIRECT,   // the jump cache does not know `exit_value`; once it does, go on at `exit_pc`
    DAVIT_LEAVE_READ_MISS,  // no TLB entry to read `exit_detail` bytes at `exit_value`
    DAVIT_LEAVE_WRITE_MISS,
    DAVIT_LEAVE_LINK_PLAIN, // as DAVIT_LEAVE_LINK, to a unit that checks each access by itself
    DAVIT_LEAVE_FAULT,      // the host raised a signal at `exit_pc`
};

// Offsets that emitted code uses.
enum davit_offset {
    DAVIT_OFFSET_RIP = __builtin_offsetof(davit_cpu, rip),
    DAVIT_OFFSET_RFLAGS = __builtin_offsetof(davit_cpu, rflags),
    DAVIT_OFFSET_EXIT_REQUEST = __builtin_offsetof(davit_cpu, exit_request),
    DAVIT_OFFSET_SEGMENT = __builtin_offsetof(davit_cpu, segment),
    DAVIT_OFFSET_GPR = __builtin_offsetof(davit_cpu, gpr),
    DAVIT_OFFSET_CPL = __builtin_offsetof(davit_cpu, cpl),
    DAVIT_OFFSET_LSTAR = __builtin_offsetof(davit_cpu, lstar),
    DAVIT_OFFSET_SLOW_CALLS = __builtin_offsetof(davit_cpu, slow_calls),
    DAVIT_OFFSET_CALL_FLAGS = __builtin_offsetof(davit_cpu, call_flags),
    DAVIT_OFFSET_CALL_SEGMENT = __builtin_offsetof(davit_cpu, call_segment),
    DAVIT_OFFSET_HIGH_HALF_MASK = __builtin_offsetof(davit_cpu, high_half_mask),
    DAVIT_OFFSET_STEPPING_MASK = __builtin_offsetof(davit_cpu, stepping_mask),
    DAVIT_OFFSET_KERNEL_GS_BASE = __builtin_offsetof(davit_cpu, kernel_gs_base),
    DAVIT_OFFSET_INTERRUPT_WAITS = __builtin_offsetof(davit_cpu, interrupt_waits),
    DAVIT_OFFSET_TLB_MODE = __builtin_offsetof(davit_cpu, tlb_mode),
    DAVIT_OFFSET_TLB_CURRENT = __builtin_offsetof(davit_cpu, tlb_current),
    DAVIT_OFFSET_TSC_AUX = __builtin_offsetof(davit_cpu, tsc_aux),
    DAVIT_OFFSET_TSC_OFFSET = __builtin_offsetof(davit_cpu, tsc_offset),
    DAVIT_OFFSET_INSTRUCTIONS = __builtin_offsetof(davit_cpu, instructions),
    DAVIT_OFFSET_TLB_INDEX_MASK = __builtin_offsetof(davit_cpu, tlb_index_mask),
    DAVIT_OFFSET_PAGE_MASK = __builtin_offsetof(davit_cpu, page_mask),
    DAVIT_OFFSET_JUMP_INDEX_MASK = __builtin_offsetof(davit_cpu, jump_index_mask),
    DAVIT_OFFSET_ARITHMETIC_MASK = __builtin_offsetof(davit_cpu, arithmetic_mask),
    DAVIT_OFFSET_INTERRUPTS_OFF_MASK = __builtin_offsetof(davit_cpu, interrupts_off_mask),
    DAVIT_OFFSET_HOST_RSP = __builtin_offsetof(davit_cpu, host_rsp),
    DAVIT_OFFSET_CODE = __builtin_offsetof(davit_cpu, code),
    DAVIT_OFFSET_EXIT_PC = __builtin_offsetof(davit_cpu, exit_pc),
    DAVIT_OFFSET_EXIT_VALUE = __builtin_offsetof(davit_cpu, exit_value),
    DAVIT_OFFSET_EXIT_REASON = __builtin_offsetof(davit_cpu, exit_reason),
    DAVIT_OFFSET_EXIT_DETAIL = __builtin_offsetof(davit_cpu, exit_detail),
    DAVIT_OFFSET_X87_IN_IMAGE = __builtin_offsetof(davit_cpu, x87_in_image),
    DAVIT_OFFSET_HOST_MXCSR = __builtin_offsetof(davit_cpu, host_mxcsr),
    DAVIT_OFFSET_SCRATCH = __builtin_offsetof(davit_cpu, scratch),
    DAVIT_OFFSET_XSAVE = __builtin_offsetof(davit_cpu, xsave),
    DAVIT_OFFSET_TLB = __builtin_offsetof(davit_cpu, tlb),
    DAVIT_OFFSET_WINDOWS = __builtin_offsetof(davit_cpu, windows),
    DAVIT_OFFSET_JUMPS = __builtin_offsetof(davit_cpu, jumps),
    DAVIT_OFFSET_JUMP_TAGS = __builtin_offsetof(davit_cpu, jump_tags),
    DAVIT_OFFSET_JUMP_NUMBERS = __builtin_offsetof(davit_cpu, jump_numbers),
    DAVIT_OFFSET_JUMP_GROUPS = __builtin_offsetof(davit_cpu, jump_groups),
    DAVIT_OFFSET_JUMP_KEY = __builtin_offsetof(davit_cpu, jump_key),
    DAVIT_OFFSET_JUMP_TARGET = __builtin_offsetof(davit_cpu, jump_target),
};

// Atomic access to `exit_request`: Swift has no atomics on memory that C laid out.
static inline void davit_cpu_request(davit_cpu *_Nonnull cpu, uint32_t bits) {
    __atomic_fetch_or(&cpu->exit_request, bits, __ATOMIC_SEQ_CST);
}
static inline void davit_cpu_served(davit_cpu *_Nonnull cpu, uint32_t bits) {
    __atomic_fetch_and(&cpu->exit_request, ~bits, __ATOMIC_SEQ_CST);
}
static inline volatile uint32_t *_Nonnull davit_cpu_request_word(davit_cpu *_Nonnull cpu) { return &cpu->exit_request; }
static inline uint32_t davit_cpu_requests(const davit_cpu *_Nonnull cpu) {
    return __atomic_load_n(&cpu->exit_request, __ATOMIC_ACQUIRE);
}

// C arrays come to Swift as tuples; these give their first element.
static inline uint64_t *_Nonnull davit_cpu_gpr(davit_cpu *_Nonnull cpu) { return cpu->gpr; }
static inline uint64_t *_Nonnull davit_cpu_dr(davit_cpu *_Nonnull cpu) { return cpu->dr; }
static inline davit_segment *_Nonnull davit_cpu_call_segment(davit_cpu *_Nonnull cpu) { return cpu->call_segment; }
static inline davit_segment *_Nonnull davit_cpu_segment(davit_cpu *_Nonnull cpu) { return cpu->segment; }
static inline uint64_t *_Nonnull davit_cpu_jump_groups(davit_cpu *_Nonnull cpu) { return cpu->jump_groups; }
static inline uint64_t *_Nonnull davit_cpu_tlb_groups(davit_cpu *_Nonnull cpu) { return cpu->tlb_groups; }
static inline uint64_t *_Nonnull davit_cpu_jump_tags(davit_cpu *_Nonnull cpu) { return cpu->jump_tags; }
static inline uint64_t *_Nonnull davit_cpu_jump_numbers(davit_cpu *_Nonnull cpu) { return cpu->jump_numbers; }
static inline uint64_t *_Nonnull davit_cpu_jump_key(davit_cpu *_Nonnull cpu) { return cpu->jump_key; }
static inline uint64_t *_Nonnull davit_cpu_jump_target(davit_cpu *_Nonnull cpu) { return cpu->jump_target; }
static inline uint8_t *_Nonnull davit_cpu_xsave(davit_cpu *_Nonnull cpu) { return cpu->xsave; }
static inline davit_tlb *_Nonnull davit_cpu_tlb(davit_cpu *_Nonnull cpu, uint32_t mode) { return &cpu->tlb[mode]; }
// `is_kernel` 1: CPL 0-2.
static inline davit_tlb *_Nonnull davit_cpu_fetch_tlb(davit_cpu *_Nonnull cpu, uint32_t is_kernel) {
    return is_kernel ? &cpu->fetch_tlb_kernel : &cpu->fetch_tlb_user;
}
static inline uint64_t *_Nonnull davit_tlb_read_tag(davit_tlb *_Nonnull tlb) { return tlb->read_tag; }
static inline uint64_t *_Nonnull davit_tlb_write_tag(davit_tlb *_Nonnull tlb) { return tlb->write_tag; }
static inline uint64_t *_Nonnull davit_tlb_addend(davit_tlb *_Nonnull tlb) { return tlb->addend; }

// The host's CPUID.
typedef struct davit_cpuid_answer {
    uint32_t eax, ebx, ecx, edx;
} davit_cpuid_answer;
static inline davit_cpuid_answer davit_cpuid(uint32_t leaf, uint32_t subleaf) {
    davit_cpuid_answer answer;
    __asm__ volatile("cpuid"
                     : "=a"(answer.eax), "=b"(answer.ebx), "=c"(answer.ecx), "=d"(answer.edx)
                     : "a"(leaf), "c"(subleaf));
    return answer;
}

// Sleeps on `exit_request` while it has the value `seen`; `davit_cpu_wake` ends the sleep after a request was set.
void davit_cpu_wait(davit_cpu *_Nonnull cpu, uint32_t seen);
void davit_cpu_wake(davit_cpu *_Nonnull cpu);

// For loops that wait for another thread.
static inline void davit_cpu_relax(void) { __builtin_ia32_pause(); }

static inline bool davit_bytes_equal(const void *_Nonnull a, const void *_Nonnull b, uint64_t count) {
    return __builtin_memcmp(a, b, count) == 0;
}

static inline uint64_t davit_rdtsc(void) { return __builtin_ia32_rdtsc(); }

#endif
