import CDavit

/// The fixed pieces at the start of code memory: the way in, and the ways out.
struct Stubs {
    /// `void enter(davit_cpu *, )`: loads the guest's registers and jumps to `davit_cpu.code`.
    let enter: UnsafeMutablePointer<UInt8>
    /// Jumped to with R11 = guest RIP to go on at.
    let lookup: UnsafeMutablePointer<UInt8>
    /// Called; the number of the link follows the call as 32 bits. R11 = guest RIP.
    let link: UnsafeMutablePointer<UInt8>
    /// Called with R11 = a guest address that the jump cache does not know; goes on behind the call once it does.
    let indirect: UnsafeMutablePointer<UInt8>
    /// Called at the instruction that the interpreter is to carry out; the numbers of its unit and boundary follow, 32 bits each.
    let interpret: UnsafeMutablePointer<UInt8>
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
        // First the pop: until then RSP is 8 below the state.
        Self.popExitPC(&code)
        code.store(HostRegister.R11, CPUField.at(DAVIT_OFFSET_RIP))
        Self.reason(&code, DAVIT_LEAVE_LINK, leave)
        indirect = code.cursor
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
    }

    /// POP m64: RSP counts as already moved on when the address is formed, so this is the state's own field.
    private static func popExitPC(_ code: inout CodeEmitter) {
        code.emit(.init(opcode: 0x8F), reg: 0, CPUField.at(DAVIT_OFFSET_EXIT_PC))
    }

    private static func reason(_ code: inout CodeEmitter, _ reason: davit_leave, _ leave: UnsafeMutablePointer<UInt8>) {
        code.store32(immediate: Int32(reason.rawValue), CPUField.at(DAVIT_OFFSET_EXIT_REASON))
        code.jump(to: leave)
    }

    private static func emitMiss(_ code: inout CodeEmitter, _ why: davit_leave, _ leave: UnsafeMutablePointer<UInt8>) {
        // The return address is on the stack: RSP is 8 below the state.
        popExitPC(&code)
        code.store(HostRegister.R11, CPUField.at(DAVIT_OFFSET_EXIT_VALUE))
        code.store32(HostRegister.RCX, CPUField.at(DAVIT_OFFSET_EXIT_DETAIL))
        reason(&code, why, leave)
    }

    /// All guest registers into `davit_cpu`, the host's back, return to the caller of `enter`.
    private static func emitLeave(_ code: inout CodeEmitter) {
        typealias R = HostRegister
        for guest: UInt8 in 0..<16 where GuestRegisters.host(guest) != R.none {
            code.store(GuestRegisters.host(guest), GuestRegisters.slot(guest))
        }
        // rflags |= flags & arithmetic; what it held of these was cleared on the way in.
        code.loadFlags(R.RAX)
        code.emit(.init(opcode: 0x81, w: true), reg: 4, .register(R.RAX))
        code.int32(0x8D5)
        code.emit(.init(opcode: 0x09, w: true), reg: R.RAX, CPUField.at(DAVIT_OFFSET_RFLAGS))
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
        for i: UInt8 in 0..<16 {
            // VMOVUPS xmm, [image]; VINSERTF128 ymm, ymm, [image], 1.
            code.emit(.init(map: 1, opcode: 0x10, vex: true), reg: i, xmm(i))
            code.emit(.init(prefix: 0x66, map: 3, opcode: 0x18, vex: true, l: true, vvvv: i), reg: i, ymmHigh(i))
            code.byte(1)
        }
        // Flags: OF by an addition that overflows, the others by SAHF (POPF is several times slower).
        code.load(R.RCX, CPUField.at(DAVIT_OFFSET_RFLAGS))
        code.load(R.RDX, .register(R.RCX))
        code.emit(.init(opcode: 0x81, w: true), reg: 4, .register(R.RDX))
        code.int32(~0x8D5)
        code.store(R.RDX, CPUField.at(DAVIT_OFFSET_RFLAGS))
        code.load(R.RAX, .register(R.RCX))
        code.emit(.init(opcode: 0xC1), reg: 4, .register(R.RAX))  // SHL EAX, 8: flags into AH
        code.byte(8)
        code.emit(.init(opcode: 0xC1), reg: 5, .register(R.RCX))  // SHR ECX, 11: OF into CL bit 0
        code.byte(11)
        code.emit(.init(opcode: 0x80), reg: 4, .register(R.RCX))  // AND CL, 1
        code.byte(1)
        code.emit(.init(opcode: 0x80), reg: 0, .register(R.RCX))  // ADD CL, 7F
        code.byte(0x7F)
        code.byte(0x9E)  // SAHF
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
