#include "davit_fpu.h"

#include <string.h>

void davit_fpu_normalize(uint8_t *image) {
    uint32_t mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    __asm__ volatile(
        "fxrstor64 (%0)\n\tfxsave64 (%0)\n\tfninit\n\tldmxcsr %1"
        :
        : "r"(image), "m"(mxcsr)
        : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
          "xmm13", "xmm14", "xmm15");
}

uint32_t davit_mxcsr_mask(void) {
    uint8_t image[512] __attribute__((aligned(16)));
    uint32_t mask;
    memset(image, 0, sizeof image);
    __asm__ volatile("fxsave64 (%0)" : : "r"(image) : "memory");
    memcpy(&mask, image + 28, sizeof mask);
    // SDM vol. 1, 11.6.6: zero stands for the mask of the first CPUs.
    return mask ? mask : 0xFFBF;
}

int davit_fxsave_keeps_pointers(void) {
    uint8_t image[512] __attribute__((aligned(16)));
    uint64_t ip;
    memset(image, 0, sizeof image);
    __asm__ volatile("fninit\n\tfld1\n\tfxsave64 (%0)\n\tfninit" : : "r"(image) : "memory");
    memcpy(&ip, image + 8, sizeof ip);
    return ip != 0;
}

int davit_x87_pointer_bits(void) {
    for (int bits = 48; bits < 64; bits++) {
        uint8_t image[512] __attribute__((aligned(16)));
        uint64_t ip = 1ull << (bits - 1);
        // Stack fault and invalid operation, not masked: the pointers of a pending exception are always stored.
        uint16_t control = 0x37E, status = 0x80C1;
        uint32_t mxcsr = 0x1F80;
        memset(image, 0, sizeof image);
        memcpy(image, &control, sizeof control);
        memcpy(image + 2, &status, sizeof status);
        memcpy(image + 8, &ip, sizeof ip);
        memcpy(image + 24, &mxcsr, sizeof mxcsr);
        davit_fpu_normalize(image);
        memcpy(&ip, image + 8, sizeof ip);
        if (ip >> 63) return bits;
    }
    return 64;
}
