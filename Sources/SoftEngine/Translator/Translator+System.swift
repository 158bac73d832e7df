import CDavit
import X86

// System instructions that kernels use all the time, in line. Everything that they may not do in the mode at hand, and what
// their effect on the run loop would be, stays with the interpreter.
extension Translator {
    private typealias R = HostRegister

    /// RFLAGS.IF off. CPL 0 only, so IOPL has no say.
    mutating func clearInterruptFlag() -> Bool {
        guard mode.isKernel else { return false }
        loadFlagsWithoutIF()
        code.store(R.RCX, CPUField.at(DAVIT_OFFSET_RFLAGS))
        return true
    }

    /// RFLAGS.IF on. Interrupts that waited for it are looked at behind the next instruction: `shadowEnd` sees to that.
    mutating func setInterruptFlag() -> Bool {
        guard mode.isKernel, nextIsPlain else { return false }
        loadFlagsWithoutIF()
        code.lea(R.RCX, .memory(R.RCX, Int32(RFLAGS.IF)))
        code.store(R.RCX, CPUField.at(DAVIT_OFFSET_RFLAGS))
        isInShadow = true
        return true
    }

    /// RCX = RFLAGS & ~IF, without touching the host's flags: PEXT and PDEP with one mask are an AND.
    private mutating func loadFlagsWithoutIF() {
        code.load(R.RCX, CPUField.at(DAVIT_OFFSET_RFLAGS))
        code.pext(R.RCX, R.RCX, mask: CPUField.at(DAVIT_OFFSET_INTERRUPTS_OFF_MASK))
        code.pdep(R.RCX, R.RCX, mask: CPUField.at(DAVIT_OFFSET_INTERRUPTS_OFF_MASK))
    }

    /// To be called behind the instruction after STI.
    mutating func shadowEnd() {
        isInShadow = false
        code.load32(R.RCX, CPUField.at(DAVIT_OFFSET_INTERRUPT_WAITS))
        leaveIfNotZero(for: nextRIP)
    }

    /// PUSHFQ: arithmetic flags are in EFLAGS, the others in `davit_cpu.rflags`; RF and VM are clear while translated code runs.
    mutating func pushFlags(_ instruction: Instruction) -> Bool {
        guard instruction.operandSize == 8 else { return false }
        // LAHF and SETO, several times faster than PUSHF: RAX = flags without OF, R11 = OF, put together without touching flags.
        code.store(R.RAX, CPUField.scratch(0))
        code.emit(.init(map: 1, opcode: 0x90, rex: true), reg: 0, .register(R.R11))
        code.byte(0x9F)
        code.emit(.init(map: 1, opcode: 0xB6), reg: R.RAX, .register(R.RSP))  // MOVZX EAX, AH
        code.emit(.init(map: 1, opcode: 0xB6), reg: R.R11, .register(R.R11))
        code.rorx(R.R11, R.R11, 64 - 11)
        code.lea(R.R11, .memory(R.R11, index: R.RAX))
        code.load(R.RAX, CPUField.scratch(0))
        // Bit 1 is in RFLAGS already.
        code.pext(R.R11, R.R11, mask: CPUField.at(DAVIT_OFFSET_ARITHMETIC_MASK))
        code.pdep(R.R11, R.R11, mask: CPUField.at(DAVIT_OFFSET_ARITHMETIC_MASK))
        code.load(R.RCX, CPUField.at(DAVIT_OFFSET_RFLAGS))
        code.lea(R.R11, .memory(R.R11, index: R.RCX))
        code.store(R.R11, CPUField.scratch(1))
        let slot = fold(stackOperand(-8, write: true))
        code.load(R.RCX, CPUField.scratch(1))
        code.store(R.RCX, slot)
        code.lea(R.R13, .memory(R.R13, -8))
        return true
    }

    /// MOV r, Sreg: zero-extended but for 16-bit operands.
    mutating func moveFromSegment(_ instruction: Instruction) -> Bool {
        guard !instruction.isMemory, instruction.operandSize != 2 else { return false }
        let stride = MemoryLayout<davit_segment>.stride
        let selector = CPUField.at(
            DAVIT_OFFSET_SEGMENT,
            plus: Int(instruction.reg) * stride + MemoryLayout<davit_segment>.offset(of: \.selector)!)
        let host = GuestRegisters.host(instruction.rm)
        let register = host == R.none ? R.RCX : host
        code.emit(.init(map: 1, opcode: 0xB7), reg: register, selector)
        if host == R.none { code.store(register, GuestRegisters.slot(instruction.rm)) }
        return true
    }

    mutating func swapGS() -> Bool {
        guard mode.isKernel else { return false }
        let base = CPUField.segmentBase(UInt8(DAVIT_GS.rawValue))
        let other = CPUField.at(DAVIT_OFFSET_KERNEL_GS_BASE)
        code.load(R.R11, base)
        code.load(R.RCX, other)
        code.store(R.RCX, base)
        code.store(R.R11, other)
        return true
    }

    /// STAC and CLAC: data accesses from here on go by another TLB, so the unit ends and one of the other mode follows.
    mutating func setAccessFlag(_ value: Bool) -> Bool {
        guard mode.isKernel, mode.hasSMAP else { return false }
        let wanted = value ? DAVIT_TLB_KERNEL_AC : DAVIT_TLB_KERNEL
        guard mode.tlb != wanted.rawValue else { return true }
        var next = mode
        next.tlb = wanted.rawValue
        // AC is known to be the other way: adding or subtracting the bit sets or clears it.
        code.load(R.RCX, CPUField.at(DAVIT_OFFSET_RFLAGS))
        code.lea(R.RCX, .memory(R.RCX, value ? Int32(RFLAGS.AC) : -Int32(RFLAGS.AC)))
        code.store(R.RCX, CPUField.at(DAVIT_OFFSET_RFLAGS))
        selectTLB(next)
        crossPageJump(to: nextRIP, mode: next)
        isOver = true
        return true
    }

    /// RDTSC and RDTSCP: the host's counter plus a constant, split and joined without touching flags.
    mutating func readTimeStamp(withID: Bool) -> Bool {
        guard mode.isPlain else { return false }
        code.byte(0x0F)
        code.byte(0x31)
        code.rorx(R.R11, R.RDX, 32)
        code.load(R.RCX, CPUField.at(DAVIT_OFFSET_TSC_OFFSET))
        code.lea(R.R11, .memory(R.R11, index: R.RAX))
        code.lea(R.R11, .memory(R.R11, index: R.RCX))
        code.load32(R.RAX, .register(R.R11))
        code.rorx(R.RDX, R.R11, 32)
        code.load32(R.RDX, .register(R.RDX))
        if withID { code.load32(R.R15, CPUField.at(DAVIT_OFFSET_TSC_AUX)) }
        return true
    }
}
