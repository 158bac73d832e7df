import CDavit
import X86

// Shifts and rotates. The host's instructions mask the count and leave everything alone where it is zero.
extension Interpreter {
    /// ROL ROR RCL RCR SHL SHR SAR: E by 1, CL or an immediate.
    @inline(always)
    func shift(_ instruction: borrowing Instruction, _ kind: Operation) throws(GuestFault) {
        let count: UInt64 =
            switch instruction.form {
            case .e1: 1
            case .eCL: gpr[GeneralRegister.RCX] & 0xFF
            default: UInt64(bitPattern: instruction.immediate) & 0xFF
            }
        let flags = cpu.pointee.rflags
        switch instruction.operandSize {
        case 8: try modifyE(instruction, ALUOperation(kind: kind, size: 8, flags: flags, b: count))
        case 4: try modifyE(instruction, ALUOperation(kind: kind, size: 4, flags: flags, b: count))
        default:
            try modifyE(
                instruction, ALUOperation(kind: kind, size: instruction.operandSize, flags: flags, b: count))
        }
    }

    /// SHLD and SHRD: E, filled from G, by CL or an immediate.
    @inline(never)
    func doubleShift(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        let count =
            instruction.form == .egCL ? gpr[GeneralRegister.RCX] : UInt64(bitPattern: instruction.immediate)
        try modifyE(
            instruction,
            ALUOperation(
                kind: instruction.operation, size: size, flags: cpu.pointee.rflags,
                b: readG(instruction, size: size), c: count))
    }

    /// SARX SHLX SHRX RORX: no flags.
    @inline(never)
    func shiftWithoutFlags(_ instruction: borrowing Instruction) throws(GuestFault) {
        try requireVEX()
        let size = instruction.operandSize
        let value = try readE(instruction, size: size)
        let mask: UInt64 = size == 8 ? 63 : 31
        let result: UInt64
        switch instruction.operation {
        case .rorx:
            result = davit_ror(value, UInt64(bitPattern: instruction.immediate) & mask, 0, UInt32(size)).value
        case .shlx: result = value << (gpr[Int(instruction.vvvv)] & mask)
        case .shrx: result = value >> (gpr[Int(instruction.vvvv)] & mask)
        default:
            let count = Int64(bitPattern: gpr[Int(instruction.vvvv)] & mask)
            result = UInt64(bitPattern: Int64(bitPattern: Self.signExtend(value, size: size)) >> count)
        }
        writeG(instruction, size: size, result)
    }

    /// VEX prefixes are undefined in real and virtual-8086 mode.
    @inline(always)
    func requireVEX() throws(GuestFault) {
        if cpu.pointee.cr0 & CR0.PE == 0 || cpu.pointee.rflags & RFLAGS.VM != 0 { throw .invalidOpcode }
    }
}
