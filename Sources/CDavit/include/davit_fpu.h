// What the host's CPU makes of x87 and SSE state, where CPUs differ.
#ifndef DAVIT_FPU_H
#define DAVIT_FPU_H

#include <stdint.h>

// Takes the first 512 bytes of an XSAVE image through the CPU's registers, as FXRSTOR and FXSAVE do: reserved bits come out as
// the CPU has them. `image` is aligned to 16 bytes; its MXCSR must be valid.
void davit_fpu_normalize(uint8_t *_Nonnull image);
// The bits of MXCSR that may be set.
uint32_t davit_mxcsr_mask(void);
// 1 if FXSAVE stores the x87 pointers even if no exception is pending, as Intel's CPUs do; 0 if it stores zeroes then.
int davit_fxsave_keeps_pointers(void);
// Bits of the x87 pointers that the CPU has: the others repeat the highest of them.
int davit_x87_pointer_bits(void);

#endif
