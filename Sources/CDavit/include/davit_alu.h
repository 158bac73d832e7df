// Integer instructions carried out by the host's own, so that results and flags - those that the manuals call undefined
// included - are the host CPU's. Values go in and come back zero-extended from `size` bytes (1, 2, 4 or 8); with a constant
// size the switches fold away. `flags` are RFLAGS before the instruction, of which the arithmetic bits CF PF AF ZF SF OF are
// used; results hold those six bits alone. No function here raises a host exception, if division is asked for first
// (`davit_can_divide`) and the host has the instruction: the guest's CPUID and the decoder see to that.
#ifndef DAVIT_ALU_H
#define DAVIT_ALU_H

#include <stdint.h>

// With a constant size these are a few instructions; left to itself the compiler counts all sizes and calls them.
#define DAVIT_INLINE static inline __attribute__((always_inline))

typedef struct davit_result {
    uint64_t value;
    uint64_t flags;
} davit_result;

// Two results: the low and high half of a product, or quotient and remainder.
typedef struct davit_wide_result {
    uint64_t low;
    uint64_t high;
    uint64_t flags;
} davit_wide_result;

// Flags travel in AX: AH as LAHF and SAHF have them, in AL the overflow flag as 0 or 1, which 127 more turns into overflow again.
static inline uint16_t davit_flags_to_ax(uint64_t flags) {
    return (uint16_t)((flags & 0xD5) << 8 | (flags >> 11 & 1));
}
DAVIT_INLINE uint64_t davit_flags_from_ax(uint16_t ax) {
    return (uint64_t)(ax >> 8 & 0xD5) | (uint64_t)(ax & 1) << 11;
}
#define DAVIT_LOAD_FLAGS "addb $127, %%al\n\tsahf\n\t"
#define DAVIT_SAVE_FLAGS "\n\tlahf\n\tseto %%al"

// Destination and source, where all six flags are written whatever they were.
#define DAVIT_PLAIN_SIZED(mnemonic, type, suffix)                                                                  \
    {                                                                                                              \
        type x = (type)a, y = (type)b;                                                                             \
        uint16_t ax;                                                                                               \
        __asm__(mnemonic suffix " %[y], %[x]" DAVIT_SAVE_FLAGS : [x] "+r"(x), "=&a"(ax) : [y] "r"(y) : "cc");      \
        return (davit_result){x, davit_flags_from_ax(ax)};                                                         \
    }
#define DAVIT_PLAIN(name, mnemonic)                                                                                \
    DAVIT_INLINE davit_result davit_##name(uint64_t a, uint64_t b, uint64_t flags, uint32_t size) {                \
        (void)flags;                                                                                               \
        switch (size) {                                                                                            \
        case 8: DAVIT_PLAIN_SIZED(mnemonic, uint64_t, "q")                                                         \
        case 4: DAVIT_PLAIN_SIZED(mnemonic, uint32_t, "l")                                                         \
        case 2: DAVIT_PLAIN_SIZED(mnemonic, uint16_t, "w")                                                         \
        default: DAVIT_PLAIN_SIZED(mnemonic, uint8_t, "b")                                                         \
        }                                                                                                          \
    }
DAVIT_PLAIN(add, "add")
DAVIT_PLAIN(sub, "sub")
DAVIT_PLAIN(and, "and")
DAVIT_PLAIN(or, "or")
DAVIT_PLAIN(xor, "xor")

// Destination and source, with the flags loaded before: the instruction reads some, or leaves some as they were.
#define DAVIT_BINARY_SIZED(mnemonic, type, suffix)                                                                 \
    {                                                                                                              \
        type x = (type)a, y = (type)b;                                                                             \
        uint16_t ax = davit_flags_to_ax(flags);                                                                    \
        __asm__(DAVIT_LOAD_FLAGS mnemonic suffix " %[y], %[x]" DAVIT_SAVE_FLAGS                                    \
                : [x] "+&r"(x), "+&a"(ax) : [y] "r"(y) : "cc");                                                    \
        return (davit_result){x, davit_flags_from_ax(ax)};                                                         \
    }
#define DAVIT_BINARY(name, mnemonic)                                                                               \
    DAVIT_INLINE davit_result davit_##name(uint64_t a, uint64_t b, uint64_t flags, uint32_t size) {                \
        switch (size) {                                                                                            \
        case 8: DAVIT_BINARY_SIZED(mnemonic, uint64_t, "q")                                                        \
        case 4: DAVIT_BINARY_SIZED(mnemonic, uint32_t, "l")                                                        \
        case 2: DAVIT_BINARY_SIZED(mnemonic, uint16_t, "w")                                                        \
        default: DAVIT_BINARY_SIZED(mnemonic, uint8_t, "b")                                                        \
        }                                                                                                          \
    }
DAVIT_BINARY(adc, "adc")
DAVIT_BINARY(sbb, "sbb")

// The same without a byte form.
#define DAVIT_BINARY_WORD(name, mnemonic)                                                                          \
    DAVIT_INLINE davit_result davit_##name(uint64_t a, uint64_t b, uint64_t flags, uint32_t size) {                \
        switch (size) {                                                                                            \
        case 8: DAVIT_BINARY_SIZED(mnemonic, uint64_t, "q")                                                        \
        case 4: DAVIT_BINARY_SIZED(mnemonic, uint32_t, "l")                                                        \
        default: DAVIT_BINARY_SIZED(mnemonic, uint16_t, "w")                                                       \
        }                                                                                                          \
    }
DAVIT_BINARY_WORD(imul2, "imul")
// The bit offset is taken inside the operand.
DAVIT_BINARY_WORD(bt, "bt")
DAVIT_BINARY_WORD(bts, "bts")
DAVIT_BINARY_WORD(btr, "btr")
DAVIT_BINARY_WORD(btc, "btc")
DAVIT_BINARY_WORD(popcnt, "popcnt")
DAVIT_BINARY_WORD(lzcnt, "lzcnt")
DAVIT_BINARY_WORD(tzcnt, "tzcnt")

// The same with 32 and 64 bits only.
#define DAVIT_BINARY_LONG(name, mnemonic)                                                                          \
    DAVIT_INLINE davit_result davit_##name(uint64_t a, uint64_t b, uint64_t flags, uint32_t size) {                \
        switch (size) {                                                                                            \
        case 8: DAVIT_BINARY_SIZED(mnemonic, uint64_t, "q")                                                        \
        default: DAVIT_BINARY_SIZED(mnemonic, uint32_t, "l")                                                       \
        }                                                                                                          \
    }
DAVIT_BINARY_LONG(adcx, "adcx")
DAVIT_BINARY_LONG(adox, "adox")
DAVIT_BINARY_LONG(blsr, "blsr")
DAVIT_BINARY_LONG(blsmsk, "blsmsk")
DAVIT_BINARY_LONG(blsi, "blsi")

// BSF and BSR keep the destination where the source is zero: `a` and the value returned are the whole 64-bit register.
#define DAVIT_SCAN_SIZED(mnemonic, modifier)                                                                       \
    __asm__(DAVIT_LOAD_FLAGS mnemonic " %" modifier "[b], %" modifier "[a]" DAVIT_SAVE_FLAGS                       \
            : [a] "+&r"(a), "+&a"(ax) : [b] "r"(b) : "cc");                                                        \
    break;
#define DAVIT_SCAN(name, mnemonic)                                                                                 \
    DAVIT_INLINE davit_result davit_##name(uint64_t a, uint64_t b, uint64_t flags, uint32_t size) {                \
        uint16_t ax = davit_flags_to_ax(flags);                                                                    \
        switch (size) {                                                                                            \
        case 8: DAVIT_SCAN_SIZED(mnemonic, "q")                                                                    \
        case 4: DAVIT_SCAN_SIZED(mnemonic, "k")                                                                    \
        default: DAVIT_SCAN_SIZED(mnemonic, "w")                                                                   \
        }                                                                                                          \
        return (davit_result){a, davit_flags_from_ax(ax)};                                                         \
    }
DAVIT_SCAN(bsf, "bsf")
DAVIT_SCAN(bsr, "bsr")

// One operand.
#define DAVIT_UNARY_SIZED(mnemonic, type, suffix)                                                                  \
    {                                                                                                              \
        type x = (type)a;                                                                                          \
        uint16_t ax = davit_flags_to_ax(flags);                                                                    \
        __asm__(DAVIT_LOAD_FLAGS mnemonic suffix " %[x]" DAVIT_SAVE_FLAGS : [x] "+&r"(x), "+&a"(ax) : : "cc");     \
        return (davit_result){x, davit_flags_from_ax(ax)};                                                         \
    }
#define DAVIT_UNARY(name, mnemonic)                                                                                \
    DAVIT_INLINE davit_result davit_##name(uint64_t a, uint64_t flags, uint32_t size) {                            \
        switch (size) {                                                                                            \
        case 8: DAVIT_UNARY_SIZED(mnemonic, uint64_t, "q")                                                         \
        case 4: DAVIT_UNARY_SIZED(mnemonic, uint32_t, "l")                                                         \
        case 2: DAVIT_UNARY_SIZED(mnemonic, uint16_t, "w")                                                         \
        default: DAVIT_UNARY_SIZED(mnemonic, uint8_t, "b")                                                         \
        }                                                                                                          \
    }
DAVIT_UNARY(inc, "inc")
DAVIT_UNARY(dec, "dec")
DAVIT_UNARY(neg, "neg")

// Shifts and rotates. The host masks the count (`b`) as the guest's CPU would; a masked count of 0 leaves value and flags.
#define DAVIT_SHIFT_SIZED(mnemonic, type, suffix)                                                                  \
    {                                                                                                              \
        type x = (type)a;                                                                                          \
        uint16_t ax = davit_flags_to_ax(flags);                                                                    \
        __asm__(DAVIT_LOAD_FLAGS mnemonic suffix " %%cl, %[x]" DAVIT_SAVE_FLAGS                                    \
                : [x] "+&r"(x), "+&a"(ax) : "c"((uint8_t)b) : "cc");                                               \
        return (davit_result){x, davit_flags_from_ax(ax)};                                                         \
    }
#define DAVIT_SHIFT(name, mnemonic)                                                                                \
    DAVIT_INLINE davit_result davit_##name(uint64_t a, uint64_t b, uint64_t flags, uint32_t size) {                \
        switch (size) {                                                                                            \
        case 8: DAVIT_SHIFT_SIZED(mnemonic, uint64_t, "q")                                                         \
        case 4: DAVIT_SHIFT_SIZED(mnemonic, uint32_t, "l")                                                         \
        case 2: DAVIT_SHIFT_SIZED(mnemonic, uint16_t, "w")                                                         \
        default: DAVIT_SHIFT_SIZED(mnemonic, uint8_t, "b")                                                         \
        }                                                                                                          \
    }
DAVIT_SHIFT(rol, "rol")
DAVIT_SHIFT(ror, "ror")
DAVIT_SHIFT(rcl, "rcl")
DAVIT_SHIFT(rcr, "rcr")
DAVIT_SHIFT(shl, "shl")
DAVIT_SHIFT(shr, "shr")
DAVIT_SHIFT(sar, "sar")

// Double shifts: `b` gives the bits that come in.
#define DAVIT_DOUBLE_SHIFT_SIZED(mnemonic, type, suffix)                                                           \
    {                                                                                                              \
        type x = (type)a, y = (type)b;                                                                             \
        uint16_t ax = davit_flags_to_ax(flags);                                                                    \
        __asm__(DAVIT_LOAD_FLAGS mnemonic suffix " %%cl, %[y], %[x]" DAVIT_SAVE_FLAGS                              \
                : [x] "+&r"(x), "+&a"(ax) : [y] "r"(y), "c"(count) : "cc");                                        \
        return (davit_result){x, davit_flags_from_ax(ax)};                                                         \
    }
#define DAVIT_DOUBLE_SHIFT(name, mnemonic)                                                                         \
    DAVIT_INLINE davit_result davit_##name(                                                                        \
        uint64_t a, uint64_t b, uint8_t count, uint64_t flags, uint32_t size) {                                    \
        switch (size) {                                                                                            \
        case 8: DAVIT_DOUBLE_SHIFT_SIZED(mnemonic, uint64_t, "q")                                                  \
        case 4: DAVIT_DOUBLE_SHIFT_SIZED(mnemonic, uint32_t, "l")                                                  \
        default: DAVIT_DOUBLE_SHIFT_SIZED(mnemonic, uint16_t, "w")                                                 \
        }                                                                                                          \
    }
DAVIT_DOUBLE_SHIFT(shld, "shld")
DAVIT_DOUBLE_SHIFT(shrd, "shrd")

// MUL, IMUL, DIV and IDIV with the accumulator. `low` and `high` stand for AL and AH, or for rAX and rDX; MUL ignores `high`.
#define DAVIT_WIDE_SIZED(mnemonic, type, suffix, accumulator)                                                      \
    {                                                                                                              \
        type x = (type)low, h = (type)high, y = (type)b;                                                           \
        uint64_t rax = davit_flags_to_ax(flags);                                                                   \
        __asm__(DAVIT_LOAD_FLAGS "mov" suffix " %[x], %%" accumulator "\n\t" mnemonic suffix " %[y]\n\tmov" suffix \
                " %%" accumulator ", %[x]" DAVIT_SAVE_FLAGS                                                        \
                : [x] "+&r"(x), "+&a"(rax), "+&d"(h) : [y] "r"(y) : "cc");                                         \
        return (davit_wide_result){x, h, davit_flags_from_ax((uint16_t)rax)};                                      \
    }
#define DAVIT_WIDE(name, mnemonic)                                                                                 \
    DAVIT_INLINE davit_wide_result davit_##name(                                                                   \
        uint64_t low, uint64_t high, uint64_t b, uint64_t flags, uint32_t size) {                                  \
        switch (size) {                                                                                            \
        case 8: DAVIT_WIDE_SIZED(mnemonic, uint64_t, "q", "rax")                                                   \
        case 4: DAVIT_WIDE_SIZED(mnemonic, uint32_t, "l", "eax")                                                   \
        case 2: DAVIT_WIDE_SIZED(mnemonic, uint16_t, "w", "ax")                                                    \
        default: {                                                                                                 \
            uint16_t x = (uint16_t)((low & 0xFF) | (high & 0xFF) << 8);                                            \
            uint64_t rax = davit_flags_to_ax(flags);                                                               \
            __asm__(DAVIT_LOAD_FLAGS "movw %[x], %%ax\n\t" mnemonic "b %[y]\n\tmovw %%ax, %[x]" DAVIT_SAVE_FLAGS   \
                    : [x] "+&r"(x), "+&a"(rax) : [y] "r"((uint8_t)b) : "cc");                                      \
            return (davit_wide_result){x & 0xFF, x >> 8, davit_flags_from_ax((uint16_t)rax)};                      \
        }                                                                                                          \
        }                                                                                                          \
    }
DAVIT_WIDE(mul, "mul")
DAVIT_WIDE(imul, "imul")
DAVIT_WIDE(div, "div")
DAVIT_WIDE(idiv, "idiv")

// Whether DIV has a quotient: not for a zero divisor, nor if the quotient needs more than `size` bytes.
static inline _Bool davit_can_divide(uint64_t low, uint64_t high, uint64_t b, uint32_t size) {
    (void)low;
    (void)size;
    return high < b;
}

// The same for IDIV.
static inline _Bool davit_can_divide_signed(uint64_t low, uint64_t high, uint64_t b, uint32_t size) {
    unsigned bits = size * 8;
    __int128 dividend = (__int128)((unsigned __int128)high << bits | low);
    if (size < 8) dividend = (__int128)((unsigned __int128)dividend << (128 - 2 * bits)) >> (128 - 2 * bits);
    int64_t divisor = (int64_t)(b << (64 - bits)) >> (64 - bits);
    if (divisor == 0) return 0;
    // The magnitude of the dividend must be less than (magnitude of the divisor) * 2^(bits - 1), or, if the quotient is
    // negative, than that and one more divisor.
    unsigned __int128 n = dividend < 0 ? -(unsigned __int128)dividend : (unsigned __int128)dividend;
    uint64_t d = divisor < 0 ? -(uint64_t)divisor : (uint64_t)divisor;
    unsigned __int128 limit = (unsigned __int128)d << (bits - 1);
    if ((dividend < 0) != (divisor < 0)) return n - limit < d || n < limit;
    return n < limit;
}

// BMI1 and BMI2 with three operands and flags: the destination, then the operands in the order that the manual has them.
#define DAVIT_THREE_SIZED(mnemonic, type, suffix, first, second)                                                   \
    {                                                                                                              \
        type x, y = (type)first, z = (type)second;                                                                 \
        uint16_t ax = davit_flags_to_ax(flags);                                                                    \
        __asm__(DAVIT_LOAD_FLAGS mnemonic suffix " %[z], %[y], %[x]" DAVIT_SAVE_FLAGS                              \
                : [x] "=&r"(x), "+&a"(ax) : [y] "r"(y), [z] "r"(z) : "cc");                                        \
        return (davit_result){x, davit_flags_from_ax(ax)};                                                         \
    }
#define DAVIT_THREE(name, mnemonic)                                                                                \
    DAVIT_INLINE davit_result davit_##name(uint64_t a, uint64_t b, uint64_t flags, uint32_t size) {                \
        switch (size) {                                                                                            \
        case 8: DAVIT_THREE_SIZED(mnemonic, uint64_t, "q", a, b)                                                   \
        default: DAVIT_THREE_SIZED(mnemonic, uint32_t, "l", a, b)                                                  \
        }                                                                                                          \
    }
DAVIT_THREE(andn, "andn")
DAVIT_THREE(bextr, "bextr")
DAVIT_THREE(bzhi, "bzhi")

DAVIT_INLINE uint64_t davit_pdep(uint64_t source, uint64_t mask) {
    __asm__("pdepq %[mask], %[source], %[source]" : [source] "+r"(source) : [mask] "r"(mask));
    return source;
}
DAVIT_INLINE uint64_t davit_pext(uint64_t source, uint64_t mask) {
    __asm__("pextq %[mask], %[source], %[source]" : [source] "+r"(source) : [mask] "r"(mask));
    return source;
}

// BSWAP of a 16-bit register: undefined, so whatever the host makes of the whole register.
DAVIT_INLINE uint64_t davit_bswap16(uint64_t value) {
    __asm__(".byte 0x66, 0x0F, 0xC8" : "+a"(value));
    return value;
}

// CRC32 of `size` bytes of `b` onto `a` (polynomial 0x11EDC6F41).
DAVIT_INLINE uint64_t davit_crc32(uint64_t a, uint64_t b, uint32_t size) {
    uint64_t crc = (uint32_t)a;
    switch (size) {
    case 8: __asm__("crc32q %[b], %[crc]" : [crc] "+r"(crc) : [b] "r"(b)); break;
    case 4: __asm__("crc32l %k[b], %k[crc]" : [crc] "+r"(crc) : [b] "r"(b)); break;
    case 2: __asm__("crc32w %w[b], %k[crc]" : [crc] "+r"(crc) : [b] "r"(b)); break;
    default: __asm__("crc32b %b[b], %k[crc]" : [crc] "+r"(crc) : [b] "r"(b)); break;
    }
    return crc;
}

// RDRAND and RDSEED of 64 bits: CF in `flags` is clear, and the value 0, where the host had none ready.
DAVIT_INLINE davit_result davit_rdrand(void) {
    uint64_t value;
    uint8_t carry;
    __asm__ volatile("rdrandq %[v]\n\tsetc %[c]" : [v] "=r"(value), [c] "=r"(carry) : : "cc");
    return (davit_result){value, carry};
}
DAVIT_INLINE davit_result davit_rdseed(void) {
    uint64_t value;
    uint8_t carry;
    __asm__ volatile("rdseedq %[v]\n\tsetc %[c]" : [v] "=r"(value), [c] "=r"(carry) : : "cc");
    return (davit_result){value, carry};
}

// LOCK CMPXCHG on guest memory, which need not be aligned but must not cross a cache line: hosts may punish split locks.
// Returns what was there; the exchange took place if that equals `expected`.
DAVIT_INLINE uint64_t davit_compare_exchange(
    void *_Nonnull place, uint64_t expected, uint64_t desired, uint32_t size) {
    switch (size) {
    case 8:
        __asm__ volatile("lock cmpxchgq %[d], (%[p])"
                         : "+a"(expected) : [d] "r"(desired), [p] "r"(place) : "memory", "cc");
        return expected;
    case 4:
        __asm__ volatile("lock cmpxchgl %k[d], (%[p])"
                         : "+a"(expected) : [d] "r"(desired), [p] "r"(place) : "memory", "cc");
        return (uint32_t)expected;
    case 2:
        __asm__ volatile("lock cmpxchgw %w[d], (%[p])"
                         : "+a"(expected) : [d] "r"(desired), [p] "r"(place) : "memory", "cc");
        return (uint16_t)expected;
    default:
        __asm__ volatile("lock cmpxchgb %b[d], (%[p])"
                         : "+a"(expected) : [d] "r"(desired), [p] "r"(place) : "memory", "cc");
        return (uint8_t)expected;
    }
}

// LOCK CMPXCHG16B: `place` is 16-byte aligned. Returns what was there; ZF in `flags` tells whether the exchange took place.
DAVIT_INLINE davit_wide_result davit_compare_exchange_16(
    void *_Nonnull place, uint64_t expected_low, uint64_t expected_high, uint64_t low, uint64_t high) {
    uint8_t equal;
    __asm__ volatile("lock cmpxchg16b (%[p])\n\tsetz %[z]"
                     : "+a"(expected_low), "+d"(expected_high), [z] "=q"(equal)
                     : "b"(low), "c"(high), [p] "r"(place)
                     : "memory", "cc");
    return (davit_wide_result){expected_low, expected_high, (uint64_t)equal << 6};
}

static inline void davit_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

#endif
