import CDavit
import X86

// Decimal adjustment (SDM vol. 2, AAA to DAS), which 64-bit hosts no longer carry out. Flags that the manual calls undefined
// are those of the addition or subtraction that adjusts: compared with an AMD CPU for every value of AX and of the flags.
extension Interpreter {
    /// DAA and DAS.
    @inline(never)
    func decimalAdjust(_ instruction: borrowing Instruction) {
        let flags = cpu.pointee.rflags
        let al = gpr[GeneralRegister.RAX] & 0xFF
        let lowAdjusts = al & 0xF > 9 || flags & RFLAGS.AF != 0
        let highAdjusts = al > 0x99 || flags & RFLAGS.CF != 0
        let adjustment: UInt64 = (lowAdjusts ? 6 : 0) | (highAdjusts ? 0x60 : 0)
        let isAddition = instruction.operation == .daa
        let result = isAddition ? davit_add(al, adjustment, 0, 1) : davit_sub(al, adjustment, 0, 1)
        // DAS also borrows where the low digit's correction alone does.
        let borrows = !isAddition && lowAdjusts && al < 6
        writeRegister(0, size: 1, rex: true, result.value)
        setArithmeticFlags(result.flags & ~(RFLAGS.CF | RFLAGS.AF))
        setFlag(RFLAGS.CF, highAdjusts || borrows)
        setFlag(RFLAGS.AF, lowAdjusts)
    }

    /// AAA and AAS.
    @inline(never)
    func asciiAdjust(_ instruction: borrowing Instruction) {
        let ax = gpr[GeneralRegister.RAX] & 0xFFFF
        let adjusts = ax & 0xF > 9 || cpu.pointee.rflags & RFLAGS.AF != 0
        let adjustment: UInt64 = adjusts ? 0x106 : 0
        let result =
            instruction.operation == .aaa ? davit_add(ax, adjustment, 0, 2) : davit_sub(ax, adjustment, 0, 2)
        writeRegister(0, size: 2, rex: true, result.value & 0xFF0F)
        setArithmeticFlags(result.flags & ~(RFLAGS.CF | RFLAGS.AF))
        setFlag(RFLAGS.CF | RFLAGS.AF, adjusts)
    }

    /// AAM: AL divided by the immediate. #DE if that is zero.
    @inline(never)
    func asciiAdjustMultiplication(_ instruction: borrowing Instruction) throws(GuestFault) {
        let base = UInt64(bitPattern: instruction.immediate) & 0xFF
        guard base != 0 else { throw .divideError }
        let al = gpr[GeneralRegister.RAX] & 0xFF
        writeRegister(0, size: 2, rex: true, (al / base) << 8 | al % base)
        setArithmeticFlags(davit_or(al % base, 0, 0, 1).flags)
    }

    /// AAD: AH times the immediate, plus AL.
    @inline(never)
    func asciiAdjustDivision(_ instruction: borrowing Instruction) {
        let base = UInt64(bitPattern: instruction.immediate) & 0xFF
        let ax = gpr[GeneralRegister.RAX]
        let result = davit_add(ax & 0xFF, (ax >> 8 & 0xFF) &* base & 0xFF, 0, 1)
        writeRegister(0, size: 2, rex: true, result.value)
        setArithmeticFlags(result.flags)
    }
}
