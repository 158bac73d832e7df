import CDavit
import X86

/// The fixed pieces at the start of code memory: the way in, and the ways out.
struct Stubs {
    /// `void enter(davit_cpu *, )`: loads the guest's registers and jumps to `davit_cpu.code`.
    let enter: UnsafeMutablePointer<UInt8>
    /// Jumped to with R11 = guest RIP to go on at, when the run loop has something to do.
    let lookup: UnsafeMutablePointer<UInt8>
    /// Jumped to with R11 = guest RIP to go on at, which the jump cache's first level does not know.
    let find: UnsafeMutablePointer<UInt8>
    /// Called; the number of the link follows the call as 32 bits. R11 = guest RIP.
    let link: UnsafeMutablePointer<UInt8>
    /// The same, to a plain unit.
    let linkPlain: UnsafeMutablePointer<UInt8>
    /// Called with R11 = a guest address that the jump cache does not know; goes on behind the call once it does.
    let indirect: UnsafeMutablePointer<UInt8>
    /// Called at the instruction that the interpreter is to carry out; the numbers of its unit, boundary and operation follow, 32 bits each.
    let interpret: UnsafeMutablePointer<UInt8>
    /// Called at a repeated MOVS or STOS: does what it can and returns behind the call, or leaves as `interpret` does; the numbers
    /// follow two bytes behind the call. By the logarithm of the element's size.
    let moveStrings: InlineArray<4, UnsafeMutablePointer<UInt8>>
    let storeStrings: InlineArray<4, UnsafeMutablePointer<UInt8>>
    /// Called with R11 = linear address, ECX = size; a JMP back to the start of the check follows the call.
    let readMiss: UnsafeMutablePointer<UInt8>
    let writeMiss: UnsafeMutablePointer<UInt8>
    /// Signal handlers go on here after noting `exit_pc`.
    let fault: UnsafeMutablePointer<UInt8>
    /// Called: brings the x87 state from the image into the host's registers.
    let loadX87: UnsafeMutablePointer<UInt8>

    init(_ code: inout CodeEmitter) {
        let leave = code.cursor
        Self.emitLeave(&code)
        enter = code.cursor
        Self.emitEnter(&code)
        lookup = code.cursor
        code.store(HostRegister.R11, CPUField.at(DAVIT_OFFSET_RIP))
        Self.reason(&code, DAVIT_LEAVE_LOOKUP, leave)
        link = code.cursor
        Self.emitLink(&code, DAVIT_LEAVE_LINK, leave)
        linkPlain = code.cursor
        Self.emitLink(&code, DAVIT_LEAVE_LINK_PLAIN, leave)
        find = code.cursor
        Self.emitFind(&code, isCall: false)
        code.jump(to: lookup)
        indirect = code.cursor
        Self.emitFind(&code, isCall: true)
        Self.popExitPC(&code)
        code.store(HostRegister.R11, CPUField.at(DAVIT_OFFSET_EXIT_VALUE))
        Self.reason(&code, DAVIT_LEAVE_INDIRECT, leave)
        interpret = code.cursor
        Self.popExitPC(&code)
        Self.reason(&code, DAVIT_LEAVE_INTERPRET, leave)
        readMiss = code.cursor
        Self.emitMiss(&code, DAVIT_LEAVE_READ_MISS, leave)
        writeMiss = code.cursor
        Self.emitMiss(&code, DAVIT_LEAVE_WRITE_MISS, leave)
        fault = code.cursor
        Self.reason(&code, DAVIT_LEAVE_FAULT, leave)
        loadX87 = code.cursor
        Self.emitLoadX87(&code)
        let interpret = interpret
        moveStrings = InlineArray { Self.emitString(&code, shift: UInt8($0), isMove: true, leaving: interpret) }
        storeStrings = InlineArray { Self.emitString(&code, shift: UInt8($0), isMove: false, leaving: interpret) }
    }

    /// POP m64: RSP counts as already moved on when the address is formed, so this is the state's own field.
    private static func popExitPC(_ code: inout CodeEmitter) {
        code.emit(.init(opcode: 0x8F), reg: 0, CPUField.at(DAVIT_OFFSET_EXIT_PC))
    }

    private static func emitLink(_ code: inout CodeEmitter, _ why: davit_leave, _ leave: UnsafeMutablePointer<UInt8>) {
        // First the pop: until then RSP is 8 below the state.
        popExitPC(&code)
        code.store(HostRegister.R11, CPUField.at(DAVIT_OFFSET_RIP))
        reason(&code, why, leave)
    }

    private static func reason(_ code: inout CodeEmitter, _ reason: davit_leave, _ leave: UnsafeMutablePointer<UInt8>) {
        code.store32(immediate: Int32(reason.rawValue), CPUField.at(DAVIT_OFFSET_EXIT_REASON))
        code.jump(to: leave)
    }

    /// A TLB miss: asks the second level, by a C function that leaves vector registers alone, before it leaves.
    private static func emitMiss(_ code: inout CodeEmitter, _ why: davit_leave, _ leave: UnsafeMutablePointer<UInt8>) {
        typealias R = HostRegister
        // Entered by CALL: the state is 8 above RSP.
        func field(_ offset: davit_offset, _ plus: Int = 0) -> HostOperand { CPUField.at(offset, plus: plus + 8) }
        code.store(R.R11, field(DAVIT_OFFSET_EXIT_VALUE))
        code.store32(R.RCX, field(DAVIT_OFFSET_EXIT_DETAIL))
        // What a C function may change; of these RCX and R11 are scratch registers.
        let kept = [R.RAX, R.RDX, R.RSI, R.RDI, R.R8, R.R9, R.R10]
        for register in kept { code.store(register, field(DAVIT_OFFSET_GPR, 8 * Int(register))) }
        code.saveFlags()
        code.store(R.RAX, field(DAVIT_OFFSET_SCRATCH))
        code.lea(R.RDI, .memory(R.RSP, 8))
        code.load(R.RSI, .register(R.R11))
        code.load32(R.RDX, .register(R.RCX))
        code.loadImmediate(R.RCX, why == DAVIT_LEAVE_WRITE_MISS ? 1 : 0)
        // The stack is to be aligned to 16 bytes at the call.
        code.lea(R.RSP, .memory(R.RSP, -8))
        typealias Refill = @convention(c) (UnsafeMutablePointer<davit_cpu>, UInt64, UInt64, UInt64) -> Bool
        let refill: Refill = davit_tlb_refill
        code.loadImmediate(R.RAX, UInt64(UInt(bitPattern: unsafeBitCast(refill, to: UnsafeRawPointer.self))))
        code.emit(.init(opcode: 0xFF), reg: 2, .register(R.RAX))
        code.lea(R.RSP, .memory(R.RSP, 8))
        code.emit(.init(map: 1, opcode: 0xB6), reg: R.RCX, .register(R.RAX))
        code.load(R.RAX, field(DAVIT_OFFSET_SCRATCH))
        code.restoreFlags()
        for register in kept { code.load(register, field(DAVIT_OFFSET_GPR, 8 * Int(register))) }
        code.load(R.R11, field(DAVIT_OFFSET_EXIT_VALUE))
        code.jrcxz(over: 1)
        code.byte(0xC3)
        popExitPC(&code)
        reason(&code, why, leave)
    }

    /// Looks for the guest address in R11 in the second level of the jump cache. If it is there the first level gets it too, and this goes on
    /// there, or back behind the call; else what follows runs, with everything as it came but RCX.
    private static func emitFind(_ code: inout CodeEmitter, isCall: Bool) {
        typealias R = HostRegister
        let above = isCall ? 8 : 0
        func field(_ offset: davit_offset, _ plus: Int = 0) -> HostOperand { CPUField.at(offset, plus: plus + above) }
        func element(_ offset: davit_offset, _ index: UInt8, _ plus: Int = 0) -> HostOperand {
            var operand = field(offset, plus)
            operand.index = index
            operand.scale = 3
            return operand
        }
        func restore() {
            code.load(R.RAX, field(DAVIT_OFFSET_SCRATCH, 16))
            code.restoreFlags()
            code.load(R.RAX, field(DAVIT_OFFSET_SCRATCH))
            code.load(R.RDX, field(DAVIT_OFFSET_SCRATCH, 8))
        }
        code.store(R.RAX, field(DAVIT_OFFSET_SCRATCH))
        code.store(R.RDX, field(DAVIT_OFFSET_SCRATCH, 8))
        code.saveFlags()
        code.store(R.RAX, field(DAVIT_OFFSET_SCRATCH, 16))
        // RCX = entry, by the bits of RIP ^ RIP >> 11.
        code.move(R.RCX, R.R11)
        code.shift(R.RCX, left: false, by: 11)
        code.alu(.xor, R.RCX, .register(R.R11))
        code.alu(.and, R.RCX, immediate: Int32(DAVIT_JUMPS) - 1)
        code.shift(R.RCX, left: true, by: 4)
        code.alu(.add, R.RCX, field(DAVIT_OFFSET_JUMPS))
        code.load32(R.RAX, field(DAVIT_OFFSET_TLB_MODE))
        code.load(R.RDX, element(DAVIT_OFFSET_JUMP_TAGS, R.RAX))
        code.alu(.xor, R.RDX, .register(R.R11))
        code.alu(.cmp, R.RDX, .memory(R.RCX, 0))
        code.jump(condition: 5, to: code.cursor)
        let miss = code.cursor - 4
        code.load(R.RCX, .memory(R.RCX, 8))
        // RDX = place in the first level: the half, 2048 entries for kernels, and the index of RIP in it, RAX.
        code.alu(.cmp, R.RAX, immediate: 1)
        code.alu(.sbb, R.RDX, .register(R.RDX))
        code.alu(.add, R.RDX, immediate: 1)
        code.shift(R.RDX, left: true, by: 11)
        code.pext(R.RAX, R.R11, mask: field(DAVIT_OFFSET_JUMP_INDEX_MASK))
        code.alu(.add, R.RDX, .register(R.RAX))
        code.store(R.RCX, element(DAVIT_OFFSET_JUMP_TARGET, R.RDX))
        code.load32(R.RAX, field(DAVIT_OFFSET_TLB_MODE))
        code.load(R.RCX, element(DAVIT_OFFSET_JUMP_NUMBERS, R.RAX))
        code.alu(.add, R.RCX, .register(R.R11))
        code.emit(.init(opcode: 0xF7, w: true), reg: 3, .register(R.RCX))  // NEG
        code.store(R.RCX, element(DAVIT_OFFSET_JUMP_KEY, R.RDX))
        // Its group, a 64th of the half, holds something.
        code.move(R.RCX, R.RDX)
        code.shift(R.RCX, left: false, by: 5)
        code.loadImmediate(R.RAX, 1)
        code.emit(.init(opcode: 0xD3, w: true), reg: 4, .register(R.RAX))  // SHL RAX, CL: modulo 64
        code.move(R.RCX, R.RDX)
        code.shift(R.RCX, left: false, by: 11)
        code.emit(.init(opcode: 0x09, w: true), reg: R.RAX, element(DAVIT_OFFSET_JUMP_GROUPS, R.RCX))
        if !isCall {
            code.load(R.RCX, element(DAVIT_OFFSET_JUMP_TARGET, R.RDX))
            code.store(R.RCX, field(DAVIT_OFFSET_SCRATCH, 24))
        }
        restore()
        if isCall { code.byte(0xC3) } else { code.jump(field(DAVIT_OFFSET_SCRATCH, 24)) }
        CodeEmitter.patch(miss, to: code.cursor)
        restore()
    }

    /// All guest registers into `davit_cpu`, the host's back, return to the caller of `enter`.
    private static func emitLeave(_ code: inout CodeEmitter) {
        typealias R = HostRegister
        for guest: UInt8 in 0..<16 where GuestRegisters.host(guest) != R.none {
            code.store(GuestRegisters.host(guest), GuestRegisters.slot(guest))
        }
        // What RFLAGS held of these was cleared on the way in.
        code.storeArithmeticFlags()
        code.emit(.init(opcode: 0x09, w: true), reg: R.RCX, CPUField.at(DAVIT_OFFSET_RFLAGS))
        // x87, only if it is in the registers: XSAVE of component 0.
        code.emit(.init(opcode: 0x83), reg: 7, CPUField.at(DAVIT_OFFSET_X87_IN_IMAGE))
        code.byte(0)
        code.byte(0x75)  // JNE over the XSAVE
        let skip = code.cursor
        code.byte(0)
        code.loadImmediate(R.RAX, 1)
        code.loadImmediate(R.RDX, 0)
        code.emit(.init(map: 1, opcode: 0xAE, w: true), reg: 4, CPUField.at(DAVIT_OFFSET_XSAVE))
        code.store32(immediate: 1, CPUField.at(DAVIT_OFFSET_X87_IN_IMAGE))
        // FNINIT: nobody's pending exception may hit the host's own code.
        code.byte(0xDB)
        code.byte(0xE3)
        skip.pointee = UInt8(code.cursor - skip - 1)
        // STMXCSR, LDMXCSR.
        code.emit(.init(map: 1, opcode: 0xAE), reg: 3, CPUField.at(DAVIT_OFFSET_XSAVE, plus: 24))
        code.emit(.init(map: 1, opcode: 0xAE), reg: 2, CPUField.at(DAVIT_OFFSET_HOST_MXCSR))
        for i: UInt8 in 0..<16 {
            // VMOVUPS [image], xmm; VEXTRACTF128 [image], ymm, 1.
            code.emit(.init(map: 1, opcode: 0x11, vex: true), reg: i, xmm(i))
            code.emit(.init(prefix: 0x66, map: 3, opcode: 0x19, vex: true, l: true), reg: i, ymmHigh(i))
            code.byte(1)
        }
        // VZEROUPPER.
        code.byte(0xC5)
        code.byte(0xF8)
        code.byte(0x77)
        code.load(R.RSP, CPUField.at(DAVIT_OFFSET_HOST_RSP))
        for register in [R.R15, R.R14, R.R13, R.R12] {
            code.byte(0x41)
            code.byte(0x58 | register & 7)
        }
        code.byte(0x58 | R.RBX)
        code.byte(0x58 | R.RBP)
        code.byte(0xC3)
    }

    private static func emitEnter(_ code: inout CodeEmitter) {
        typealias R = HostRegister
        code.byte(0x50 | R.RBP)
        code.byte(0x50 | R.RBX)
        for register in [R.R12, R.R13, R.R14, R.R15] {
            code.byte(0x41)
            code.byte(0x50 | register & 7)
        }
        code.store(R.RSP, .memory(R.RDI, Int32(DAVIT_OFFSET_HOST_RSP.rawValue)))
        code.move(R.RSP, R.RDI)
        code.emit(.init(map: 1, opcode: 0xAE), reg: 3, CPUField.at(DAVIT_OFFSET_HOST_MXCSR))
        code.emit(.init(map: 1, opcode: 0xAE), reg: 2, CPUField.at(DAVIT_OFFSET_XSAVE, plus: 24))
        // Upper halves that are all zero are left as VMOVUPS leaves them: once written they cost SSE instructions a merge each.
        // VMOVDQU ymm0; seven times VPOR ymm0, ymm0; VPTEST ymm0, ymm0.
        code.emit(.init(prefix: 0xF3, map: 1, opcode: 0x6F, vex: true, l: true), reg: 0, ymmHigh(0))
        for i: UInt8 in 1..<8 {
            code.emit(.init(prefix: 0x66, map: 1, opcode: 0xEB, vex: true, l: true, vvvv: 0), reg: 0, ymmHigh(2 * i))
        }
        code.emit(.init(prefix: 0x66, map: 2, opcode: 0x17, vex: true, l: true), reg: 0, .register(0))
        // VMOVUPS xmm, [image].
        for i: UInt8 in 0..<16 { code.emit(.init(map: 1, opcode: 0x10, vex: true), reg: i, xmm(i)) }
        code.jump(condition: 4, to: code.cursor)
        let noUpperHalves = code.cursor - 4
        for i: UInt8 in 0..<16 {
            // VINSERTF128 ymm, ymm, [image], 1.
            code.emit(.init(prefix: 0x66, map: 3, opcode: 0x18, vex: true, l: true, vvvv: i), reg: i, ymmHigh(i))
            code.byte(1)
        }
        CodeEmitter.patch(noUpperHalves, to: code.cursor)
        code.load(R.RCX, CPUField.at(DAVIT_OFFSET_RFLAGS))
        code.move(R.RAX, R.RCX)
        code.move(R.RDX, R.RCX)
        code.alu(.and, R.RDX, immediate: ~Int32(RFLAGS.arithmetic))
        code.store(R.RDX, CPUField.at(DAVIT_OFFSET_RFLAGS))
        code.loadArithmeticFlags()
        for guest: UInt8 in 0..<16 where GuestRegisters.host(guest) != R.none {
            code.load(GuestRegisters.host(guest), GuestRegisters.slot(guest))
        }
        // A TLB miss is resumed with the address where its check expects it.
        code.load(R.R11, CPUField.at(DAVIT_OFFSET_EXIT_VALUE))
        code.jump(CPUField.at(DAVIT_OFFSET_CODE))
    }

    private static func emitLoadX87(_ code: inout CodeEmitter) {
        typealias R = HostRegister
        // Entered by CALL: the state is 8 further up.
        func field(_ offset: davit_offset, _ plus: Int = 0) -> HostOperand { CPUField.at(offset, plus: plus + 8) }
        code.store(R.RAX, field(DAVIT_OFFSET_SCRATCH))
        code.store(R.RDX, field(DAVIT_OFFSET_SCRATCH, 8))
        // The image's header is nobody's: for XRSTOR it says that x87 is there, in the standard format. MOV m64, imm32 twice.
        for (offset, value): (Int, Int32) in [(512, 1), (520, 0)] {
            code.emit(.init(opcode: 0xC7, w: true), reg: 0, field(DAVIT_OFFSET_XSAVE, offset))
            code.int32(value)
        }
        code.loadImmediate(R.RAX, 1)
        code.loadImmediate(R.RDX, 0)
        code.emit(.init(map: 1, opcode: 0xAE, w: true), reg: 5, field(DAVIT_OFFSET_XSAVE))
        code.store32(immediate: 0, field(DAVIT_OFFSET_X87_IN_IMAGE))
        code.load(R.RAX, field(DAVIT_OFFSET_SCRATCH))
        code.load(R.RDX, field(DAVIT_OFFSET_SCRATCH, 8))
        code.byte(0xC3)
    }

    private static func xmm(_ i: UInt8) -> HostOperand { CPUField.at(DAVIT_OFFSET_XSAVE, plus: 160 + 16 * Int(i)) }
    private static func ymmHigh(_ i: UInt8) -> HostOperand { CPUField.at(DAVIT_OFFSET_XSAVE, plus: 576 + 16 * Int(i)) }
}
