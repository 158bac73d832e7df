// Integer arithmetic, logic, shifts and bit operations of the one-byte and 0F maps.
extension OpcodeTableBuilder {
    mutating func addArithmetic() {
        addALU(0, "add", .add, .arithmetic)
        addALU(1, "or", .or, .logic)
        addALU(2, "adc", .adc, .arithmetic)
        addALU(3, "sbb", .sbb, .arithmetic)
        addALU(4, "and", .and, .logic)
        addALU(5, "sub", .sub, .arithmetic)
        addALU(6, "xor", .xor, .logic)
        addALU(7, "cmp", .cmp, .arithmetic)
        addUnary()
        addMultiplyDivide()
        addDecimal()
        addShifts()
        addBits()
        addBMI()
    }

    /// The eight operations that share their encodings: opcodes 00-3F, and 80-83 with the number in ModRM.reg.
    private mutating func addALU(_ number: UInt8, _ name: StaticString, _ operation: Operation, _ group: OpcodeGroup) {
        self.group = group
        let base = number << 3
        let writes: OpcodeEntry.Rules = operation == .cmp ? .modrm : [.modrm, .lockable]
        add(.one(base), name, operation, .eg, .b1, .none, writes)
        add(.one(base + 1), name, operation, .eg, .v, .none, writes)
        add(.one(base + 2), name, operation, .ge, .b1, .none, .modrm)
        add(.one(base + 3), name, operation, .ge, .v, .none, .modrm)
        add(.one(base + 4), name, operation, .ai, .b1, .unsigned8)
        add(.one(base + 5), name, operation, .ai, .v, .z)
        add(.one(0x80).reg(number), name, operation, .ei, .b1, .unsigned8, writes)
        add(.one(0x81).reg(number), name, operation, .ei, .v, .z, writes)
        add(.one(0x82).reg(number).not64, name, operation, .ei, .b1, .unsigned8, writes)
        add(.one(0x83).reg(number), name, operation, .ei, .v, .signed8, writes)
    }

    private mutating func addUnary() {
        group = .arithmetic
        for register in UInt8(0)..<8 {
            add(.one(0x40 + register).not64, "inc", .inc, .z, .v)
            add(.one(0x48 + register).not64, "dec", .dec, .z, .v)
        }
        add(.one(0xFE).reg(0), "inc", .inc, .e, .b1, .none, [.modrm, .lockable])
        add(.one(0xFF).reg(0), "inc", .inc, .e, .v, .none, [.modrm, .lockable])
        add(.one(0xFE).reg(1), "dec", .dec, .e, .b1, .none, [.modrm, .lockable])
        add(.one(0xFF).reg(1), "dec", .dec, .e, .v, .none, [.modrm, .lockable])
        add(.one(0xF6).reg(3), "neg", .neg, .e, .b1, .none, [.modrm, .lockable])
        add(.one(0xF7).reg(3), "neg", .neg, .e, .v, .none, [.modrm, .lockable])
        add(.x0F(0xC0), "xadd", .xadd, .eg, .b1, .none, [.modrm, .lockable])
        add(.x0F(0xC1), "xadd", .xadd, .eg, .v, .none, [.modrm, .lockable])
        add(.x0F(0xB0), "cmpxchg", .cmpxchg, .eg, .b1, .none, [.modrm, .lockable])
        add(.x0F(0xB1), "cmpxchg", .cmpxchg, .eg, .v, .none, [.modrm, .lockable])
        add(
            .x0F(0xC7).reg(1).memory.w1.only64, "cmpxchg16b", .cmpxchg16b, .m, .b16, .none, [.modrm, .lockable],
            feature: .cmpxchg16b)
        add(
            .x0F(0xC7).reg(1).memory.w0, "cmpxchg8b", .cmpxchg8b, .m, .b8, .none, [.modrm, .lockable],
            feature: .cmpxchg8b)

        group = .logic
        add(.one(0xF6).reg(2), "not", .not, .e, .b1, .none, [.modrm, .lockable])
        add(.one(0xF7).reg(2), "not", .not, .e, .v, .none, [.modrm, .lockable])
        add(.one(0x84), "test", .test, .eg, .b1, .none, .modrm)
        add(.one(0x85), "test", .test, .eg, .v, .none, .modrm)
        add(.one(0xA8), "test", .test, .ai, .b1, .unsigned8)
        add(.one(0xA9), "test", .test, .ai, .v, .z)
        for alias in UInt8(0)..<2 {
            add(.one(0xF6).reg(alias), "test", .test, .ei, .b1, .unsigned8, .modrm)
            add(.one(0xF7).reg(alias), "test", .test, .ei, .v, .z, .modrm)
        }
    }

    private mutating func addMultiplyDivide() {
        group = .multiplyDivide
        add(.one(0xF6).reg(4), "mul", .mul, .e, .b1, .none, .modrm)
        add(.one(0xF7).reg(4), "mul", .mul, .e, .v, .none, .modrm)
        add(.one(0xF6).reg(5), "imul", .imul, .e, .b1, .none, .modrm)
        add(.one(0xF7).reg(5), "imul", .imul, .e, .v, .none, .modrm)
        add(.one(0xF6).reg(6), "div", .div, .e, .b1, .none, .modrm)
        add(.one(0xF7).reg(6), "div", .div, .e, .v, .none, .modrm)
        add(.one(0xF6).reg(7), "idiv", .idiv, .e, .b1, .none, .modrm)
        add(.one(0xF7).reg(7), "idiv", .idiv, .e, .v, .none, .modrm)
        add(.x0F(0xAF), "imul", .imul2, .ge, .v, .none, .modrm)
        add(.one(0x69), "imul", .imul2, .gei, .v, .z, .modrm)
        add(.one(0x6B), "imul", .imul2, .gei, .v, .signed8, .modrm)
        add(.one(0x98), "cbw", .cbw, .none, .v)
        add(.one(0x99), "cwd", .cwd, .none, .v)
    }

    private mutating func addDecimal() {
        group = .decimal
        add(.one(0x27).not64, "daa", .daa, .none, .b1)
        add(.one(0x2F).not64, "das", .das, .none, .b1)
        add(.one(0x37).not64, "aaa", .aaa, .none, .b1)
        add(.one(0x3F).not64, "aas", .aas, .none, .b1)
        add(.one(0xD4).not64, "aam", .aam, .i, .b1, .unsigned8)
        add(.one(0xD5).not64, "aad", .aad, .i, .b1, .unsigned8)
    }

    private mutating func addShifts() {
        group = .shift
        addShift(0, "rol", .rol)
        addShift(1, "ror", .ror)
        addShift(2, "rcl", .rcl)
        addShift(3, "rcr", .rcr)
        addShift(4, "shl", .shl)
        addShift(5, "shr", .shr)
        // An alias that Intel does not document.
        addShift(6, "shl", .shl)
        addShift(7, "sar", .sar)
        add(.x0F(0xA4), "shld", .shld, .egi, .v, .unsigned8, .modrm)
        add(.x0F(0xA5), "shld", .shld, .egCL, .v, .none, .modrm)
        add(.x0F(0xAC), "shrd", .shrd, .egi, .v, .unsigned8, .modrm)
        add(.x0F(0xAD), "shrd", .shrd, .egCL, .v, .none, .modrm)
    }

    private mutating func addShift(_ number: UInt8, _ name: StaticString, _ operation: Operation) {
        add(.one(0xC0).reg(number), name, operation, .ei, .b1, .unsigned8, .modrm)
        add(.one(0xC1).reg(number), name, operation, .ei, .v, .unsigned8, .modrm)
        add(.one(0xD0).reg(number), name, operation, .e1, .b1, .none, .modrm)
        add(.one(0xD1).reg(number), name, operation, .e1, .v, .none, .modrm)
        add(.one(0xD2).reg(number), name, operation, .eCL, .b1, .none, .modrm)
        add(.one(0xD3).reg(number), name, operation, .eCL, .v, .none, .modrm)
    }

    private mutating func addBits() {
        group = .bit
        addBitTest(4, "bt", .bt, .modrm)
        addBitTest(5, "bts", .bts, [.modrm, .lockable])
        addBitTest(6, "btr", .btr, [.modrm, .lockable])
        addBitTest(7, "btc", .btc, [.modrm, .lockable])
        add(.x0F(0xB8).pF3, "popcnt", .popcnt, .ge, .v, .none, .modrm, feature: .popcnt)
        add(.x0F(0xBC).pF3, "tzcnt", .tzcnt, .ge, .v, .none, .modrm, feature: .bmi1)
        add(.x0F(0xBC), "bsf", .bsf, .ge, .v, .none, .modrm)
        add(.x0F(0xBD).pF3, "lzcnt", .lzcnt, .ge, .v, .none, .modrm, feature: .lzcnt)
        add(.x0F(0xBD), "bsr", .bsr, .ge, .v, .none, .modrm)
        for register in UInt8(0)..<8 {
            add(.x0F(0xC8 + register), "bswap", .bswap, .z, .v)
        }
        add(.x0F38(0xF0).pF2, "crc32", .crc32, .ge, .b1, .none, .modrm, feature: .sse42)
        add(.x0F38(0xF1).pF2, "crc32", .crc32, .ge, .v, .none, .modrm, feature: .sse42)
    }

    /// Bit offset in a register (0F A3 + 8n) or an immediate (0F BA /4-7).
    private mutating func addBitTest(
        _ number: UInt8, _ name: StaticString, _ operation: Operation, _ rules: OpcodeEntry.Rules
    ) {
        add(.x0F(0x83 + number << 3), name, operation, .eg, .v, .none, rules)
        add(.x0F(0xBA).reg(number), name, operation, .ei, .v, .unsigned8, rules)
    }

    private mutating func addBMI() {
        group = .bmi
        add(.x0F38(0xF2).vex.np.l0, "andn", .andn, .gbe, .y, .none, .modrm, feature: .bmi1)
        add(.x0F38(0xF7).vex.np.l0, "bextr", .bextr, .geb, .y, .none, .modrm, feature: .bmi1)
        add(.x0F38(0xF3).vex.np.l0.reg(1), "blsr", .blsr, .be, .y, .none, .modrm, feature: .bmi1)
        add(.x0F38(0xF3).vex.np.l0.reg(2), "blsmsk", .blsmsk, .be, .y, .none, .modrm, feature: .bmi1)
        add(.x0F38(0xF3).vex.np.l0.reg(3), "blsi", .blsi, .be, .y, .none, .modrm, feature: .bmi1)
        add(.x0F38(0xF5).vex.np.l0, "bzhi", .bzhi, .geb, .y, .none, .modrm, feature: .bmi2)
        add(.x0F38(0xF5).vex.pF3.l0, "pext", .pext, .gbe, .y, .none, .modrm, feature: .bmi2)
        add(.x0F38(0xF5).vex.pF2.l0, "pdep", .pdep, .gbe, .y, .none, .modrm, feature: .bmi2)
        add(.x0F38(0xF6).vex.pF2.l0, "mulx", .mulx, .gbe, .y, .none, .modrm, feature: .bmi2)
        add(.x0F38(0xF7).vex.p66.l0, "shlx", .shlx, .geb, .y, .none, .modrm, feature: .bmi2)
        add(.x0F38(0xF7).vex.pF3.l0, "sarx", .sarx, .geb, .y, .none, .modrm, feature: .bmi2)
        add(.x0F38(0xF7).vex.pF2.l0, "shrx", .shrx, .geb, .y, .none, .modrm, feature: .bmi2)
        add(.x0F3A(0xF0).vex.pF2.l0.noVVVV, "rorx", .rorx, .gei, .y, .unsigned8, .modrm, feature: .bmi2)
        add(.x0F38(0xF6).p66, "adcx", .adcx, .ge, .y, .none, .modrm, feature: .adx)
        add(.x0F38(0xF6).pF3, "adox", .adox, .ge, .y, .none, .modrm, feature: .adx)
    }
}
