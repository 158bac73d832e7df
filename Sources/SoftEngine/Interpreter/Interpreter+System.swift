import CDavit
import X86

extension Interpreter {
    /// System instructions, far control transfers and segment loads.
    func executeSystem(_ instruction: borrowing Instruction) throws(GuestFault) {
        switch instruction.operation {
        case .jmpFar:
            try farJump(
                selector: instruction.immediate2, offset: UInt64(bitPattern: instruction.immediate),
                size: instruction.operandSize)
        case .callFar:
            try farCall(
                selector: instruction.immediate2, offset: UInt64(bitPattern: instruction.immediate),
                size: instruction.operandSize, pushSize: instruction.operandSize)
        case .jmpFarIndirect:
            let target = try loadFarPointer(instruction)
            try farJump(selector: target.selector, offset: target.offset, size: instruction.operandSize)
        case .callFarIndirect:
            let target = try loadFarPointer(instruction)
            // AMD's CPUs know no 64-bit offset there; REX.W still makes the return address one of 64 bits.
            try farCall(
                selector: target.selector, offset: target.offset, size: instruction.operandSize,
                pushSize: instruction.prefixes.contains(.w) ? 8 : instruction.operandSize)
        case .retFar:
            try farReturn(size: instruction.operandSize, release: UInt64(bitPattern: instruction.immediate) & 0xFFFF)
        case .iret: try interruptReturn(size: instruction.operandSize)

        case .int: try softwareInterrupt(UInt8(truncatingIfNeeded: instruction.immediate), source: .software)
        case .int3: try softwareInterrupt(ExceptionVector.BP.rawValue, source: .trap)
        case .into:
            if cpu.pointee.rflags & RFLAGS.OF != 0 { try softwareInterrupt(ExceptionVector.OF.rawValue, source: .trap) }
        case .int1: try softwareInterrupt(ExceptionVector.DB.rawValue, source: .hardware)

        case .movFromSegment: try storeSegment(instruction)
        case .movToSegment:
            let selector = UInt16(truncatingIfNeeded: try loadWord(instruction))
            try loadSegment(instruction.reg, selector: selector)
            didLoadSegment(instruction.reg)
        case .pushSegment:
            // The upper part of a wider slot is zero.
            try push(UInt64(segments[Int(instruction.reg)].selector), size: instruction.operandSize)
        case .popSegment: try popSegment(instruction)
        case .les: try loadFarSegment(instruction, register: UInt8(DAVIT_ES.rawValue))
        case .lds: try loadFarSegment(instruction, register: UInt8(DAVIT_DS.rawValue))
        case .lss: try loadFarSegment(instruction, register: UInt8(DAVIT_SS.rawValue))
        case .lfs: try loadFarSegment(instruction, register: UInt8(DAVIT_FS.rawValue))
        case .lgs: try loadFarSegment(instruction, register: UInt8(DAVIT_GS.rawValue))
        case .lgdt, .lidt: try loadTableRegister(instruction)
        case .sgdt, .sidt: try storeTableRegister(instruction)
        case .lldt, .ltr: try loadSystemSegment(instruction)
        case .sldt, .str: try storeSystemSegment(instruction)
        case .lar, .lsl, .verr, .verw: try inspectSegment(instruction)
        case .arpl: try adjustPrivilege(instruction)
        case .rdfsbase, .rdgsbase, .wrfsbase, .wrgsbase: try accessSegmentBase(instruction)

        case .movFromCR, .movToCR: try moveControlRegister(instruction)
        case .movFromDR:
            writeRegister(
                instruction.rm, size: instruction.operandSize, rex: true, try readDebugRegister(instruction.reg))
        case .movToDR:
            try writeDebugRegister(
                instruction.reg, readRegister(instruction.rm, size: instruction.operandSize, rex: true))
        case .lmsw:
            try requireSupervisor()
            try loadMachineStatusWord(try loadWord(instruction))
        case .smsw: try storeWord(instruction, cpu.pointee.cr0)
        case .clts:
            try requireSupervisor()
            cpu.pointee.cr0 &= ~CR0.TS

        default: try executePrivileged(instruction)
        }
    }

    private func executePrivileged(_ instruction: borrowing Instruction) throws(GuestFault) {
        switch instruction.operation {
        case .syscall: try systemCall()
        case .sysret: try systemReturn(size: instruction.operandSize)
        case .sysenter: try systemEnter()
        case .sysexit: try systemExit(size: instruction.operandSize)
        case .swapgs: try swapGS()
        case .clac, .stac:
            guard cpu.pointee.cpl == 0 else { throw .invalidOpcode }
            let flags = cpu.pointee.rflags
            setFlags(instruction.operation == .stac ? flags | RFLAGS.AC : flags & ~RFLAGS.AC)

        case .hlt:
            try requireSupervisor()
            cpu.pointee.halted = 1
            // The other engine's interrupt controller knows what will end it.
            if system.pointee.standsIn { davit_cpu_request(cpu, DAVIT_EXIT_STOP.rawValue) }
            system.pointee.blockEnd = 0
        case .invlpg: try invalidatePage(instruction)
        case .invpcid: try invalidatePCID(instruction)
        case .invd, .wbinvd: try requireSupervisor()
        case .rdmsr:
            try requireSupervisor()
            setEDXEAX(try readMSR(UInt32(truncatingIfNeeded: gpr[GeneralRegister.RCX])))
        case .wrmsr:
            try requireSupervisor()
            system.pointee.blockEnd = 0
            try writeMSR(UInt32(truncatingIfNeeded: gpr[GeneralRegister.RCX]), edxEAX)
        case .cpuid: identify()
        case .rdtsc, .rdtscp: try readTimeStamp(instruction)
        case .rdpid: writeRegister(instruction.rm, size: instruction.operandSize, rex: true, cpu.pointee.tsc_aux)
        case .rdpmc:
            // There are no performance counters.
            throw .generalProtection
        case .xgetbv: try readExtendedControl()
        case .xsetbv:
            guard cpu.pointee.cr4 & CR4.OSXSAVE != 0 else { throw .invalidOpcode }
            try requireSupervisor()
            guard gpr[GeneralRegister.RCX] & 0xFFFF_FFFF == 0 else { throw .generalProtection }
            try writeXCR0(edxEAX)
        case .vmcall, .vmmcall:
            try declineInstruction()
            hypercall()
        default: try executeOnHost(instruction)
        }
    }

    @inline(always)
    func requireSupervisor() throws(GuestFault) {
        guard cpu.pointee.cpl == 0 else { throw .generalProtection }
    }

    @inline(always)
    var edxEAX: UInt64 { gpr[GeneralRegister.RDX] << 32 | gpr[GeneralRegister.RAX] & 0xFFFF_FFFF }

    @inline(always)
    func setEDXEAX(_ value: UInt64) {
        gpr[GeneralRegister.RAX] = value & 0xFFFF_FFFF
        gpr[GeneralRegister.RDX] = value >> 32
    }

    /// ModRM.rm as 16 bits.
    func loadWord(_ instruction: borrowing Instruction) throws(GuestFault) -> UInt64 {
        guard instruction.isMemory else { return gpr[Int(instruction.rm & 15)] & 0xFFFF }
        return try load(linear: try operandAddress(instruction, size: 2, write: false), size: 2)
    }

    /// Stores to ModRM.rm: 16 bits in memory, the operand size in a register.
    func storeWord(_ instruction: borrowing Instruction, _ value: UInt64) throws(GuestFault) {
        try requireUMIP(instruction)
        guard instruction.isMemory else {
            return writeRegister(instruction.rm, size: instruction.operandSize, rex: true, value)
        }
        try store(value, linear: try operandAddress(instruction, size: 2, write: true), size: 2)
    }

    /// SGDT, SIDT, SLDT, STR and SMSW are for level 0 alone under CR4.UMIP.
    private func requireUMIP(_ instruction: borrowing Instruction) throws(GuestFault) {
        guard instruction.operation != .movFromSegment else { return }
        if cpu.pointee.cr4 & CR4.UMIP != 0 { try requireSupervisor() }
    }

    // MARK: Segments

    private func storeSegment(_ instruction: borrowing Instruction) throws(GuestFault) {
        try storeWord(instruction, UInt64(segments[Int(instruction.reg)].selector))
    }

    private func popSegment(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = UInt64(instruction.operandSize)
        var stack = currentStack()
        let selector = UInt16(truncatingIfNeeded: try pop(size: size, from: &stack))
        let segment = try readSegment(instruction.reg, selector: selector)
        commitPointer(stack)
        segments[Int(instruction.reg)] = segment
        didLoadSegment(instruction.reg)
    }

    /// MOV SS and POP SS hold interrupts and debug traps off for one instruction.
    private func didLoadSegment(_ register: UInt8) {
        guard register == UInt8(DAVIT_SS.rawValue) else { return }
        cpu.pointee.shadow = 2
        system.pointee.blockEnd = 0
    }

    private func loadFarSegment(_ instruction: borrowing Instruction, register: UInt8) throws(GuestFault) {
        let pointer = try loadFarPointer(instruction)
        try loadSegment(register, selector: pointer.selector)
        writeRegister(instruction.reg, size: instruction.operandSize, rex: true, pointer.offset)
    }

    private func accessSegmentBase(_ instruction: borrowing Instruction) throws(GuestFault) {
        guard is64Bit, cpu.pointee.cr4 & CR4.FSGSBASE != 0 else { throw .invalidOpcode }
        let operation = instruction.operation
        let isFS = operation == .rdfsbase || operation == .wrfsbase
        let register = Int(isFS ? DAVIT_FS.rawValue : DAVIT_GS.rawValue)
        if operation == .rdfsbase || operation == .rdgsbase {
            return writeRegister(instruction.rm, size: instruction.operandSize, rex: true, segments[register].base)
        }
        let base = readRegister(instruction.rm, size: instruction.operandSize, rex: true)
        guard Self.isCanonical(base) else { throw .generalProtection }
        segments[register].base = base
    }

    // MARK: Control registers and the rest

    private func moveControlRegister(_ instruction: borrowing Instruction) throws(GuestFault) {
        try requireSupervisor()
        let size = instruction.operandSize
        if instruction.operation == .movFromCR {
            if instruction.reg == 8 { try declineInstruction() }
            return writeRegister(instruction.rm, size: size, rex: true, readControlRegister(instruction.reg))
        }
        if instruction.reg == 8 { try declineInstruction() }
        try writeControlRegister(instruction.reg, readRegister(instruction.rm, size: size, rex: true))
    }

    private func readTimeStamp(_ instruction: borrowing Instruction) throws(GuestFault) {
        if cpu.pointee.cr4 & CR4.TSD != 0 { try requireSupervisor() }
        setEDXEAX(guestTSC)
        if instruction.operation == .rdtscp { gpr[GeneralRegister.RCX] = cpu.pointee.tsc_aux & 0xFFFF_FFFF }
    }

    private func readExtendedControl() throws(GuestFault) {
        guard cpu.pointee.cr4 & CR4.OSXSAVE != 0 else { throw .invalidOpcode }
        switch gpr[GeneralRegister.RCX] & 0xFFFF_FFFF {
        case 0: setEDXEAX(cpu.pointee.xcr0)
        // XINUSE: which components are not in their initial state.
        case 1 where cpuid.hasXINUSE: setEDXEAX(cpu.pointee.xcr0 & extendedStateInUse)
        default: throw .generalProtection
        }
    }

    /// XSTATE_BV of the saved state.
    private var extendedStateInUse: UInt64 {
        // Safe: the header lies at byte 512 of the 1024.
        UnsafeRawPointer(davit_cpu_xsave(cpu)).loadUnaligned(fromByteOffset: 512, as: UInt64.self)
    }

    private func identify() {
        let leaf = UInt32(truncatingIfNeeded: gpr[GeneralRegister.RAX])
        let subleaf = UInt32(truncatingIfNeeded: gpr[GeneralRegister.RCX])
        let answer =
            system.pointee.standsIn
            ? foreignAnswer(leaf: leaf, subleaf: subleaf)
            : cpuid.answer(leaf: leaf, subleaf: subleaf, cpu: cpu, apicID: apicID)
        gpr[GeneralRegister.RAX] = UInt64(answer.eax)
        gpr[GeneralRegister.RBX] = UInt64(answer.ebx)
        gpr[GeneralRegister.RCX] = UInt64(answer.ecx)
        gpr[GeneralRegister.RDX] = UInt64(answer.edx)
    }

    private func hypercall() {
        guard cpu.pointee.cpl == 0 else {
            gpr[GeneralRegister.RAX] = KVMInterface.notPermitted
            return
        }
        guard gpr[GeneralRegister.RAX] == KVMInterface.kick, let apic else {
            gpr[GeneralRegister.RAX] = KVMInterface.noSuchCall
            return
        }
        apic.bus.kick(gpr[GeneralRegister.RCX])
        gpr[GeneralRegister.RAX] = 0
    }

    private func invalidatePage(_ instruction: borrowing Instruction) throws(GuestFault) {
        try requireSupervisor()
        // No limit or canonical check: such an address just names nothing.
        let offset = effectiveOffset(instruction)
        let segment = instruction.segment
        let hasBase = !is64Bit || segment >= 4
        let linear = hasBase ? offset &+ segments[Int(segment)].base : offset
        flushTLB(page: systemAddress(linear))
        system.pointee.blockEnd = 0
    }

    /// INVPCID (SDM vol. 2): types 0 address, 1 one PCID, 2 all with global pages, 3 all without.
    private func invalidatePCID(_ instruction: borrowing Instruction) throws(GuestFault) {
        guard isProtected, !isVirtual8086 else { throw .invalidOpcode }
        try requireSupervisor()
        let address = try operandAddress(instruction, size: 16, write: false)
        let pcid = try load(linear: address, size: 8)
        let linear = try load(linear: address &+ 8, size: 8)
        let type = readRegister(instruction.reg, size: is64Bit ? 8 : 4, rex: true)
        guard type <= 3, pcid >> 12 == 0 || type >= 2 else { throw .generalProtection }
        if type < 2 && cpu.pointee.cr4 & CR4.PCIDE == 0 && pcid != 0 { throw .generalProtection }
        if type == 0 && !Self.isCanonical(linear) { throw .generalProtection }
        system.pointee.blockEnd = 0
        switch type {
        case 0:
            if pcid == cpu.pointee.pcid { flushTLB(page: linear) } else { flushTLB(pcid: pcid) }
        case 1: flushTLB(pcid: pcid)
        case 2: flushTLB()
        default:
            for pcid in 0..<4096 { pcidGenerations[pcid] &+= 1 }
            forgetAllJumps()
            flushFirstLevel(keepingGlobal: true)
        }
    }
}
