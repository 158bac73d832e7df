// Instructions that only VEX encodes: AVX, AVX2, FMA and F16C.
extension OpcodeTableBuilder {
    mutating func addAVX() {
        addPermutes()
        addBroadcasts()
        addLanes()
        addVariableShifts()
        addMaskedMoves()
        addGathers()
        addFMA()
        vector(.x0F38(0x13).p66.vex.w0, "cvtph2ps", .vv, .half, .unary, .f16c)
        vector(.x0F3A(0x1D).p66.vex.w0, "cvtps2ph", .vv, .half, [.store, .immediate], .f16c)
    }

    private mutating func addPermutes() {
        let unary: VectorShape.Access = [.unary, .immediate]
        let binary: VectorShape.Access = [.vexBinary, .immediate]
        let four = binary.union(.readsImmediateRegister)
        vector(.x0F38(0x0C).p66.vex.w0, "permilps", .vv, .vector, .vexBinary, .avx)
        vector(.x0F38(0x0D).p66.vex.w0, "permilpd", .vv, .vector, .vexBinary, .avx)
        vector(.x0F3A(0x04).p66.vex.w0, "permilps", .vv, .vector, unary, .avx)
        vector(.x0F3A(0x05).p66.vex.w0, "permilpd", .vv, .vector, unary, .avx)
        vector(.x0F38(0x0E).p66.vex.w0, "testps", .vv, .vector, .compare, .avx)
        vector(.x0F38(0x0F).p66.vex.w0, "testpd", .vv, .vector, .compare, .avx)
        vector(.x0F38(0x16).p66.vex.w0.l1, "permps", .vv, .vector, .vexBinary, .avx2)
        vector(.x0F38(0x36).p66.vex.w0.l1, "permd", .vv, .vector, .vexBinary, .avx2)
        vector(.x0F3A(0x00).p66.vex.w1.l1, "permq", .vv, .vector, unary, .avx2)
        vector(.x0F3A(0x01).p66.vex.w1.l1, "permpd", .vv, .vector, unary, .avx2)
        vector(.x0F3A(0x02).p66.vex.w0, "pblendd", .vv, .vector, binary, .avx2)
        vector(.x0F3A(0x4A).p66.vex.w0, "blendvps", .vv, .vector, four, .avx)
        vector(.x0F3A(0x4B).p66.vex.w0, "blendvpd", .vv, .vector, four, .avx)
        vector(.x0F3A(0x4C).p66.vex.w0.l0, "pblendvb", .vv, .vector, four, .avx)
        vector(.x0F3A(0x4C).p66.vex.w0.l1, "pblendvb", .vv, .vector, four, .avx2)
    }

    private mutating func addBroadcasts() {
        vector(.x0F38(0x18).p66.vex.w0.memory, "broadcastss", .vn, .b4, .unary, .avx)
        vector(.x0F38(0x18).p66.vex.w0.register, "broadcastss", .vv, .none, .unary, .avx2)
        vector(.x0F38(0x19).p66.vex.w0.l1.memory, "broadcastsd", .vn, .b8, .unary, .avx)
        vector(.x0F38(0x19).p66.vex.w0.l1.register, "broadcastsd", .vv, .none, .unary, .avx2)
        vector(.x0F38(0x1A).p66.vex.w0.l1.memory, "broadcastf128", .vn, .b16, .unary, .avx)
        vector(.x0F38(0x58).p66.vex.w0, "pbroadcastd", .vv, .b4, .unary, .avx2)
        vector(.x0F38(0x59).p66.vex.w0, "pbroadcastq", .vv, .b8, .unary, .avx2)
        vector(.x0F38(0x5A).p66.vex.w0.l1.memory, "broadcasti128", .vn, .b16, .unary, .avx2)
        vector(.x0F38(0x78).p66.vex.w0, "pbroadcastb", .vv, .b1, .unary, .avx2)
        vector(.x0F38(0x79).p66.vex.w0, "pbroadcastw", .vv, .b2, .unary, .avx2)
    }

    /// Halves of a 256-bit register.
    private mutating func addLanes() {
        let binary: VectorShape.Access = [.vexBinary, .immediate]
        let extract: VectorShape.Access = [.store, .immediate]
        vector(.x0F3A(0x06).p66.vex.w0.l1, "perm2f128", .vv, .vector, binary, .avx)
        vector(.x0F3A(0x18).p66.vex.w0.l1, "insertf128", .vv, .b16, binary, .avx)
        vector(.x0F3A(0x19).p66.vex.w0.l1, "extractf128", .vv, .b16, extract, .avx)
        vector(.x0F3A(0x46).p66.vex.w0.l1, "perm2i128", .vv, .vector, binary, .avx2)
        vector(.x0F3A(0x38).p66.vex.w0.l1, "inserti128", .vv, .b16, binary, .avx2)
        vector(.x0F3A(0x39).p66.vex.w0.l1, "extracti128", .vv, .b16, extract, .avx2)
    }

    private mutating func addVariableShifts() {
        vector(.x0F38(0x45).p66.vex.w0, "psrlvd", .vv, .vector, .vexBinary, .avx2)
        vector(.x0F38(0x45).p66.vex.w1, "psrlvq", .vv, .vector, .vexBinary, .avx2)
        vector(.x0F38(0x46).p66.vex.w0, "psravd", .vv, .vector, .vexBinary, .avx2)
        vector(.x0F38(0x47).p66.vex.w0, "psllvd", .vv, .vector, .vexBinary, .avx2)
        vector(.x0F38(0x47).p66.vex.w1, "psllvq", .vv, .vector, .vexBinary, .avx2)
    }

    /// The mask is in VEX.vvvv. Elements are 8 bytes wide under VEX.W and in the PD forms, else 4.
    private mutating func addMaskedMoves() {
        let load: VectorShape.Access = [.writesReg, .readsVVVV, .readsRM]
        let store: VectorShape.Access = [.readsReg, .readsVVVV, .writesRM]
        maskedMove(.x0F38(0x2C).w0, "maskmovps", load, .avx)
        maskedMove(.x0F38(0x2D).w0, "maskmovpd", load, .avx)
        maskedMove(.x0F38(0x2E).w0, "maskmovps", store, .avx)
        maskedMove(.x0F38(0x2F).w0, "maskmovpd", store, .avx)
        maskedMove(.x0F38(0x8C).w0, "pmaskmovd", load, .avx2)
        maskedMove(.x0F38(0x8C).w1, "pmaskmovq", load, .avx2)
        maskedMove(.x0F38(0x8E).w0, "pmaskmovd", store, .avx2)
        maskedMove(.x0F38(0x8E).w1, "pmaskmovq", store, .avx2)
    }

    private mutating func maskedMove(
        _ pattern: OpcodePattern, _ name: StaticString, _ access: VectorShape.Access, _ feature: InstructionFeature
    ) {
        vector(pattern.p66.vex.memory, name, .vn, .vector, access, feature, operation: .vmaskmov)
    }

    /// `operandSize` is an element's; indices are 4 bytes wide in even opcodes, 8 in odd ones. The mask in VEX.vvvv is cleared.
    private mutating func addGathers() {
        gather(.x0F38(0x90).w0, "pgatherdd", .b4)
        gather(.x0F38(0x90).w1, "pgatherdq", .b8)
        gather(.x0F38(0x91).w0, "pgatherqd", .b4)
        gather(.x0F38(0x91).w1, "pgatherqq", .b8)
        gather(.x0F38(0x92).w0, "gatherdps", .b4)
        gather(.x0F38(0x92).w1, "gatherdpd", .b8)
        gather(.x0F38(0x93).w0, "gatherqps", .b4)
        gather(.x0F38(0x93).w1, "gatherqpd", .b8)
    }

    private mutating func gather(_ pattern: OpcodePattern, _ name: StaticString, _ size: OperandSizeRule) {
        vector(
            pattern.p66.vex.memory, name, .vn, size, [.readsReg, .writesReg, .readsVVVV, .writesVVVV, .readsRM], .avx2,
            operation: .gather, rules: .vsib)
    }

    private mutating func addFMA() {
        fusedPacked(0x96, "fmaddsub132ps", "fmaddsub132pd")
        fusedPacked(0x97, "fmsubadd132ps", "fmsubadd132pd")
        fused(0x98, "fmadd132ps", "fmadd132pd", "fmadd132ss", "fmadd132sd")
        fused(0x9A, "fmsub132ps", "fmsub132pd", "fmsub132ss", "fmsub132sd")
        fused(0x9C, "fnmadd132ps", "fnmadd132pd", "fnmadd132ss", "fnmadd132sd")
        fused(0x9E, "fnmsub132ps", "fnmsub132pd", "fnmsub132ss", "fnmsub132sd")
        fusedPacked(0xA6, "fmaddsub213ps", "fmaddsub213pd")
        fusedPacked(0xA7, "fmsubadd213ps", "fmsubadd213pd")
        fused(0xA8, "fmadd213ps", "fmadd213pd", "fmadd213ss", "fmadd213sd")
        fused(0xAA, "fmsub213ps", "fmsub213pd", "fmsub213ss", "fmsub213sd")
        fused(0xAC, "fnmadd213ps", "fnmadd213pd", "fnmadd213ss", "fnmadd213sd")
        fused(0xAE, "fnmsub213ps", "fnmsub213pd", "fnmsub213ss", "fnmsub213sd")
        fusedPacked(0xB6, "fmaddsub231ps", "fmaddsub231pd")
        fusedPacked(0xB7, "fmsubadd231ps", "fmsubadd231pd")
        fused(0xB8, "fmadd231ps", "fmadd231pd", "fmadd231ss", "fmadd231sd")
        fused(0xBA, "fmsub231ps", "fmsub231pd", "fmsub231ss", "fmsub231sd")
        fused(0xBC, "fnmadd231ps", "fnmadd231pd", "fnmadd231ss", "fnmadd231sd")
        fused(0xBE, "fnmsub231ps", "fnmsub231pd", "fnmsub231ss", "fnmsub231sd")
    }

    private mutating func fusedPacked(_ opcode: UInt8, _ single: StaticString, _ double: StaticString) {
        vector(.x0F38(opcode).p66.vex.w0, single, .vv, .vector, .ternary, .fma)
        vector(.x0F38(opcode).p66.vex.w1, double, .vv, .vector, .ternary, .fma)
    }

    private mutating func fused(
        _ opcode: UInt8, _ packedSingle: StaticString, _ packedDouble: StaticString, _ single: StaticString,
        _ double: StaticString
    ) {
        fusedPacked(opcode, packedSingle, packedDouble)
        vector(.x0F38(opcode + 1).p66.vex.w0, single, .vv, .b4, .ternary, .fma)
        vector(.x0F38(opcode + 1).p66.vex.w1, double, .vv, .b8, .ternary, .fma)
    }
}
