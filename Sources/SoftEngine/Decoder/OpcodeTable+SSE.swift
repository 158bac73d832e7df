// Floating point of SSE, SSE2, SSE3 and SSE4a in the 0F map, with its VEX encodings.
extension OpcodeTableBuilder {
    mutating func addSSE() {
        addScalarMoves()
        addHalfMoves()
        addPackedMoves()
        addFloatArithmetic()
        addFloatCompares()
        addConversions()
        addSSE3()
        addSSE4a()
    }

    private mutating func addScalarMoves() {
        // A load clears the rest of the register, a move between registers keeps it.
        let toRM: VectorShape.Access = [.readsReg, .readsRM, .writesRM]
        let toRMFromVVVV: VectorShape.Access = [.readsReg, .readsVVVV, .writesRM]
        sse(.x0F(0x10).pF3.memory, "movss", .vv, .b4, .unary, .sse, vex: .float)
        sse(.x0F(0x10).pF3.register, "movss", .vv, .b4, .binary, .sse, vex: .float)
        sse(.x0F(0x11).pF3.memory, "movss", .vv, .b4, .store, .sse, vex: .float)
        vector(.x0F(0x11).pF3.register, "movss", .vv, .b4, toRM, .sse)
        vector(.x0F(0x11).pF3.register.vex, "movss", .vv, .b4, toRMFromVVVV, .avx)
        sse(.x0F(0x10).pF2.memory, "movsd", .vv, .b8, .unary, .sse2, vex: .float)
        sse(.x0F(0x10).pF2.register, "movsd", .vv, .b8, .binary, .sse2, vex: .float)
        sse(.x0F(0x11).pF2.memory, "movsd", .vv, .b8, .store, .sse2, vex: .float)
        vector(.x0F(0x11).pF2.register, "movsd", .vv, .b8, toRM, .sse2)
        vector(.x0F(0x11).pF2.register.vex, "movsd", .vv, .b8, toRMFromVVVV, .avx)
    }

    private mutating func addHalfMoves() {
        sse(.x0F(0x12).np.memory, "movlps", .vn, .b8, .binary, .sse, vex: .short)
        sse(.x0F(0x12).np.register, "movhlps", .vv, .b8, .binary, .sse, vex: .short)
        sse(.x0F(0x13).np.memory, "movlps", .vn, .b8, .store, .sse, vex: .short)
        sse(.x0F(0x16).np.memory, "movhps", .vn, .b8, .binary, .sse, vex: .short)
        sse(.x0F(0x16).np.register, "movlhps", .vv, .b8, .binary, .sse, vex: .short)
        sse(.x0F(0x17).np.memory, "movhps", .vn, .b8, .store, .sse, vex: .short)
        sse(.x0F(0x12).p66.memory, "movlpd", .vn, .b8, .binary, .sse2, vex: .short)
        sse(.x0F(0x13).p66.memory, "movlpd", .vn, .b8, .store, .sse2, vex: .short)
        sse(.x0F(0x16).p66.memory, "movhpd", .vn, .b8, .binary, .sse2, vex: .short)
        sse(.x0F(0x17).p66.memory, "movhpd", .vn, .b8, .store, .sse2, vex: .short)
    }

    private mutating func addPackedMoves() {
        sse(.x0F(0x10).np, "movups", .vv, .vector, .unary, .sse, vex: .float, alignment: .never)
        sse(.x0F(0x11).np, "movups", .vv, .vector, .store, .sse, vex: .float, alignment: .never)
        sse(.x0F(0x10).p66, "movupd", .vv, .vector, .unary, .sse2, vex: .float, alignment: .never)
        sse(.x0F(0x11).p66, "movupd", .vv, .vector, .store, .sse2, vex: .float, alignment: .never)
        sse(.x0F(0x28).np, "movaps", .vv, .vector, .unary, .sse, vex: .float, alignment: .always)
        sse(.x0F(0x29).np, "movaps", .vv, .vector, .store, .sse, vex: .float, alignment: .always)
        sse(.x0F(0x28).p66, "movapd", .vv, .vector, .unary, .sse2, vex: .float, alignment: .always)
        sse(.x0F(0x29).p66, "movapd", .vv, .vector, .store, .sse2, vex: .float, alignment: .always)
        sse(.x0F(0x2B).np.memory, "movntps", .vn, .vector, .store, .sse, vex: .float, alignment: .always)
        sse(.x0F(0x2B).p66.memory, "movntpd", .vn, .vector, .store, .sse2, vex: .float, alignment: .always)
        sse(.x0F(0x50).np.register, "movmskps", .gv, .none, .unary, .sse, vex: .float)
        sse(.x0F(0x50).p66.register, "movmskpd", .gv, .none, .unary, .sse2, vex: .float)
    }

    private mutating func addFloatArithmetic() {
        packedFloat(0x14, "unpcklps", "unpcklpd", .binary)
        packedFloat(0x15, "unpckhps", "unpckhpd", .binary)
        packedFloat(0x51, "sqrtps", "sqrtpd", .unary)
        scalarFloat(0x51, "sqrtss", "sqrtsd")
        sse(.x0F(0x52).np, "rsqrtps", .vv, .vector, .unary, .sse, vex: .float)
        sse(.x0F(0x52).pF3, "rsqrtss", .vv, .b4, .binary, .sse, vex: .float)
        sse(.x0F(0x53).np, "rcpps", .vv, .vector, .unary, .sse, vex: .float)
        sse(.x0F(0x53).pF3, "rcpss", .vv, .b4, .binary, .sse, vex: .float)
        packedFloat(0x54, "andps", "andpd", .binary)
        packedFloat(0x55, "andnps", "andnpd", .binary)
        packedFloat(0x56, "orps", "orpd", .binary)
        packedFloat(0x57, "xorps", "xorpd", .binary)
        packedFloat(0x58, "addps", "addpd", .binary)
        scalarFloat(0x58, "addss", "addsd")
        packedFloat(0x59, "mulps", "mulpd", .binary)
        scalarFloat(0x59, "mulss", "mulsd")
        packedFloat(0x5C, "subps", "subpd", .binary)
        scalarFloat(0x5C, "subss", "subsd")
        packedFloat(0x5D, "minps", "minpd", .binary)
        scalarFloat(0x5D, "minss", "minsd")
        packedFloat(0x5E, "divps", "divpd", .binary)
        scalarFloat(0x5E, "divss", "divsd")
        packedFloat(0x5F, "maxps", "maxpd", .binary)
        scalarFloat(0x5F, "maxss", "maxsd")
        packedFloat(0xC6, "shufps", "shufpd", [.binary, .immediate])
    }

    private mutating func packedFloat(
        _ opcode: UInt8, _ single: StaticString, _ double: StaticString, _ access: VectorShape.Access
    ) {
        sse(.x0F(opcode).np, single, .vv, .vector, access, .sse, vex: .float)
        sse(.x0F(opcode).p66, double, .vv, .vector, access, .sse2, vex: .float)
    }

    private mutating func scalarFloat(
        _ opcode: UInt8, _ single: StaticString, _ double: StaticString, _ access: VectorShape.Access = .binary
    ) {
        sse(.x0F(opcode).pF3, single, .vv, .b4, access, .sse, vex: .float)
        sse(.x0F(opcode).pF2, double, .vv, .b8, access, .sse2, vex: .float)
    }

    private mutating func addFloatCompares() {
        sse(.x0F(0x2E).np, "ucomiss", .vv, .b4, .compare, .sse, vex: .float)
        sse(.x0F(0x2E).p66, "ucomisd", .vv, .b8, .compare, .sse2, vex: .float)
        sse(.x0F(0x2F).np, "comiss", .vv, .b4, .compare, .sse, vex: .float)
        sse(.x0F(0x2F).p66, "comisd", .vv, .b8, .compare, .sse2, vex: .float)
        packedFloat(0xC2, "cmpps", "cmppd", [.binary, .immediate])
        scalarFloat(0xC2, "cmpss", "cmpsd", [.binary, .immediate])
    }

    private mutating func addConversions() {
        vector(.x0F(0x2A).np, "cvtpi2ps", .vp, .b8, .binary, .sse)
        vector(.x0F(0x2A).p66, "cvtpi2pd", .vp, .b8, .unary, .sse2)
        sse(.x0F(0x2A).pF3, "cvtsi2ss", .vg, .y, .binary, .sse, vex: .float, rules: .widensGeneral)
        sse(.x0F(0x2A).pF2, "cvtsi2sd", .vg, .y, .binary, .sse2, vex: .float, rules: .widensGeneral)
        vector(.x0F(0x2C).np, "cvttps2pi", .pv, .b8, .unary, .sse)
        vector(.x0F(0x2C).p66, "cvttpd2pi", .pv, .b16, [.unary, .aligned], .sse2)
        sse(.x0F(0x2C).pF3, "cvttss2si", .gv, .b4, .unary, .sse, vex: .float, rules: .widensGeneral)
        sse(.x0F(0x2C).pF2, "cvttsd2si", .gv, .b8, .unary, .sse2, vex: .float, rules: .widensGeneral)
        vector(.x0F(0x2D).np, "cvtps2pi", .pv, .b8, .unary, .sse)
        vector(.x0F(0x2D).p66, "cvtpd2pi", .pv, .b16, [.unary, .aligned], .sse2)
        sse(.x0F(0x2D).pF3, "cvtss2si", .gv, .b4, .unary, .sse, vex: .float, rules: .widensGeneral)
        sse(.x0F(0x2D).pF2, "cvtsd2si", .gv, .b8, .unary, .sse2, vex: .float, rules: .widensGeneral)
        sse(.x0F(0x5A).np, "cvtps2pd", .vv, .half, .unary, .sse2, vex: .float)
        sse(.x0F(0x5A).p66, "cvtpd2ps", .vv, .vector, .unary, .sse2, vex: .float)
        sse(.x0F(0x5A).pF3, "cvtss2sd", .vv, .b4, .binary, .sse2, vex: .float)
        sse(.x0F(0x5A).pF2, "cvtsd2ss", .vv, .b8, .binary, .sse2, vex: .float)
        sse(.x0F(0x5B).np, "cvtdq2ps", .vv, .vector, .unary, .sse2, vex: .float)
        sse(.x0F(0x5B).p66, "cvtps2dq", .vv, .vector, .unary, .sse2, vex: .float)
        sse(.x0F(0x5B).pF3, "cvttps2dq", .vv, .vector, .unary, .sse2, vex: .float)
        sse(.x0F(0xE6).p66, "cvttpd2dq", .vv, .vector, .unary, .sse2, vex: .float)
        sse(.x0F(0xE6).pF3, "cvtdq2pd", .vv, .half, .unary, .sse2, vex: .float)
        sse(.x0F(0xE6).pF2, "cvtpd2dq", .vv, .vector, .unary, .sse2, vex: .float)
    }

    private mutating func addSSE3() {
        sse(.x0F(0x12).pF3, "movsldup", .vv, .vector, .unary, .sse3, vex: .float)
        sse(.x0F(0x12).pF2, "movddup", .vv, .duplicate, .unary, .sse3, vex: .float)
        sse(.x0F(0x16).pF3, "movshdup", .vv, .vector, .unary, .sse3, vex: .float)
        sse(.x0F(0x7C).p66, "haddpd", .vv, .vector, .binary, .sse3, vex: .float)
        sse(.x0F(0x7C).pF2, "haddps", .vv, .vector, .binary, .sse3, vex: .float)
        sse(.x0F(0x7D).p66, "hsubpd", .vv, .vector, .binary, .sse3, vex: .float)
        sse(.x0F(0x7D).pF2, "hsubps", .vv, .vector, .binary, .sse3, vex: .float)
        sse(.x0F(0xD0).p66, "addsubpd", .vv, .vector, .binary, .sse3, vex: .float)
        sse(.x0F(0xD0).pF2, "addsubps", .vv, .vector, .binary, .sse3, vex: .float)
        sse(.x0F(0xF0).pF2.memory, "lddqu", .vn, .vector, .unary, .sse3, vex: .float, alignment: .never)
    }

    private mutating func addSSE4a() {
        group = .sse4a
        vector(.x0F(0x2B).pF3.memory, "movntss", .vn, .b4, .store, .sse4a)
        vector(.x0F(0x2B).pF2.memory, "movntsd", .vn, .b8, .store, .sse4a)
        add(
            .x0F(0x78).p66.register.reg(0), "extrq", .vector, .vector, .none, .two8, .modrm,
            shape: VectorShape(reg: .none, rm: .vector, access: [.readsRM, .writesRM, .immediate]), feature: .sse4a)
        add(
            .x0F(0x78).pF2.register, "insertq", .vector, .vector, .none, .two8, .modrm,
            shape: VectorShape(reg: .vector, rm: .vector, access: [.binary, .immediate]), feature: .sse4a)
        vector(.x0F(0x79).p66.register, "extrq", .vv, .none, .binary, .sse4a)
        vector(.x0F(0x79).pF2.register, "insertq", .vv, .none, .binary, .sse4a)
    }
}
