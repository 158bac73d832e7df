// Host signals raised by emitted code: a misaligned vector operand, a division, an unmasked floating-point exception.
#ifndef DAVIT_SIGNAL_H
#define DAVIT_SIGNAL_H

#include <stdint.h>

// From now on a SIGSEGV, SIGBUS, SIGFPE or SIGILL at an address in [start, end) puts that address into `exit_pc` of the davit_cpu
// at RSP and goes on at `resume`. Other faults go where they went before. Calling it again for a range is
// harmless. 0, or -1 if too many ranges are registered.
int davit_catch_faults(uintptr_t start, uintptr_t end, uintptr_t resume);
// The same for thunks, small functions that are called on an ordinary stack: R10 becomes the exception's vector, and the thunk
// goes on at the address in R9.
int davit_catch_thunk_faults(uintptr_t start, uintptr_t end);
// Gives the range up.
void davit_release_faults(uintptr_t start);

#endif
