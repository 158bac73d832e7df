import COracle

/// Operand values on which instructions go wrong: edges of every width, special floating-point numbers, pointers.
enum OperandValues {
    static let integers = StaticTable([
        0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 0x7F, 0x80, 0x81, 0xFF, 0x100, 0x7FFF, 0x8000, 0x8001, 0xFFFF,
        0x1_0000, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0001, 0xFFFF_FFFF, 0x1_0000_0000, 0x7FFF_FFFF_FFFF_FFFF,
        0x8000_0000_0000_0000, 0x8000_0000_0000_0001, 0xFFFF_FFFF_FFFF_FF80, 0xFFFF_FFFF_FFFF_8000,
        0xFFFF_FFFF_8000_0000, 0xFFFF_FFFF_7FFF_FFFF, 0xFFFF_FFFF_FFFF_FFFE, 0xFFFF_FFFF_FFFF_FFFF,
        0x5555_5555_5555_5555, 0xAAAA_AAAA_AAAA_AAAA, 0x0F0F_0F0F_0F0F_0F0F, 0x9999_9999_9999_9999,
        0x1234_5678_9ABC_DEF0,
    ])

    /// Bit patterns of binary32: zeroes, ones, infinities, NaNs of both kinds, denormals, the largest, halves, limits of integers.
    static let singles = StaticTable([
        0, 0x8000_0000, 0x3F80_0000, 0xBF80_0000, 0x7F80_0000, 0xFF80_0000, 0x7FC0_0000, 0xFFC0_1234, 0x7F80_0001,
        0xFFA0_0000, 1, 0x8000_0001, 0x007F_FFFF, 0x0080_0000, 0x8080_0000, 0x7F7F_FFFF, 0xFF7F_FFFF, 0x3F00_0000,
        0x3FC0_0000, 0x4B00_0000, 0x4F00_0000, 0xCF00_0000, 0x5F00_0000, 0xDF00_0000, 0x3380_0000, 0x3F7F_FFFF,
        0x4049_0FDB, 0x477F_E000, 0x3880_0000, 0x3300_0000,
    ])

    /// Bit patterns of binary64, the same kinds.
    static let doubles = StaticTable([
        0, 0x8000_0000_0000_0000, 0x3FF0_0000_0000_0000, 0xBFF0_0000_0000_0000, 0x7FF0_0000_0000_0000,
        0xFFF0_0000_0000_0000, 0x7FF8_0000_0000_0000, 0xFFF8_0000_0000_1234, 0x7FF0_0000_0000_0001,
        0xFFF4_0000_0000_0000, 1, 0x8000_0000_0000_0001, 0x000F_FFFF_FFFF_FFFF, 0x0010_0000_0000_0000,
        0x8010_0000_0000_0000, 0x7FEF_FFFF_FFFF_FFFF, 0xFFEF_FFFF_FFFF_FFFF, 0x3FE0_0000_0000_0000,
        0x3FF8_0000_0000_0000, 0x4330_0000_0000_0000, 0x41E0_0000_0000_0000, 0xC1E0_0000_0020_0000,
        0x43E0_0000_0000_0000, 0xC3E0_0000_0000_0000, 0x3CA0_0000_0000_0000, 0x47F0_0000_0000_0000,
        0x36A0_0000_0000_0000, 0x3810_0000_0000_0000, 0x4009_21FB_5444_2D18,
    ])

    /// Sign and exponent of 80-bit numbers, and their significands: unnormals and pseudo-denormals come of combining them.
    static let extendedExponents = StaticTable([
        0, 0x8000, 1, 0x3FFF, 0xBFFF, 0x7FFF, 0xFFFF, 0x7FFE, 0x3FFE, 0x403E, 0x403F, 0x401E, 0x43FF, 0x3C00, 0x3F80,
        0x407F, 0xC03E, 0x3FFD, 0x4000, 0x400E,
    ])
    static let extendedSignificands = StaticTable([
        0, 0x8000_0000_0000_0000, 0xC000_0000_0000_0000, 0x8000_0000_0000_0001, 0xFFFF_FFFF_FFFF_FFFF, 1,
        0x4000_0000_0000_0000, 0x7FFF_FFFF_FFFF_FFFF, 0xA000_0000_0000_0000, 0xC90F_DAA2_2168_C235,
        0xFFFF_FF00_0000_0000, 0x8000_0080_0000_0000, 0xFFFF_FFFF_FFFF_F800, 0xB504_F333_F9DE_6484,
    ])

    /// An address inside the data, mostly aligned.
    @inline(__always)
    static func pointer(_ random: inout RandomSource) -> UInt64 {
        let offset = random.below(ORACLE_DATA_SIZE)
        switch random.below(8) {
        case 0...3: return ORACLE_DATA_ADDRESS + offset & ~15
        case 4: return ORACLE_DATA_ADDRESS + offset & ~31
        default: return ORACLE_DATA_ADDRESS + offset
        }
    }

    /// Any 64 bits, for memory and for lanes of vectors.
    @inline(__always)
    static func lane(_ random: inout RandomSource) -> UInt64 {
        let kind = random.below(100)
        if kind < 35 { return random.next() }
        if kind < 50 { return random.pick(integers) }
        if kind < 70 { return random.pick(doubles) }
        if kind < 90 { return random.pick(singles) | random.pick(singles) << 32 }
        // A number of ordinary size: arithmetic on two of them rounds.
        if kind < 95 { return 0x3FE0_0000_0000_0000 &+ random.next() >> 10 }
        if kind < 97 { return pointer(&random) }
        return random.pick(extendedSignificands)
    }

    @inline(__always)
    static func register(_ random: inout RandomSource) -> UInt64 {
        let kind = random.below(100)
        if kind < 30 { return pointer(&random) }
        if kind < 50 { return random.below(256) }
        if kind < 75 { return random.pick(integers) }
        if kind < 85 { return UInt64(bitPattern: -Int64(random.below(128))) }
        return random.next()
    }
}
