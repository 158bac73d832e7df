// The host's processor as the oracle: a forked child that carries out one instruction after the other on states given to it
// and reports what became of them. Parent and child share one mapping that holds a batch of cases and their results.
#ifndef ORACLE_PROCESSOR_H
#define ORACLE_PROCESSOR_H

#include <stdint.h>

// Where the child has memory; everything around it is unmapped. Low addresses, so that 32-bit code reaches them too.
#define ORACLE_CODE_ADDRESS 0x10000000ull   // two pages, read and execute
#define ORACLE_CODE_SIZE 0x2000ull
#define ORACLE_DATA_ADDRESS 0x20000000ull   // two pages to read and write, then one to read only
#define ORACLE_DATA_SIZE 0x2000ull
#define ORACLE_CONSTANT_SIZE 0x1000ull
// Bases of FS and GS in every case; both lie inside the data.
#define ORACLE_FS_BASE (ORACLE_DATA_ADDRESS + 0x400)
#define ORACLE_GS_BASE (ORACLE_DATA_ADDRESS + 0x1400)

// The part of the standard XSAVE layout that is exchanged: legacy area, header, upper halves of YMM.
#define ORACLE_XSAVE_SIZE 832

// Memory is compared in lines of 64 bytes.
#define ORACLE_LINE 64
#define ORACLE_MAX_LINES 40

typedef struct oracle_line {
    uint32_t offset;   // from ORACLE_DATA_ADDRESS
    uint8_t bytes[ORACLE_LINE];
} oracle_line;

typedef struct oracle_registers {
    uint64_t gpr[16];  // in the order of encodings
    uint64_t rip;
    uint64_t rflags;
    uint64_t fs_base, gs_base;
    uint16_t cs, ss, ds, es, fs, gs;
    uint32_t reserved;
} oracle_registers;

// Segments in the child's LDT; selector (number << 3) | 7.
enum oracle_segment {
    ORACLE_CODE16, ORACLE_CODE32,      // at ORACLE_CODE_ADDRESS
    ORACLE_DATA16, ORACLE_DATA32,      // the read-write pages, as stacks with SP and ESP
    ORACLE_HIGH_DATA,                  // from the second page on, with the read-only one
    ORACLE_EXPAND_DOWN,                // the data without its first page
    ORACLE_READ_ONLY, ORACLE_ABSENT,
    ORACLE_CONFORMING,                 // absent too: Linux has no others
    ORACLE_EXECUTE_ONLY,
    ORACLE_SEGMENTS
};
// Their descriptors, as an LDT holds them.
extern const uint64_t oracle_descriptors[ORACLE_SEGMENTS];

// Bytes that a case puts into the data before the instruction; `offset` from ORACLE_DATA_ADDRESS.
#define ORACLE_OVERLAY 64
typedef struct oracle_overlay {
    uint32_t offset;
    uint32_t count;
    uint8_t bytes[ORACLE_OVERLAY];
} oracle_overlay;

enum oracle_flags {
    // Stop by INT3 behind the instruction instead of RFLAGS.TF: for repeated string instructions and gathers, which TF
    // would stop between their steps.
    ORACLE_STOP_BY_BREAKPOINT = 1,
};

typedef struct oracle_case {
    oracle_registers registers;
    uint64_t code_address;   // linear; RIP is its offset in CS
    uint32_t flags;          // enum oracle_flags
    uint32_t code_length;    // at most 15; the rest of `code` pads a fetch past the end
    uint8_t code[16];
    oracle_overlay overlays[2];
    uint8_t xsave[ORACLE_XSAVE_SIZE];
} oracle_case;

typedef struct oracle_result {
    oracle_registers registers;
    // The exception's vector: 1 for the trap after an instruction that went well.
    uint32_t vector;
    uint32_t error_code;
    uint64_t cr2;            // of page faults
    uint8_t xsave[ORACLE_XSAVE_SIZE];
    // Lines of the data that differ from the pattern; when there are more of them, only the first are kept.
    uint32_t line_count;
    uint32_t reserved;
    oracle_line lines[ORACLE_MAX_LINES];
} oracle_result;

#define ORACLE_BATCH 256

typedef struct oracle_batch {
    volatile uint32_t posted;     // batches handed to the child; futex
    volatile uint32_t finished;   // batches it has done; futex
    volatile uint32_t current;    // the case it is at, for when it dies
    uint32_t count;
    // What the data holds before each case: the read-write pages, then the read-only one.
    uint8_t pattern[ORACLE_DATA_SIZE + ORACLE_CONSTANT_SIZE];
    oracle_case cases[ORACLE_BATCH];
    oracle_result results[ORACLE_BATCH];
} oracle_batch;

// Maps the shared batch and starts the child. NULL with errno on failure. `child` becomes its process id.
oracle_batch *_Nullable oracle_start(int32_t *_Nonnull child);
// Has the child carry out `count` cases with the pattern now in `batch`; returns at once.
void oracle_post(oracle_batch *_Nonnull batch, uint32_t count);
// Waits until they are done: 0, or if the child has died its wait status, or -1 if it made no progress for ten seconds.
int oracle_wait(oracle_batch *_Nonnull batch, int32_t child);
// Ends the child and unmaps the batch.
void oracle_stop(oracle_batch *_Nonnull batch, int32_t child);

// Which bits of MXCSR the host's CPU has.
uint32_t oracle_mxcsr_mask(void);

static inline oracle_case *_Nonnull oracle_cases(oracle_batch *_Nonnull batch) { return batch->cases; }
static inline oracle_result *_Nonnull oracle_results(oracle_batch *_Nonnull batch) { return batch->results; }
static inline uint8_t *_Nonnull oracle_pattern(oracle_batch *_Nonnull batch) { return batch->pattern; }
static inline uint64_t *_Nonnull oracle_gpr(oracle_registers *_Nonnull registers) { return registers->gpr; }
static inline oracle_registers *_Nonnull oracle_case_registers(oracle_case *_Nonnull c) { return &c->registers; }
static inline oracle_registers *_Nonnull oracle_result_registers(oracle_result *_Nonnull r) { return &r->registers; }
static inline oracle_overlay *_Nonnull oracle_case_overlays(oracle_case *_Nonnull c) { return c->overlays; }
static inline uint8_t *_Nonnull oracle_overlay_bytes(oracle_overlay *_Nonnull overlay) { return overlay->bytes; }
static inline uint64_t oracle_descriptor(int number) { return oracle_descriptors[number]; }
static inline uint8_t *_Nonnull oracle_case_code(oracle_case *_Nonnull c) { return c->code; }
static inline uint8_t *_Nonnull oracle_case_xsave(oracle_case *_Nonnull c) { return c->xsave; }
static inline uint8_t *_Nonnull oracle_result_xsave(oracle_result *_Nonnull r) { return r->xsave; }
static inline oracle_line *_Nonnull oracle_result_lines(oracle_result *_Nonnull r) { return r->lines; }
static inline uint8_t *_Nonnull oracle_line_bytes(oracle_line *_Nonnull line) { return line->bytes; }

#endif
