import CDavit
import X86

// Arithmetic and logic with two operands, with one, multiplication and division.
extension Interpreter {
    /// ADD OR ADC SBB AND SUB XOR: E with G, G with E, E or the accumulator with an immediate.
    @inline(always)
    func binary(_ instruction: borrowing Instruction, _ kind: Operation) throws(GuestFault) {
        switch instruction.operandSize {
        case 8: try binary(instruction, kind, size: 8)
        case 4: try binary(instruction, kind, size: 4)
        default: try binary(instruction, kind, size: instruction.operandSize)
        }
    }

    @inline(always)
    private func binary(_ instruction: borrowing Instruction, _ kind: Operation, size: UInt8) throws(GuestFault) {
        let flags = cpu.pointee.rflags
        if instruction.form == .ge {
            let b = try readE(instruction, size: size)
            let result = ALUOperation(kind: kind, size: size, flags: flags, b: b)(readG(instruction, size: size))
            writeG(instruction, size: size, result.value)
            setArithmeticFlags(result.flags)
        } else {
            let b = instruction.form == .eg ? readG(instruction, size: size) : UInt64(bitPattern: instruction.immediate)
            try modifyE(instruction, ALUOperation(kind: kind, size: size, flags: flags, b: b))
        }
    }

    /// CMP and TEST: the same without a result.
    @inline(always)
    func compare(_ instruction: borrowing Instruction, _ kind: Operation) throws(GuestFault) {
        switch instruction.operandSize {
        case 8: try compare(instruction, kind, size: 8)
        case 4: try compare(instruction, kind, size: 4)
        default: try compare(instruction, kind, size: instruction.operandSize)
        }
    }

    @inline(always)
    private func compare(_ instruction: borrowing Instruction, _ kind: Operation, size: UInt8) throws(GuestFault) {
        var a = try readE(instruction, size: size)
        var b: UInt64
        switch instruction.form {
        case .eg: b = readG(instruction, size: size)
        case .ge:
            b = a
            a = readG(instruction, size: size)
        default: b = UInt64(bitPattern: instruction.immediate)
        }
        setArithmeticFlags(ALUOperation(kind: kind, size: size, flags: 0, b: b)(a).flags)
    }

    /// INC DEC NEG NOT: E, or the register in the opcode.
    @inline(always)
    func unary(_ instruction: borrowing Instruction, _ kind: Operation) throws(GuestFault) {
        switch instruction.operandSize {
        case 8: try unary(instruction, kind, size: 8)
        case 4: try unary(instruction, kind, size: 4)
        default: try unary(instruction, kind, size: instruction.operandSize)
        }
    }

    @inline(always)
    private func unary(_ instruction: borrowing Instruction, _ kind: Operation, size: UInt8) throws(GuestFault) {
        let operation = ALUOperation(kind: kind, size: size, flags: cpu.pointee.rflags)
        if instruction.form == .z {
            let result = operation(readG(instruction, size: size))
            writeG(instruction, size: size, result.value)
            setArithmeticFlags(result.flags)
        } else {
            try modifyE(instruction, operation)
        }
    }

    /// MUL and IMUL with the accumulator: AX, or rDX:rAX.
    @inline(never)
    func multiply(_ instruction: borrowing Instruction, signed: Bool) throws(GuestFault) {
        let size = instruction.operandSize
        let b = try readE(instruction, size: size)
        let a = gpr[GeneralRegister.RAX]
        let flags = cpu.pointee.rflags
        let result = signed ? davit_imul(a, 0, b, flags, UInt32(size)) : davit_mul(a, 0, b, flags, UInt32(size))
        writeAccumulators(result, size: size)
        setArithmeticFlags(result.flags)
    }

    /// DIV and IDIV of AX, or rDX:rAX. #DE for a zero divisor or a quotient that does not fit.
    @inline(never)
    func divide(_ instruction: borrowing Instruction, signed: Bool) throws(GuestFault) {
        let size = instruction.operandSize
        let b = try readE(instruction, size: size)
        let low = readRegister(0, size: size, rex: true)
        // AH, or rDX.
        let high = size == 1 ? gpr[GeneralRegister.RAX] >> 8 & 0xFF : readRegister(2, size: size, rex: true)
        let flags = cpu.pointee.rflags
        let result: davit_wide_result
        if signed {
            guard davit_can_divide_signed(low, high, b, UInt32(size)) else { throw .divideError }
            result = davit_idiv(low, high, b, flags, UInt32(size))
        } else {
            guard davit_can_divide(low, high, b, UInt32(size)) else { throw .divideError }
            result = davit_div(low, high, b, flags, UInt32(size))
        }
        writeAccumulators(result, size: size)
        setArithmeticFlags(result.flags)
    }

    /// `low` to AL or rAX, `high` to AH or rDX.
    private func writeAccumulators(_ result: davit_wide_result, size: UInt8) {
        if size == 1 {
            writeRegister(0, size: 2, rex: true, result.low | result.high << 8)
        } else {
            writeRegister(0, size: size, rex: true, result.low)
            writeRegister(2, size: size, rex: true, result.high)
        }
    }

    /// IMUL with two or three operands.
    @inline(never)
    func multiplyTruncating(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        let e = try readE(instruction, size: size)
        let other =
            instruction.form == .gei ? UInt64(bitPattern: instruction.immediate) : readG(instruction, size: size)
        let result = davit_imul2(e, other, cpu.pointee.rflags, UInt32(size))
        writeG(instruction, size: size, result.value)
        setArithmeticFlags(result.flags)
    }

    /// CBW CWDE CDQE.
    @inline(never)
    func extendAccumulator(_ instruction: borrowing Instruction) {
        let size = instruction.operandSize
        let value = Self.signExtend(gpr[GeneralRegister.RAX], size: size >> 1)
        writeRegister(0, size: size, rex: true, value)
    }

    /// CWD CDQ CQO.
    @inline(never)
    func spreadSign(_ instruction: borrowing Instruction) {
        let size = instruction.operandSize
        let isNegative = Int64(bitPattern: Self.signExtend(gpr[GeneralRegister.RAX], size: size)) < 0
        writeRegister(2, size: size, rex: true, isNegative ? UInt64.max : 0)
    }

    /// The low `size` bytes (1, 2, 4 or 8), sign-extended to 64 bits.
    @inline(always)
    static func signExtend(_ value: UInt64, size: UInt8) -> UInt64 {
        let shift = (64 &- UInt64(size) &* 8) & 63
        return UInt64(bitPattern: Int64(bitPattern: value &<< shift) &>> Int64(shift))
    }
}
