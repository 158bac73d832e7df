import CDavit
import X86

/// What is delivered through the interrupt table.
struct InterruptEvent: BitwiseCopyable {
    enum Source {
        /// INT n: the gate's DPL is checked, and IOPL in v8086 mode.
        case software
        /// INT3 and INTO: the gate's DPL is checked.
        case trap
        /// Exceptions, NMI, INT1 and interrupts from outside.
        case hardware
    }

    var vector: UInt8
    var source: Source
    var errorCode: UInt32 = 0
    var hasErrorCode = false
    /// Where the handler returns to.
    var returnAddress: UInt64
    /// The saved flags have RF set: faults, so that the restarted instruction meets no breakpoint again.
    var setsResume = false
}

// Delivery of interrupts and exceptions (Intel SDM vol. 3, chapter 6 and 20.1.4).
extension Interpreter {
    /// Enters the handler: `cpu.rip` and `next_rip` are its address. Throws a fault met on the way, nothing committed
    /// (but for a task switch).
    func deliver(_ event: InterruptEvent) throws(GuestFault) {
        system.pointee.externalEvent = event.source == .hardware ? 1 : 0
        defer { system.pointee.externalEvent = 0 }
        if !isProtected {
            try deliverInRealMode(event)
        } else if isLong {
            try deliverInLongMode(event)
        } else {
            try deliverInProtectedMode(event)
        }
        cpu.pointee.rip = cpu.pointee.next_rip
        cpu.pointee.shadow = 0
        cpu.pointee.halted = 0
        system.pointee.blockEnd = 0
    }

    private func savedFlags(_ event: InterruptEvent) -> UInt64 {
        event.setsResume ? cpu.pointee.rflags | RFLAGS.RF : cpu.pointee.rflags
    }

    private func deliverInRealMode(_ event: InterruptEvent) throws(GuestFault) {
        let offset = UInt64(event.vector) &* 4
        guard offset &+ 3 <= UInt64(cpu.pointee.idtr.limit) else { throw gateFault(event, size: 8) }
        let entry = try systemLoad(linear: systemAddress(cpu.pointee.idtr.base &+ offset), size: 4)
        var code = segments[Int(DAVIT_CS.rawValue)]
        var stack = currentStack()
        try push(cpu.pointee.rflags & 0xFFFF, size: 2, on: &stack)
        try push(UInt64(code.selector), size: 2, on: &stack)
        try push(event.returnAddress & 0xFFFF, size: 2, on: &stack)
        commitPointer(stack)
        code.selector = UInt16(truncatingIfNeeded: entry >> 16)
        code.base = UInt64(code.selector) << 4
        cpu.pointee.next_rip = entry & 0xFFFF
        setCodeSegment(code, cpl: 0)
        setFlags(cpu.pointee.rflags & ~(RFLAGS.IF | RFLAGS.TF | RFLAGS.AC | RFLAGS.RF))
    }

    /// A fault that names an entry of the interrupt table.
    private func gateFault(_ event: InterruptEvent, _ vector: ExceptionVector = .GP, size: UInt32) -> GuestFault {
        // The bit IDT stands at 1, the index from bit 3 on; real mode pushes no error code, whatever is in it.
        GuestFault(vector, errorCode: UInt32(event.vector) &* 8 | 2 | system.pointee.externalEvent)
    }

    /// Reads the gate and checks what does not depend on its target.
    private func readGate(_ event: InterruptEvent) throws(GuestFault) -> Descriptor {
        let size: UInt64 = isLong ? 16 : 8
        let offset = UInt64(event.vector) &* size
        guard offset &+ size &- 1 <= UInt64(cpu.pointee.idtr.limit) else { throw gateFault(event, size: 8) }
        let address = systemAddress(cpu.pointee.idtr.base &+ offset)
        var gate = Descriptor(low: try systemLoad(linear: address, size: 8), address: address)
        if isLong { gate.high = try systemLoad(linear: address &+ 8, size: 8) }
        switch gate.type {
        case SystemDescriptorType.interruptGate, SystemDescriptorType.trapGate: break
        case SystemDescriptorType.interruptGate16 where !isLong, SystemDescriptorType.trapGate16 where !isLong,
            SystemDescriptorType.taskGate where !isLong:
            break
        default: throw gateFault(event, size: 8)
        }
        if event.source != .hardware && gate.dpl < cpu.pointee.cpl { throw gateFault(event, size: 8) }
        guard gate.isPresent else { throw gateFault(event, .NP, size: 8) }
        return gate
    }

    private func readHandler(_ selector: UInt16) throws(GuestFault) -> Descriptor {
        guard !Self.isNull(selector) else { throw fault(.GP) }
        var code = try readDescriptor(selector)
        guard code.isCode, code.dpl <= cpu.pointee.cpl else { throw fault(.GP, selector: selector) }
        if isLong && !(code.isLongCode && !code.isBig) { throw fault(.GP, selector: selector) }
        guard code.isPresent else { throw fault(.NP, selector: selector) }
        try markAccessed(&code)
        return code
    }

    private func deliverInProtectedMode(_ event: InterruptEvent) throws(GuestFault) {
        if isVirtual8086 && event.source == .software && iopl < 3 { throw GuestFault(.GP, errorCode: 0) }
        let gate = try readGate(event)
        if gate.type == SystemDescriptorType.taskGate { return try deliverToTask(event, gate: gate) }
        let selector = gate.gateSelector
        let code = try readHandler(selector)
        let is32 = gate.type & 8 != 0
        let width: UInt64 = is32 ? 4 : 2
        let entry = is32 ? gate.gateOffset & 0xFFFF_FFFF : gate.low & 0xFFFF
        let isInner = !code.isConforming && code.dpl < cpu.pointee.cpl
        // From v8086 mode every handler runs at level 0.
        if isVirtual8086 && !(isInner && code.dpl == 0) { throw fault(.GP, selector: selector) }
        let cpl = isInner ? code.dpl : cpu.pointee.cpl
        let segment = code.segment(selector: selector & 0xFFFC | UInt16(truncatingIfNeeded: cpl))

        var stack: StagedStack
        if isInner {
            stack = try innerStack(cpl: cpl, interruptStack: 0)
            if isVirtual8086 {
                for register in [DAVIT_GS, DAVIT_FS, DAVIT_DS, DAVIT_ES] {
                    try push(UInt64(segments[Int(register.rawValue)].selector), size: width, on: &stack)
                }
            }
            try push(UInt64(segments[Int(DAVIT_SS.rawValue)].selector), size: width, on: &stack)
            try push(gpr[GeneralRegister.RSP], size: width, on: &stack)
        } else {
            stack = currentStack()
        }
        try push(savedFlags(event), size: width, on: &stack)
        try push(UInt64(segments[Int(DAVIT_CS.rawValue)].selector), size: width, on: &stack)
        try push(event.returnAddress, size: width, on: &stack)
        if event.hasErrorCode { try push(UInt64(event.errorCode), size: width, on: &stack) }
        try checkTarget(entry, in: segment)

        if isVirtual8086 {
            for register in [DAVIT_GS, DAVIT_FS, DAVIT_DS, DAVIT_ES] {
                segments[Int(register.rawValue)] = davit_segment(base: 0, limit: 0, selector: 0, attributes: 0)
            }
        }
        if isInner { segments[Int(DAVIT_SS.rawValue)] = stack.segment }
        commitPointer(stack)
        enterHandler(segment, cpl: cpl, entry: entry, gate: gate)
    }

    private func deliverInLongMode(_ event: InterruptEvent) throws(GuestFault) {
        let gate = try readGate(event)
        let selector = gate.gateSelector
        let code = try readHandler(selector)
        let isInner = !code.isConforming && code.dpl < cpu.pointee.cpl
        let cpl = isInner ? code.dpl : cpu.pointee.cpl
        let segment = code.segment(selector: selector & 0xFFFC | UInt16(truncatingIfNeeded: cpl))
        let old = segments[Int(DAVIT_SS.rawValue)].selector
        let oldPointer = gpr[GeneralRegister.RSP]

        var stack: StagedStack
        if isInner || gate.interruptStack != 0 {
            stack = try innerStack(cpl: cpl, interruptStack: gate.interruptStack)
        } else {
            stack = self.stack(segments[Int(DAVIT_SS.rawValue)], pointer: oldPointer, cpl: cpl, is64Bit: true)
        }
        stack.pointer &= ~15
        try push(UInt64(old), size: 8, on: &stack)
        try push(oldPointer, size: 8, on: &stack)
        try push(savedFlags(event), size: 8, on: &stack)
        try push(UInt64(segments[Int(DAVIT_CS.rawValue)].selector), size: 8, on: &stack)
        try push(event.returnAddress, size: 8, on: &stack)
        if event.hasErrorCode { try push(UInt64(event.errorCode), size: 8, on: &stack) }
        try checkTarget(gate.gateOffset, in: segment)

        if isInner { segments[Int(DAVIT_SS.rawValue)] = Self.nullStackSegment(cpl: cpl) }
        gpr[GeneralRegister.RSP] = stack.pointer
        enterHandler(segment, cpl: cpl, entry: gate.gateOffset, gate: gate)
    }

    private func enterHandler(_ segment: davit_segment, cpl: UInt32, entry: UInt64, gate: Descriptor) {
        cpu.pointee.next_rip = entry
        // The flags first: AC and CPL together choose the TLB.
        var flags = cpu.pointee.rflags & ~(RFLAGS.TF | RFLAGS.VM | RFLAGS.RF | RFLAGS.NT)
        if gate.type & 1 == 0 { flags &= ~RFLAGS.IF }
        setFlags(flags)
        setCodeSegment(segment, cpl: cpl)
    }

    private func deliverToTask(_ event: InterruptEvent, gate: Descriptor) throws(GuestFault) {
        let flags = cpu.pointee.rflags
        cpu.pointee.rflags = savedFlags(event)
        do throws(GuestFault) {
            try switchTask(gate.gateSelector, cause: .call, returnTo: event.returnAddress)
        } catch {
            if cpu.pointee.rflags == flags | RFLAGS.RF { cpu.pointee.rflags = flags }
            throw error
        }
        if event.hasErrorCode {
            let is32 = segments[Int(DAVIT_TR.rawValue)].type & 8 != 0
            var stack = currentStack()
            try push(UInt64(event.errorCode), size: is32 ? 4 : 2, on: &stack)
            commitPointer(stack)
        }
    }
}
