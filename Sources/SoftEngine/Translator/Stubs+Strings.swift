import CDavit
import X86

// REP MOVS and REP STOS in 64-bit mode: forwards, a page at a time, by the first-level TLB. Whatever else comes (a TLB miss, DF set, an
// element over a page's end, somebody who wants the vCPU's attention) the interpreter goes on with; the registers are at a boundary.
extension Stubs {
    private typealias R = HostRegister

    /// Returns where the stub begins. Entered by CALL, so that the state is 8 above RSP; leaves to `leaving` with RSP as it came.
    static func emitString(
        _ code: inout CodeEmitter, shift: UInt8, isMove: Bool, leaving: UnsafeMutablePointer<UInt8>
    ) -> UnsafeMutablePointer<UInt8> {
        func field(_ offset: davit_offset, _ plus: Int = 0) -> HostOperand { CPUField.at(offset, plus: plus + 8) }
        func scratch(_ number: Int) -> HostOperand { field(DAVIT_OFFSET_SCRATCH, 8 * number) }
        let start = code.cursor
        code.store(R.RAX, scratch(0))
        code.store(R.RDX, scratch(1))
        code.saveFlags()
        code.store(R.RAX, scratch(2))
        var slow: [UnsafeMutablePointer<UInt8>] = []
        func leaveIf(_ condition: UInt8) {
            code.jump(condition: condition, to: code.cursor)
            slow.append(code.cursor - 4)
        }
        // TEST byte [RFLAGS + 1], DF.
        code.emit(.init(opcode: 0xF6), reg: 0, field(DAVIT_OFFSET_RFLAGS, 1))
        code.byte(UInt8(RFLAGS.DF >> 8))
        leaveIf(Condition.notZero)
        let loop = code.cursor
        code.emit(.init(opcode: 0x85, w: true), reg: R.R15, .register(R.R15))
        code.jump(condition: Condition.zero, to: code.cursor)
        let done = code.cursor - 4
        // RAX = the elements that lie whole in the pages at hand, RCX at most.
        roomInPage(&code, of: R.RDI, into: R.RAX)
        if isMove {
            roomInPage(&code, of: R.RSI, into: R.RDX)
            code.alu(.cmp, R.RDX, .register(R.RAX))
            code.conditionalMove(Condition.below, R.RAX, R.RDX)
        }
        if shift > 0 {
            code.shift(R.RAX, left: false, by: shift)
            leaveIf(Condition.zero)
        }
        code.alu(.cmp, R.R15, .register(R.RAX))
        code.conditionalMove(Condition.below, R.RAX, R.R15)
        if isMove {
            leaveIf(hostAddress(&code, of: R.RSI, write: false, field))
            code.store(R.R11, scratch(3))
        }
        leaveIf(hostAddress(&code, of: R.RDI, write: true, field))
        // Nothing can fault from here on.
        code.alu(.sub, R.R15, .register(R.RAX))
        code.move(R.RCX, R.RAX)
        code.lea(R.RDX, HostOperand(index: R.RAX, scale: shift))
        code.alu(.add, R.RDX, .register(R.RDI))
        code.store(R.RDX, scratch(4))
        code.move(R.RDI, R.R11)
        if isMove {
            code.lea(R.RDX, HostOperand(index: R.RAX, scale: shift))
            code.alu(.add, R.RDX, .register(R.RSI))
            code.load(R.RSI, scratch(3))
        } else {
            code.load(R.RAX, scratch(0))
        }
        code.byte(0xF3)
        if shift == 1 { code.byte(0x66) }
        if shift == 3 { code.byte(0x48) }
        code.byte((isMove ? 0xA4 : 0xAA) | (shift == 0 ? 0 : 1))
        if isMove { code.move(R.RSI, R.RDX) }
        code.load(R.RDI, scratch(4))
        // CMP dword [request], 0.
        code.emit(.init(opcode: 0x83), reg: 7, field(DAVIT_OFFSET_EXIT_REQUEST))
        code.byte(0)
        code.jump(condition: Condition.zero, to: loop)
        code.emit(.init(opcode: 0x85, w: true), reg: R.R15, .register(R.R15))
        leaveIf(Condition.notZero)
        CodeEmitter.patch(done, to: code.cursor)
        restore(&code, scratch)
        code.byte(0xC3)
        for place in slow { CodeEmitter.patch(place, to: code.cursor) }
        restore(&code, scratch)
        // The numbers stand behind the JMP that follows the call: ADD [RSP], 2 without flags.
        code.load(R.R11, .memory(R.RSP, 0))
        code.lea(R.R11, .memory(R.R11, 2))
        code.store(R.R11, .memory(R.RSP, 0))
        code.jump(to: leaving)
        return start
    }

    /// Bytes from an address to the end of its page. Writes RCX.
    private static func roomInPage(_ code: inout CodeEmitter, of address: UInt8, into result: UInt8) {
        code.load32(R.RCX, .register(address))
        code.alu(.and, R.RCX, immediate: 0xFFF)
        code.loadImmediate(result, 4096)
        code.alu(.sub, result, .register(R.RCX))
    }

    /// R11 = the host's address of a linear address; returns the condition under which the TLB does not know it. Writes RCX, RDX.
    private static func hostAddress(
        _ code: inout CodeEmitter, of address: UInt8, write: Bool, _ field: (davit_offset, Int) -> HostOperand
    ) -> UInt8 {
        let array = Int32(DAVIT_TLB_ENTRIES) * 8
        code.move(R.RCX, address)
        code.shift(R.RCX, left: false, by: 12)
        code.alu(.and, R.RCX, immediate: Int32(DAVIT_TLB_ENTRIES) - 1)
        code.load(R.RDX, field(DAVIT_OFFSET_TLB_CURRENT, 0))
        code.lea(R.RDX, .memory(R.RDX, index: R.RCX, scale: 3, 0))
        code.load(R.R11, .memory(R.RDX, 2 * array))
        code.alu(.add, R.R11, .register(address))
        code.load(R.RCX, .memory(R.RDX, write ? array : 0))
        code.alu(.add, R.RCX, .register(address))
        code.alu(.cmp, R.RCX, immediate: 4096)
        return Condition.notBelow
    }

    private static func restore(_ code: inout CodeEmitter, _ scratch: (Int) -> HostOperand) {
        code.load(R.RAX, scratch(2))
        code.restoreFlags()
        code.load(R.RAX, scratch(0))
        code.load(R.RDX, scratch(1))
    }

    /// Condition codes of Jcc.
    private enum Condition {
        static let below: UInt8 = 2
        static let notBelow: UInt8 = 3
        static let zero: UInt8 = 4
        static let notZero: UInt8 = 5
    }
}

extension CodeEmitter {
    /// CMOVcc r64, r64.
    mutating func conditionalMove(_ condition: UInt8, _ to: UInt8, _ from: UInt8) {
        emit(Form(map: 1, opcode: 0x40 | condition, w: true), reg: to, .register(from))
    }
}

extension Translator {
    private typealias R = HostRegister

    /// REP MOVS and REP STOS, by a stub.
    mutating func repeatedString(_ instruction: Instruction) -> Bool {
        guard instruction.addressSize == mode.width, instruction.segment < 4 || instruction.operation == .stos,
            !instruction.prefixes.isDisjoint(with: [.rep, .repne])
        else { return false }
        let shift = instruction.operandSize.trailingZeroBitCount
        // The stub works with 64-bit registers; 32-bit code may find anything in their upper halves.
        if mode.is32Bit { for register in [R.RSI, R.RDI, R.R15] { code.load32(register, .register(register)) } }
        code.call(instruction.operation == .movs ? stubs.moveStrings[shift] : stubs.storeStrings[shift])
        code.byte(0xEB)
        code.byte(Self.numbersSize)
        numbers(instruction.operation)
        if mode.is32Bit { for register in [R.RSI, R.RDI] { code.load32(register, .register(register)) } }
        return true
    }
}
