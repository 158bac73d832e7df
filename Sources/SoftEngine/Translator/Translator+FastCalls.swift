import CDavit
import X86

// SYSCALL and SYSRET between 64-bit modes, in line: what `Interpreter.systemCall` and `systemReturn` do. The flags of the side
// that is left are dead when its last check has passed, so from there on they may be written.
extension Translator {
    private typealias R = HostRegister

    mutating func systemCall() -> Bool {
        guard !mode.isKernel && !mode.is32Bit else { return false }
        code.load32(R.RCX, CPUField.at(DAVIT_OFFSET_SLOW_CALLS))
        interpretIfNotZero(.syscall)
        // All flags, to the guest's R11; those that are kept, to RFLAGS. None of these is arithmetic.
        code.move(R.R11, R.RAX)
        code.storeArithmeticFlags()
        code.alu(.or, R.RCX, CPUField.at(DAVIT_OFFSET_RFLAGS))
        code.store(R.RCX, GuestRegisters.slot(11))
        code.move(R.RAX, R.R11)
        code.alu(.and, R.RCX, CPUField.at(DAVIT_OFFSET_CALL_FLAGS))
        code.alu(.or, R.RCX, immediate: Int32(RFLAGS.reserved1))
        code.store(R.RCX, CPUField.at(DAVIT_OFFSET_RFLAGS))
        code.loadImmediate(R.R15, nextRIP)
        let target = mode.inKernel(true)
        enterPrivilege(0, segments: 0, target)
        // 1 + 0 clears all arithmetic flags.
        code.loadImmediate(R.RCX, 1)
        code.alu(.add, R.RCX, immediate: 0)
        code.load(R.R11, CPUField.at(DAVIT_OFFSET_LSTAR))
        dynamicJump(target)
        isOver = true
        return true
    }

    mutating func systemReturn(_ instruction: Instruction) -> Bool {
        guard mode.isKernel, instruction.operandSize == 8 else { return false }
        code.load32(R.RCX, CPUField.at(DAVIT_OFFSET_SLOW_CALLS))
        interpretIfNotZero(.sysret)
        // Back to the lower half, without TF and AC, which ask for more.
        code.pext(R.RCX, R.R15, mask: CPUField.at(DAVIT_OFFSET_HIGH_HALF_MASK))
        interpretIfNotZero(.sysret)
        code.load(R.R11, GuestRegisters.slot(11))
        code.pext(R.RCX, R.R11, mask: CPUField.at(DAVIT_OFFSET_STEPPING_MASK))
        interpretIfNotZero(.sysret)
        code.alu(.and, R.R11, immediate: 0x3C_7FD7)
        code.alu(.or, R.R11, immediate: Int32(RFLAGS.reserved1))
        code.move(R.RCX, R.R11)
        code.alu(.and, R.RCX, immediate: ~Int32(RFLAGS.arithmetic))
        code.store(R.RCX, CPUField.at(DAVIT_OFFSET_RFLAGS))
        let target = mode.inKernel(false)
        enterPrivilege(3, segments: 2, target)
        code.store(R.RAX, CPUField.scratch(0))
        code.load32(R.RCX, .register(R.R11))
        code.load32(R.RAX, .register(R.R11))
        code.loadArithmeticFlags()
        code.load(R.RAX, CPUField.scratch(0))
        code.move(R.R11, R.R15)
        // Interrupts that waited for IF.
        code.load32(R.RCX, CPUField.at(DAVIT_OFFSET_INTERRUPT_WAITS))
        code.jrcxz(over: 5)
        code.jump(to: stubs.lookup)
        dynamicJump(target)
        isOver = true
        return true
    }

    /// CPL, CS, SS and the TLB of data accesses. RCX only. `segments` is the first of `davit_cpu.call_segment`.
    private mutating func enterPrivilege(_ cpl: Int32, segments: Int, _ target: TranslationMode) {
        for (i, segment) in [DAVIT_CS, DAVIT_SS].enumerated() {
            let from = (segments + i) * MemoryLayout<davit_segment>.stride
            let to = Int(segment.rawValue) * MemoryLayout<davit_segment>.stride
            for half in [0, 8] {
                code.load(R.RCX, CPUField.at(DAVIT_OFFSET_CALL_SEGMENT, plus: from + half))
                code.store(R.RCX, CPUField.at(DAVIT_OFFSET_SEGMENT, plus: to + half))
            }
        }
        code.store32(immediate: cpl, CPUField.at(DAVIT_OFFSET_CPL))
        selectTLB(target)
    }

    /// Data accesses go by the TLB of another mode from here on. RCX only.
    mutating func selectTLB(_ target: TranslationMode) {
        code.store32(immediate: Int32(target.tlb), CPUField.at(DAVIT_OFFSET_TLB_MODE))
        code.lea(R.RCX, CPUField.at(DAVIT_OFFSET_TLB, plus: Int(target.tlb) * MemoryLayout<davit_tlb>.stride))
        code.store(R.RCX, CPUField.at(DAVIT_OFFSET_TLB_CURRENT))
    }
}
