// Packed integers of MMX and SSE2 in the 0F map, with their VEX encodings.
extension OpcodeTableBuilder {
    mutating func addPackedInteger() {
        addUnpackAndPack()
        addIntegerMoves()
        addIntegerArithmetic()
        addIntegerShifts()
    }

    private mutating func addUnpackAndPack() {
        packed(.x0F(0x60), "punpcklbw", mmx: .mmx, sse: .sse2, mmxSize: .b4)
        packed(.x0F(0x61), "punpcklwd", mmx: .mmx, sse: .sse2, mmxSize: .b4)
        packed(.x0F(0x62), "punpckldq", mmx: .mmx, sse: .sse2, mmxSize: .b4)
        packed(.x0F(0x63), "packsswb", mmx: .mmx, sse: .sse2)
        packed(.x0F(0x64), "pcmpgtb", mmx: .mmx, sse: .sse2)
        packed(.x0F(0x65), "pcmpgtw", mmx: .mmx, sse: .sse2)
        packed(.x0F(0x66), "pcmpgtd", mmx: .mmx, sse: .sse2)
        packed(.x0F(0x67), "packuswb", mmx: .mmx, sse: .sse2)
        packed(.x0F(0x68), "punpckhbw", mmx: .mmx, sse: .sse2)
        packed(.x0F(0x69), "punpckhwd", mmx: .mmx, sse: .sse2)
        packed(.x0F(0x6A), "punpckhdq", mmx: .mmx, sse: .sse2)
        packed(.x0F(0x6B), "packssdw", mmx: .mmx, sse: .sse2)
        sse(.x0F(0x6C).p66, "punpcklqdq", .vv, .vector, .binary, .sse2, vex: .integer)
        sse(.x0F(0x6D).p66, "punpckhqdq", .vv, .vector, .binary, .sse2, vex: .integer)
        packed(.x0F(0x74), "pcmpeqb", mmx: .mmx, sse: .sse2)
        packed(.x0F(0x75), "pcmpeqw", mmx: .mmx, sse: .sse2)
        packed(.x0F(0x76), "pcmpeqd", mmx: .mmx, sse: .sse2)
        vector(.x0F(0x70).np, "pshufw", .pp, .b8, [.unary, .immediate], .mmxExtensions)
        sse(.x0F(0x70).p66, "pshufd", .vv, .vector, [.unary, .immediate], .sse2, vex: .integer)
        sse(.x0F(0x70).pF3, "pshufhw", .vv, .vector, [.unary, .immediate], .sse2, vex: .integer)
        sse(.x0F(0x70).pF2, "pshuflw", .vv, .vector, [.unary, .immediate], .sse2, vex: .integer)
        vector(.x0F(0xC4).np, "pinsrw", .pg, .b2, [.binary, .immediate], .mmxExtensions)
        sse(.x0F(0xC4).p66, "pinsrw", .vg, .b2, [.binary, .immediate], .sse2, vex: .short)
        vector(.x0F(0xC5).np.register, "pextrw", .gp, .none, [.unary, .immediate], .mmxExtensions)
        sse(.x0F(0xC5).p66.register, "pextrw", .gv, .none, [.unary, .immediate], .sse2, vex: .short)
    }

    private mutating func addIntegerMoves() {
        vector(.x0F(0x6E).np, "movd", .pg, .y, .unary, .mmx)
        sse(.x0F(0x6E).p66, "movd", .vg, .y, .unary, .sse2, vex: .short, rules: .widensGeneral)
        vector(.x0F(0x7E).np, "movd", .pg, .y, .store, .mmx)
        sse(.x0F(0x7E).p66, "movd", .vg, .y, .store, .sse2, vex: .short, rules: .widensGeneral)
        sse(.x0F(0x7E).pF3, "movq", .vv, .b8, .unary, .sse2, vex: .short)
        sse(.x0F(0xD6).p66, "movq", .vv, .b8, .store, .sse2, vex: .short)
        vector(.x0F(0x6F).np, "movq", .pp, .b8, .unary, .mmx)
        vector(.x0F(0x7F).np, "movq", .pp, .b8, .store, .mmx)
        sse(.x0F(0x6F).p66, "movdqa", .vv, .vector, .unary, .sse2, vex: .float, alignment: .always)
        sse(.x0F(0x7F).p66, "movdqa", .vv, .vector, .store, .sse2, vex: .float, alignment: .always)
        sse(.x0F(0x6F).pF3, "movdqu", .vv, .vector, .unary, .sse2, vex: .float, alignment: .never)
        sse(.x0F(0x7F).pF3, "movdqu", .vv, .vector, .store, .sse2, vex: .float, alignment: .never)
        vector(.x0F(0xD6).pF3.register, "movq2dq", .vp, .none, .unary, .sse2)
        vector(.x0F(0xD6).pF2.register, "movdq2q", .pv, .none, .unary, .sse2)
        vector(.x0F(0xD7).np.register, "pmovmskb", .gp, .none, .unary, .mmxExtensions)
        sse(.x0F(0xD7).p66.register, "pmovmskb", .gv, .none, .unary, .sse2, vex: .integer)
        vector(.x0F(0xE7).np.memory, "movntq", .pn, .b8, .store, .mmxExtensions)
        sse(.x0F(0xE7).p66.memory, "movntdq", .vn, .vector, .store, .sse2, vex: .float, alignment: .always)
        let masked: VectorShape.Access = [.readsReg, .readsRM, .storesThroughRDI]
        vector(.x0F(0xF7).np.register, "maskmovq", .pp, .b8, masked, .mmxExtensions, operation: .maskmov)
        sse(
            .x0F(0xF7).p66.register, "maskmovdqu", .vv, .b16, masked, .sse2, vex: .short, alignment: .never,
            operation: .maskmov)
    }

    private mutating func addIntegerArithmetic() {
        packed(.x0F(0xD4), "paddq", mmx: .sse2, sse: .sse2)
        packed(.x0F(0xD5), "pmullw", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xD8), "psubusb", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xD9), "psubusw", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xDA), "pminub", mmx: .mmxExtensions, sse: .sse2)
        packed(.x0F(0xDB), "pand", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xDC), "paddusb", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xDD), "paddusw", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xDE), "pmaxub", mmx: .mmxExtensions, sse: .sse2)
        packed(.x0F(0xDF), "pandn", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xE0), "pavgb", mmx: .mmxExtensions, sse: .sse2)
        packed(.x0F(0xE3), "pavgw", mmx: .mmxExtensions, sse: .sse2)
        packed(.x0F(0xE4), "pmulhuw", mmx: .mmxExtensions, sse: .sse2)
        packed(.x0F(0xE5), "pmulhw", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xE8), "psubsb", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xE9), "psubsw", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xEA), "pminsw", mmx: .mmxExtensions, sse: .sse2)
        packed(.x0F(0xEB), "por", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xEC), "paddsb", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xED), "paddsw", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xEE), "pmaxsw", mmx: .mmxExtensions, sse: .sse2)
        packed(.x0F(0xEF), "pxor", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xF4), "pmuludq", mmx: .sse2, sse: .sse2)
        packed(.x0F(0xF5), "pmaddwd", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xF6), "psadbw", mmx: .mmxExtensions, sse: .sse2)
        packed(.x0F(0xF8), "psubb", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xF9), "psubw", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xFA), "psubd", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xFB), "psubq", mmx: .sse2, sse: .sse2)
        packed(.x0F(0xFC), "paddb", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xFD), "paddw", mmx: .mmx, sse: .sse2)
        packed(.x0F(0xFE), "paddd", mmx: .mmx, sse: .sse2)
    }

    private mutating func addIntegerShifts() {
        // The count in memory is 16 bytes, under VEX.L too.
        packed(.x0F(0xD1), "psrlw", mmx: .mmx, sse: .sse2, size: .b16)
        packed(.x0F(0xD2), "psrld", mmx: .mmx, sse: .sse2, size: .b16)
        packed(.x0F(0xD3), "psrlq", mmx: .mmx, sse: .sse2, size: .b16)
        packed(.x0F(0xE1), "psraw", mmx: .mmx, sse: .sse2, size: .b16)
        packed(.x0F(0xE2), "psrad", mmx: .mmx, sse: .sse2, size: .b16)
        packed(.x0F(0xF1), "psllw", mmx: .mmx, sse: .sse2, size: .b16)
        packed(.x0F(0xF2), "pslld", mmx: .mmx, sse: .sse2, size: .b16)
        packed(.x0F(0xF3), "psllq", mmx: .mmx, sse: .sse2, size: .b16)
        shiftByImmediate(0x71, 2, "psrlw")
        shiftByImmediate(0x71, 4, "psraw")
        shiftByImmediate(0x71, 6, "psllw")
        shiftByImmediate(0x72, 2, "psrld")
        shiftByImmediate(0x72, 4, "psrad")
        shiftByImmediate(0x72, 6, "pslld")
        shiftByImmediate(0x73, 2, "psrlq")
        shiftByImmediate(0x73, 3, "psrldq", hasMMX: false)
        shiftByImmediate(0x73, 6, "psllq")
        shiftByImmediate(0x73, 7, "pslldq", hasMMX: false)
    }

    private mutating func shiftByImmediate(
        _ opcode: UInt8, _ number: UInt8, _ name: StaticString, hasMMX: Bool = true
    ) {
        let pattern = OpcodePattern.x0F(opcode).reg(number).register
        let inPlace: VectorShape.Access = [.readsRM, .writesRM, .immediate]
        let toVVVV: VectorShape.Access = [.readsRM, .writesVVVV, .immediate]
        if hasMMX { vector(pattern.np, name, .np, .none, inPlace, .mmx) }
        vector(pattern.p66, name, .nv, .none, inPlace, .sse2)
        vector(pattern.p66.vex.l0, name, .nv, .none, toVVVV, .avx)
        vector(pattern.p66.vex.l1, name, .nv, .none, toVVVV, .avx2)
    }
}
