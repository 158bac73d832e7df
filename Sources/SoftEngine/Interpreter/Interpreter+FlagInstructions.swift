import CDavit
import X86

// Instructions that move or set flags. CR4.VME and PVI are not offered: IOPL alone decides.
extension Interpreter {
    /// What POPF writes where nothing forbids: VM, VIF and VIP stay, RF becomes 0.
    private static let poppable: UInt64 =
        RFLAGS.arithmetic | RFLAGS.TF | RFLAGS.IF | RFLAGS.DF | RFLAGS.IOPL | RFLAGS.NT | RFLAGS.AC | RFLAGS.ID

    @inline(never)
    func pushFlags(_ instruction: borrowing Instruction) throws(GuestFault) {
        if isVirtual8086 && iopl < 3 { throw .generalProtection }
        try push(cpu.pointee.rflags & ~(RFLAGS.RF | RFLAGS.VM), size: instruction.operandSize)
    }

    @inline(never)
    func popFlags(_ instruction: borrowing Instruction) throws(GuestFault) {
        if isVirtual8086 && iopl < 3 { throw .generalProtection }
        var writable = Self.poppable & Self.mask(instruction.operandSize)
        if isProtected && cpu.pointee.cpl != 0 {
            writable &= ~RFLAGS.IOPL
            if cpu.pointee.cpl > iopl { writable &= ~RFLAGS.IF }
        }
        let value = try pop(size: instruction.operandSize)
        setFlags(cpu.pointee.rflags & ~(writable | RFLAGS.RF) | value & writable)
    }

    @inline(never)
    func setInterruptFlag(_ value: Bool) throws(GuestFault) {
        if isProtected && cpu.pointee.cpl > iopl { throw .generalProtection }
        if !value {
            cpu.pointee.rflags &= ~RFLAGS.IF
        } else if cpu.pointee.rflags & RFLAGS.IF == 0 {
            cpu.pointee.shadow = 1
            setFlags(cpu.pointee.rflags | RFLAGS.IF)
        }
    }

    /// LAHF: SF ZF AF PF CF and the bit that is always 1 to AH.
    @inline(never)
    func loadFlagsToAH() {
        writeRegister(4, size: 1, rex: false, cpu.pointee.rflags & 0xD7)
    }

    @inline(never)
    func storeFlagsFromAH() {
        let flags = gpr[GeneralRegister.RAX] >> 8 & 0xD5
        cpu.pointee.rflags = cpu.pointee.rflags & ~0xD5 | flags
    }
}
