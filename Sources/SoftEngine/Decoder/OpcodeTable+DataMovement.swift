// MOV and its kin, stack, strings, flags.
extension OpcodeTableBuilder {
    mutating func addDataMovement() {
        group = .dataMovement
        add(.one(0x88), "mov", .mov, .eg, .b1, .none, .modrm)
        add(.one(0x89), "mov", .mov, .eg, .v, .none, .modrm)
        add(.one(0x8A), "mov", .mov, .ge, .b1, .none, .modrm)
        add(.one(0x8B), "mov", .mov, .ge, .v, .none, .modrm)
        add(.one(0xC6).reg(0), "mov", .mov, .ei, .b1, .unsigned8, .modrm)
        add(.one(0xC7).reg(0), "mov", .mov, .ei, .v, .z, .modrm)
        add(.one(0xA0), "mov", .mov, .accumulatorFromOffset, .b1, .offset)
        add(.one(0xA1), "mov", .mov, .accumulatorFromOffset, .v, .offset)
        add(.one(0xA2), "mov", .mov, .offsetFromAccumulator, .b1, .offset)
        add(.one(0xA3), "mov", .mov, .offsetFromAccumulator, .v, .offset)
        for register in UInt8(0)..<8 {
            add(.one(0xB0 + register), "mov", .mov, .zi, .b1, .unsigned8)
            add(.one(0xB8 + register), "mov", .mov, .zi, .v, .v)
        }
        add(.one(0x8D).memory, "lea", .lea, .ge, .v, .none, .modrm)
        add(.one(0x63).only64, "movsxd", .movsxd, .ge, .v, .none, .modrm)
        add(.x0F(0xB6), "movzx", .movzx, .ge, .v, .none, .modrm)
        add(.x0F(0xB7), "movzx", .movzx, .ge, .v, .none, .modrm)
        add(.x0F(0xBE), "movsx", .movsx, .ge, .v, .none, .modrm)
        add(.x0F(0xBF), "movsx", .movsx, .ge, .v, .none, .modrm)
        add(.x0F38(0xF0).noRep.memory, "movbe", .movbe, .ge, .v, .none, .modrm, feature: .movbe)
        add(.x0F38(0xF1).noRep.memory, "movbe", .movbe, .eg, .v, .none, .modrm, feature: .movbe)
        add(.x0F(0xC3).np.memory, "movnti", .movnti, .eg, .y, .none, .modrm, feature: .sse2)
        for condition in UInt8(0)..<16 {
            add(.x0F(0x40 + condition), "cmov", .cmov, .ge, .v, .none, .modrm, feature: .cmov)
            add(.x0F(0x90 + condition), "set", .setcc, .e, .b1, .none, .modrm)
        }
        add(.one(0x86), "xchg", .xchg, .eg, .b1, .none, [.modrm, .lockable])
        add(.one(0x87), "xchg", .xchg, .eg, .v, .none, [.modrm, .lockable])
        // 90 is XCHG only where REX.B makes it R8.
        add(.one(0x90).rexB, "xchg", .xchg, .az, .v)
        for register in UInt8(1)..<8 {
            add(.one(0x90 + register), "xchg", .xchg, .az, .v)
        }
        add(.one(0xD7), "xlat", .xlat, .none, .b1)
        addStack()
        addStrings()
        addFlags()
        addHints()
    }

    private mutating func addStack() {
        group = .stack
        for register in UInt8(0)..<8 {
            add(.one(0x50 + register), "push", .push, .z, .stack)
            add(.one(0x58 + register), "pop", .pop, .z, .stack)
        }
        add(.one(0x68), "push", .push, .i, .stack, .z)
        add(.one(0x6A), "push", .push, .i, .stack, .signed8)
        add(.one(0xFF).reg(6), "push", .push, .e, .stack, .none, .modrm)
        add(.one(0x8F).reg(0), "pop", .pop, .e, .stack, .none, .modrm)
        for opcode: UInt8 in [0x06, 0x0E, 0x16, 0x1E] {
            add(.one(opcode).not64, "push", .pushSegment, .none, .stack)
        }
        for opcode: UInt8 in [0x07, 0x17, 0x1F] {
            add(.one(opcode).not64, "pop", .popSegment, .none, .stack)
        }
        add(.x0F(0xA0), "push", .pushSegment, .none, .stack)
        add(.x0F(0xA1), "pop", .popSegment, .none, .stack)
        add(.x0F(0xA8), "push", .pushSegment, .none, .stack)
        add(.x0F(0xA9), "pop", .popSegment, .none, .stack)
        add(.one(0x60).not64, "pusha", .pusha, .none, .v)
        add(.one(0x61).not64, "popa", .popa, .none, .v)
        add(.one(0x9C), "pushf", .pushf, .none, .stack)
        add(.one(0x9D), "popf", .popf, .none, .stack)
        add(.one(0xC8), "enter", .enter, .none, .stack, .enter)
        add(.one(0xC9), "leave", .leave, .none, .stack)
    }

    private mutating func addStrings() {
        group = .string
        add(.one(0xA4), "movs", .movs, .none, .b1)
        add(.one(0xA5), "movs", .movs, .none, .v)
        add(.one(0xA6), "cmps", .cmps, .none, .b1)
        add(.one(0xA7), "cmps", .cmps, .none, .v)
        add(.one(0xAA), "stos", .stos, .none, .b1)
        add(.one(0xAB), "stos", .stos, .none, .v)
        add(.one(0xAC), "lods", .lods, .none, .b1)
        add(.one(0xAD), "lods", .lods, .none, .v)
        add(.one(0xAE), "scas", .scas, .none, .b1)
        add(.one(0xAF), "scas", .scas, .none, .v)
    }

    private mutating func addFlags() {
        group = .flags
        add(.one(0xF5), "cmc", .cmc)
        add(.one(0xF8), "clc", .clc)
        add(.one(0xF9), "stc", .stc)
        add(.one(0xFC), "cld", .cld)
        add(.one(0xFD), "std", .std)
        add(.one(0x9E).not64, "sahf", .sahf, .none, .b1)
        add(.one(0x9F).not64, "lahf", .lahf, .none, .b1)
        add(.one(0x9E), "sahf", .sahf, .none, .b1, feature: .lahf64)
        add(.one(0x9F), "lahf", .lahf, .none, .b1, feature: .lahf64)
        add(.one(0xD6).not64, "salc", .salc, .none, .b1)
    }

    /// Instructions that do nothing a guest could see.
    private mutating func addHints() {
        group = .hint
        add(.one(0x90).pF3, "pause", .pause)
        add(.one(0x90), "nop", .nop)
        // Prefetches, and the space that ENDBR, CLDEMOTE, RDSSP and others were cut from (NOPs where CET is off).
        for reg in UInt8(0)..<4 {
            add(.x0F(0x18).memory.reg(reg), "prefetch", .prefetch, .e, .none, .none, .modrm)
        }
        for opcode in UInt8(0x18)...0x1F {
            add(.x0F(opcode), "nop", .nop, .e, .v, .none, .modrm)
        }
        add(.x0F(0x0D).memory, "prefetchw", .prefetch, .e, .none, .none, .modrm, feature: .prefetchw)
    }
}
