// The x87 escapes D8-DF (SDM vol. 2, A.5). Register forms that only alias others are rows of their own name with a digit, as
// they stood in the 8087's manuals.
extension OpcodeTableBuilder {
    mutating func addX87() {
        addX87Transfers()
        addX87Constants()
        addX87Arithmetic()
        addX87Control()
    }

    private mutating func addX87Arithmetic() {
        group = .x87Arithmetic
        arithmetic(0, "fadd", "fiadd", "faddp")
        arithmetic(1, "fmul", "fimul", "fmulp")
        arithmetic(4, "fsub", "fisub", "fsubp", reversed: 5)
        arithmetic(5, "fsubr", "fisubr", "fsubrp", reversed: 4)
        arithmetic(6, "fdiv", "fidiv", "fdivp", reversed: 7)
        arithmetic(7, "fdivr", "fidivr", "fdivrp", reversed: 6)
        compare(2, "fcom", "ficom")
        compare(3, "fcomp", "ficomp")
        stack(0xDC, 2, "fcom2")
        stack(0xDC, 3, "fcomp3")
        stack(0xDE, 2, "fcomp5")
        x87(.one(0xDE).modrm(0xD9), "fcompp")
        x87(.one(0xDA).modrm(0xE9), "fucompp")
        stack(0xDD, 4, "fucom")
        stack(0xDD, 5, "fucomp")
        stack(0xDB, 5, "fucomi", .writesFlags, feature: .cmov)
        stack(0xDB, 6, "fcomi", .writesFlags, feature: .cmov)
        stack(0xDF, 5, "fucomip", .writesFlags, feature: .cmov)
        stack(0xDF, 6, "fcomip", .writesFlags, feature: .cmov)
        x87(.one(0xD9).modrm(0xE0), "fchs")
        x87(.one(0xD9).modrm(0xE1), "fabs")
        x87(.one(0xD9).modrm(0xE4), "ftst")
        x87(.one(0xD9).modrm(0xE5), "fxam")
        x87(.one(0xD9).modrm(0xF0), "f2xm1")
        x87(.one(0xD9).modrm(0xF1), "fyl2x")
        x87(.one(0xD9).modrm(0xF2), "fptan")
        x87(.one(0xD9).modrm(0xF3), "fpatan")
        x87(.one(0xD9).modrm(0xF4), "fxtract")
        x87(.one(0xD9).modrm(0xF5), "fprem1")
        x87(.one(0xD9).modrm(0xF8), "fprem")
        x87(.one(0xD9).modrm(0xF9), "fyl2xp1")
        x87(.one(0xD9).modrm(0xFA), "fsqrt")
        x87(.one(0xD9).modrm(0xFB), "fsincos")
        x87(.one(0xD9).modrm(0xFC), "frndint")
        x87(.one(0xD9).modrm(0xFD), "fscale")
        x87(.one(0xD9).modrm(0xFE), "fsin")
        x87(.one(0xD9).modrm(0xFF), "fcos")
    }

    /// All forms of a binary operation. DC and DE write ST(i), with the two subtractions and divisions changing places.
    private mutating func arithmetic(
        _ number: UInt8, _ name: StaticString, _ integer: StaticString, _ popping: StaticString, reversed: UInt8? = nil
    ) {
        compare(number, name, integer)
        stack(0xDC, reversed ?? number, name)
        stack(0xDE, reversed ?? number, popping)
    }

    /// Forms with ST(0) as the first operand.
    private mutating func compare(_ number: UInt8, _ name: StaticString, _ integer: StaticString) {
        memory(0xD8, number, name, .b4, .readsRM)
        memory(0xDC, number, name, .b8, .readsRM)
        memory(0xDA, number, integer, .b4, .readsRM)
        memory(0xDE, number, integer, .b2, .readsRM)
        stack(0xD8, number, name)
    }

    private mutating func addX87Transfers() {
        group = .x87Transfer
        memory(0xD9, 0, "fld", .b4, .readsRM)
        memory(0xDD, 0, "fld", .b8, .readsRM)
        memory(0xDB, 5, "fld", .b10, .readsRM)
        memory(0xD9, 2, "fst", .b4, .writesRM)
        memory(0xDD, 2, "fst", .b8, .writesRM)
        memory(0xD9, 3, "fstp", .b4, .writesRM)
        memory(0xDD, 3, "fstp", .b8, .writesRM)
        memory(0xDB, 7, "fstp", .b10, .writesRM)
        memory(0xDF, 0, "fild", .b2, .readsRM)
        memory(0xDB, 0, "fild", .b4, .readsRM)
        memory(0xDF, 5, "fild", .b8, .readsRM)
        memory(0xDF, 2, "fist", .b2, .writesRM)
        memory(0xDB, 2, "fist", .b4, .writesRM)
        memory(0xDF, 3, "fistp", .b2, .writesRM)
        memory(0xDB, 3, "fistp", .b4, .writesRM)
        memory(0xDF, 7, "fistp", .b8, .writesRM)
        memory(0xDF, 1, "fisttp", .b2, .writesRM, feature: .sse3)
        memory(0xDB, 1, "fisttp", .b4, .writesRM, feature: .sse3)
        memory(0xDD, 1, "fisttp", .b8, .writesRM, feature: .sse3)
        memory(0xDF, 4, "fbld", .b10, .readsRM)
        memory(0xDF, 6, "fbstp", .b10, .writesRM)
        stack(0xD9, 0, "fld")
        stack(0xDD, 2, "fst")
        stack(0xDD, 3, "fstp")
        stack(0xD9, 3, "fstp1")
        stack(0xDF, 2, "fstp8")
        stack(0xDF, 3, "fstp9")
        stack(0xD9, 1, "fxch")
        stack(0xDD, 1, "fxch4")
        stack(0xDF, 1, "fxch7")
        stack(0xDA, 0, "fcmovb", feature: .cmov)
        stack(0xDA, 1, "fcmove", feature: .cmov)
        stack(0xDA, 2, "fcmovbe", feature: .cmov)
        stack(0xDA, 3, "fcmovu", feature: .cmov)
        stack(0xDB, 0, "fcmovnb", feature: .cmov)
        stack(0xDB, 1, "fcmovne", feature: .cmov)
        stack(0xDB, 2, "fcmovnbe", feature: .cmov)
        stack(0xDB, 3, "fcmovnu", feature: .cmov)
    }

    private mutating func addX87Constants() {
        group = .x87Transfer
        x87(.one(0xD9).modrm(0xE8), "fld1")
        x87(.one(0xD9).modrm(0xE9), "fldl2t")
        x87(.one(0xD9).modrm(0xEA), "fldl2e")
        x87(.one(0xD9).modrm(0xEB), "fldpi")
        x87(.one(0xD9).modrm(0xEC), "fldlg2")
        x87(.one(0xD9).modrm(0xED), "fldln2")
        x87(.one(0xD9).modrm(0xEE), "fldz")
    }

    private mutating func addX87Control() {
        group = .x87Control
        memory(0xD9, 4, "fldenv", .environment, [.readsRM, .keepsPointers])
        memory(0xD9, 5, "fldcw", .b2, [.readsRM, .keepsPointers])
        memory(0xD9, 6, "fnstenv", .environment, [.writesRM, .nonWaiting])
        memory(0xD9, 7, "fnstcw", .b2, [.writesRM, .nonWaiting])
        memory(0xDD, 4, "frstor", .state, [.readsRM, .keepsPointers])
        memory(0xDD, 6, "fnsave", .state, [.writesRM, .nonWaiting])
        memory(0xDD, 7, "fnstsw", .b2, [.writesRM, .nonWaiting])
        x87(.one(0xDF).modrm(0xE0), "fnstsw", [.writesAX, .nonWaiting])
        x87(.one(0xDB).modrm(0xE2), "fnclex", .nonWaiting)
        x87(.one(0xDB).modrm(0xE3), "fninit", .nonWaiting)
        // 8087 and 80287 control instructions that do nothing since.
        x87(.one(0xDB).modrm(0xE0), "fneni", .nonWaiting)
        x87(.one(0xDB).modrm(0xE1), "fndisi", .nonWaiting)
        x87(.one(0xDB).modrm(0xE4), "fnsetpm", .nonWaiting)
        x87(.one(0xD9).modrm(0xD0), "fnop")
        x87(.one(0xD9).modrm(0xF6), "fdecstp")
        x87(.one(0xD9).modrm(0xF7), "fincstp")
        stack(0xDD, 0, "ffree")
        stack(0xDF, 0, "ffreep")
    }

    private mutating func memory(
        _ opcode: UInt8, _ number: UInt8, _ name: StaticString, _ size: OperandSizeRule, _ access: VectorShape.Access,
        feature: InstructionFeature = .x87
    ) {
        x87(.one(opcode).reg(number).memory, name, access, size: size, feature: feature)
    }

    /// With ST(i), the number in ModRM.rm.
    private mutating func stack(
        _ opcode: UInt8, _ number: UInt8, _ name: StaticString, _ access: VectorShape.Access = [],
        feature: InstructionFeature = .x87
    ) {
        x87(.one(opcode).reg(number).register, name, access, feature: feature)
    }

    private mutating func x87(
        _ pattern: OpcodePattern, _ name: StaticString, _ access: VectorShape.Access = [],
        size: OperandSizeRule = .none, feature: InstructionFeature = .x87
    ) {
        add(
            pattern, name, .x87, .vector, size, .none, .modrm,
            shape: VectorShape(reg: .none, rm: .none, access: access),
            feature: feature)
    }
}
