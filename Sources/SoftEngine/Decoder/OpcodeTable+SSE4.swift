// SSSE3, SSE4.1, SSE4.2, AES, PCLMULQDQ, SHA and GFNI: maps 0F 38 and 0F 3A, with their VEX encodings.
extension OpcodeTableBuilder {
    mutating func addSSE4() {
        addSSSE3()
        addSSE41()
        addExtensions()
        addInsertExtract()
        addSSE41Immediate()
        addStringCompares()
        addCryptography()
    }

    private mutating func addSSSE3() {
        packed(.x0F38(0x00), "pshufb", mmx: .ssse3, sse: .ssse3)
        packed(.x0F38(0x01), "phaddw", mmx: .ssse3, sse: .ssse3)
        packed(.x0F38(0x02), "phaddd", mmx: .ssse3, sse: .ssse3)
        packed(.x0F38(0x03), "phaddsw", mmx: .ssse3, sse: .ssse3)
        packed(.x0F38(0x04), "pmaddubsw", mmx: .ssse3, sse: .ssse3)
        packed(.x0F38(0x05), "phsubw", mmx: .ssse3, sse: .ssse3)
        packed(.x0F38(0x06), "phsubd", mmx: .ssse3, sse: .ssse3)
        packed(.x0F38(0x07), "phsubsw", mmx: .ssse3, sse: .ssse3)
        packed(.x0F38(0x08), "psignb", mmx: .ssse3, sse: .ssse3)
        packed(.x0F38(0x09), "psignw", mmx: .ssse3, sse: .ssse3)
        packed(.x0F38(0x0A), "psignd", mmx: .ssse3, sse: .ssse3)
        packed(.x0F38(0x0B), "pmulhrsw", mmx: .ssse3, sse: .ssse3)
        packed(.x0F38(0x1C), "pabsb", mmx: .ssse3, sse: .ssse3, .unary)
        packed(.x0F38(0x1D), "pabsw", mmx: .ssse3, sse: .ssse3, .unary)
        packed(.x0F38(0x1E), "pabsd", mmx: .ssse3, sse: .ssse3, .unary)
        packed(.x0F3A(0x0F), "palignr", mmx: .ssse3, sse: .ssse3, [.binary, .immediate])
    }

    private mutating func addSSE41() {
        vector(.x0F38(0x10).p66, "pblendvb", .vv, .b16, [.binary, .readsXMM0, .aligned], .sse41)
        vector(.x0F38(0x14).p66, "blendvps", .vv, .b16, [.binary, .readsXMM0, .aligned], .sse41)
        vector(.x0F38(0x15).p66, "blendvpd", .vv, .b16, [.binary, .readsXMM0, .aligned], .sse41)
        sse(.x0F38(0x17).p66, "ptest", .vv, .vector, .compare, .sse41, vex: .float)
        wide(0x28, "pmuldq")
        wide(0x29, "pcmpeqq")
        sse(.x0F38(0x2A).p66.memory, "movntdqa", .vn, .vector, .unary, .sse41, vex: .integer, alignment: .always)
        wide(0x2B, "packusdw")
        wide(0x37, "pcmpgtq", .sse42)
        wide(0x38, "pminsb")
        wide(0x39, "pminsd")
        wide(0x3A, "pminuw")
        wide(0x3B, "pminud")
        wide(0x3C, "pmaxsb")
        wide(0x3D, "pmaxsd")
        wide(0x3E, "pmaxuw")
        wide(0x3F, "pmaxud")
        wide(0x40, "pmulld")
        sse(.x0F38(0x41).p66, "phminposuw", .vv, .vector, .unary, .sse41, vex: .short)
    }

    /// A binary operation that MMX does not have.
    private mutating func wide(_ opcode: UInt8, _ name: StaticString, _ feature: InstructionFeature = .sse41) {
        sse(.x0F38(opcode).p66, name, .vv, .vector, .binary, feature, vex: .integer)
    }

    private mutating func addExtensions() {
        extend(0x20, "pmovsxbw", .half)
        extend(0x21, "pmovsxbd", .quarter)
        extend(0x22, "pmovsxbq", .eighth)
        extend(0x23, "pmovsxwd", .half)
        extend(0x24, "pmovsxwq", .quarter)
        extend(0x25, "pmovsxdq", .half)
        extend(0x30, "pmovzxbw", .half)
        extend(0x31, "pmovzxbd", .quarter)
        extend(0x32, "pmovzxbq", .eighth)
        extend(0x33, "pmovzxwd", .half)
        extend(0x34, "pmovzxwq", .quarter)
        extend(0x35, "pmovzxdq", .half)
    }

    private mutating func extend(_ opcode: UInt8, _ name: StaticString, _ size: OperandSizeRule) {
        sse(.x0F38(opcode).p66, name, .vv, size, .unary, .sse41, vex: .integer)
    }

    private mutating func addInsertExtract() {
        let insert: VectorShape.Access = [.binary, .immediate]
        let extract: VectorShape.Access = [.store, .immediate]
        sse(.x0F3A(0x14).p66, "pextrb", .vg, .b1, extract, .sse41, vex: .short)
        sse(.x0F3A(0x15).p66, "pextrw", .vg, .b2, extract, .sse41, vex: .short)
        sse(.x0F3A(0x16).p66, "pextrd", .vg, .y, extract, .sse41, vex: .short, rules: .widensGeneral)
        sse(.x0F3A(0x17).p66, "extractps", .vg, .b4, extract, .sse41, vex: .short)
        sse(.x0F3A(0x20).p66, "pinsrb", .vg, .b1, insert, .sse41, vex: .short)
        sse(.x0F3A(0x21).p66, "insertps", .vv, .b4, insert, .sse41, vex: .short)
        sse(.x0F3A(0x22).p66, "pinsrd", .vg, .y, insert, .sse41, vex: .short, rules: .widensGeneral)
    }

    private mutating func addSSE41Immediate() {
        let binary: VectorShape.Access = [.binary, .immediate]
        sse(.x0F3A(0x08).p66, "roundps", .vv, .vector, [.unary, .immediate], .sse41, vex: .float)
        sse(.x0F3A(0x09).p66, "roundpd", .vv, .vector, [.unary, .immediate], .sse41, vex: .float)
        sse(.x0F3A(0x0A).p66, "roundss", .vv, .b4, binary, .sse41, vex: .float)
        sse(.x0F3A(0x0B).p66, "roundsd", .vv, .b8, binary, .sse41, vex: .float)
        sse(.x0F3A(0x0C).p66, "blendps", .vv, .vector, binary, .sse41, vex: .float)
        sse(.x0F3A(0x0D).p66, "blendpd", .vv, .vector, binary, .sse41, vex: .float)
        sse(.x0F3A(0x0E).p66, "pblendw", .vv, .vector, binary, .sse41, vex: .integer)
        sse(.x0F3A(0x40).p66, "dpps", .vv, .vector, binary, .sse41, vex: .float)
        sse(.x0F3A(0x41).p66, "dppd", .vv, .vector, binary, .sse41, vex: .short)
        sse(.x0F3A(0x42).p66, "mpsadbw", .vv, .vector, binary, .sse41, vex: .integer)
    }

    private mutating func addStringCompares() {
        let implicit: VectorShape.Access = [.readsReg, .readsRM, .immediate, .writesFlags]
        let explicit = implicit.union(.readsRAXAndRDX)
        stringCompare(0x60, "pcmpestrm", explicit.union(.writesXMM0))
        stringCompare(0x61, "pcmpestri", explicit.union(.writesRCX))
        stringCompare(0x62, "pcmpistrm", implicit.union(.writesXMM0))
        stringCompare(0x63, "pcmpistri", implicit.union(.writesRCX))
    }

    private mutating func stringCompare(_ opcode: UInt8, _ name: StaticString, _ access: VectorShape.Access) {
        sse(
            .x0F3A(opcode).p66, name, .vv, .b16, access, .sse42, vex: .short, alignment: .never, rules: .widensGeneral)
    }

    private mutating func addCryptography() {
        let immediate: VectorShape.Access = [.binary, .immediate]
        sse(.x0F38(0xDB).p66, "aesimc", .vv, .b16, .unary, .aes, vex: .short)
        aes(0xDC, "aesenc")
        aes(0xDD, "aesenclast")
        aes(0xDE, "aesdec")
        aes(0xDF, "aesdeclast")
        sse(.x0F3A(0xDF).p66, "aeskeygenassist", .vv, .b16, [.unary, .immediate], .aes, vex: .short)
        sse(.x0F3A(0x44).p66, "pclmulqdq", .vv, .vector, immediate, .pclmulqdq, vex: .short)
        vector(
            .x0F3A(0x44).p66.vex.l1, "pclmulqdq", .vv, .vector, [.vexBinary, .immediate], .vpclmulqdq)

        vector(.x0F38(0xC8).np, "sha1nexte", .vv, .b16, [.binary, .aligned], .sha)
        vector(.x0F38(0xC9).np, "sha1msg1", .vv, .b16, [.binary, .aligned], .sha)
        vector(.x0F38(0xCA).np, "sha1msg2", .vv, .b16, [.binary, .aligned], .sha)
        vector(.x0F38(0xCB).np, "sha256rnds2", .vv, .b16, [.binary, .readsXMM0, .aligned], .sha)
        vector(.x0F38(0xCC).np, "sha256msg1", .vv, .b16, [.binary, .aligned], .sha)
        vector(.x0F38(0xCD).np, "sha256msg2", .vv, .b16, [.binary, .aligned], .sha)
        vector(.x0F3A(0xCC).np, "sha1rnds4", .vv, .b16, [.binary, .immediate, .aligned], .sha)

        vector(.x0F38(0xCF).p66, "gf2p8mulb", .vv, .b16, [.binary, .aligned], .gfni)
        vector(.x0F38(0xCF).p66.vex.w0, "gf2p8mulb", .vv, .vector, .vexBinary, .gfni)
        vector(.x0F3A(0xCE).p66, "gf2p8affineqb", .vv, .b16, [immediate, .aligned], .gfni)
        vector(.x0F3A(0xCE).p66.vex.w1, "gf2p8affineqb", .vv, .vector, [.vexBinary, .immediate], .gfni)
        vector(.x0F3A(0xCF).p66, "gf2p8affineinvqb", .vv, .b16, [immediate, .aligned], .gfni)
        vector(.x0F3A(0xCF).p66.vex.w1, "gf2p8affineinvqb", .vv, .vector, [.vexBinary, .immediate], .gfni)
    }

    private mutating func aes(_ opcode: UInt8, _ name: StaticString) {
        sse(.x0F38(opcode).p66, name, .vv, .vector, .binary, .aes, vex: .short)
        vector(.x0F38(opcode).p66.vex.l1, name, .vv, .vector, .vexBinary, .vaes)
    }
}
