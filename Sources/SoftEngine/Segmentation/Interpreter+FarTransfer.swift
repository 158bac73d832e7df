import CDavit
import X86

// Far JMP, CALL and RET (Intel SDM vol. 2; vol. 3, 5.8).
extension Interpreter {
    /// The far pointer in memory: offset of operand size, then the selector.
    func loadFarPointer(_ instruction: borrowing Instruction) throws(GuestFault) -> (selector: UInt16, offset: UInt64) {
        let size = instruction.operandSize
        let start = effectiveOffset(instruction)
        let offset = try load(
            linear: try linearAddress(
                segment: instruction.segment, offset: start, size: UInt64(size) &+ 2, write: false),
            size: size)
        let place = wrapped(start &+ UInt64(size), addressSize: instruction.addressSize)
        let selector = try load(
            linear: try linearAddress(segment: instruction.segment, offset: place, size: 2, write: false), size: 2)
        return (UInt16(truncatingIfNeeded: selector), offset)
    }

    @inline(__always)
    func wrapped(_ offset: UInt64, addressSize: UInt8) -> UInt64 {
        addressSize == 8 ? offset : addressSize == 4 ? offset & 0xFFFF_FFFF : offset & 0xFFFF
    }

    @inline(__always)
    private func truncated(_ value: UInt64, size: UInt8) -> UInt64 {
        size == 8 ? value : size == 4 ? value & 0xFFFF_FFFF : value & 0xFFFF
    }

    /// Real and v8086 mode: no descriptor; the limit of CS stays.
    private func enterRealCode(selector: UInt16, offset: UInt64) throws(GuestFault) {
        var segment =
            isVirtual8086 ? Self.virtual8086Segment(selector) : segments[Int(DAVIT_CS.rawValue)]
        segment.selector = selector
        segment.base = UInt64(selector) << 4
        if !isVirtual8086 { segment.attributes = segment.attributes & ~0xFF | 0x9B }
        guard offset <= UInt64(segment.limit) else { throw .generalProtection }
        cpu.pointee.next_rip = offset
        setCodeSegment(segment, cpl: cpu.pointee.cpl)
    }

    func farJump(selector: UInt16, offset: UInt64, size: UInt8) throws(GuestFault) {
        let offset = truncated(offset, size: size)
        if !isProtected || isVirtual8086 { return try enterRealCode(selector: selector, offset: offset) }
        guard !Self.isNull(selector) else { throw .generalProtection }
        let descriptor = try readDescriptor(selector)
        if descriptor.isCode {
            let segment = try readCodeSegment(selector, descriptor: descriptor)
            try checkTarget(offset, in: segment)
            cpu.pointee.next_rip = offset
            setCodeSegment(segment, cpl: cpu.pointee.cpl)
            return
        }
        try checkGateRights(descriptor, selector: selector)
        switch descriptor.type {
        case SystemDescriptorType.callGate,
            SystemDescriptorType.callGate16 where !isLong:
            let (target, code) = try readGateTarget(descriptor, selector: selector)
            let segment = try readCodeSegment(target & 0xFFFC, descriptor: code)
            let entry = gateOffset(descriptor)
            try checkTarget(entry, in: segment)
            cpu.pointee.next_rip = entry
            setCodeSegment(segment, cpl: cpu.pointee.cpl)
        case SystemDescriptorType.availableTSS where !isLong, SystemDescriptorType.availableTSS16 where !isLong:
            guard descriptor.isPresent else { throw fault(.NP, selector: selector) }
            try switchTask(selector, cause: .jump, returnTo: cpu.pointee.next_rip)
        case SystemDescriptorType.taskGate where !isLong:
            guard descriptor.isPresent else { throw fault(.NP, selector: selector) }
            try switchTask(descriptor.gateSelector, cause: .jump, returnTo: cpu.pointee.next_rip)
        default: throw fault(.GP, selector: selector)
        }
    }

    /// `pushSize`: of CS and RIP on the stack, in bytes.
    func farCall(selector: UInt16, offset: UInt64, size: UInt8, pushSize: UInt8) throws(GuestFault) {
        let offset = truncated(offset, size: size)
        let width = UInt64(pushSize)
        if !isProtected || isVirtual8086 {
            var stack = currentStack()
            try pushReturnAddress(width, on: &stack)
            try enterRealCode(selector: selector, offset: offset)
            commitPointer(stack)
            return
        }
        guard !Self.isNull(selector) else { throw .generalProtection }
        let descriptor = try readDescriptor(selector)
        if descriptor.isCode {
            let segment = try readCodeSegment(selector, descriptor: descriptor)
            var stack = currentStack()
            if isAMD && isLong {
                // AMD's CPUs push as the called code would: 64-bit code knows no base of SS, other code no upper half of RSP.
                stack = self.stack(
                    stack.segment, pointer: gpr[GeneralRegister.RSP], cpl: cpu.pointee.cpl,
                    is64Bit: descriptor.isLongCode)
            }
            try pushReturnAddress(width, on: &stack)
            try checkTarget(offset, in: segment)
            commitPointer(stack)
            cpu.pointee.next_rip = offset
            setCodeSegment(segment, cpl: cpu.pointee.cpl)
            return
        }
        try checkGateRights(descriptor, selector: selector)
        switch descriptor.type {
        case SystemDescriptorType.callGate,
            SystemDescriptorType.callGate16 where !isLong:
            try callThroughGate(descriptor, selector: selector)
        case SystemDescriptorType.availableTSS where !isLong, SystemDescriptorType.availableTSS16 where !isLong:
            guard descriptor.isPresent else { throw fault(.NP, selector: selector) }
            try switchTask(selector, cause: .call, returnTo: cpu.pointee.next_rip)
        case SystemDescriptorType.taskGate where !isLong:
            guard descriptor.isPresent else { throw fault(.NP, selector: selector) }
            try switchTask(descriptor.gateSelector, cause: .call, returnTo: cpu.pointee.next_rip)
        default: throw fault(.GP, selector: selector)
        }
    }

    private func pushReturnAddress(_ width: UInt64, on stack: inout StagedStack) throws(GuestFault) {
        let rip = cpu.pointee.next_rip
        try push(UInt64(segments[Int(DAVIT_CS.rawValue)].selector), size: width, on: &stack)
        try push(rip, size: width, on: &stack)
    }

    /// A gate or task state may be used from this level: its DPL is no less than CPL and RPL.
    private func checkGateRights(_ descriptor: Descriptor, selector: UInt16) throws(GuestFault) {
        guard descriptor.dpl >= max(cpu.pointee.cpl, UInt32(selector & 3)) else {
            throw fault(.GP, selector: selector)
        }
    }

    private func gateOffset(_ gate: Descriptor) -> UInt64 {
        gate.type == SystemDescriptorType.callGate16 ? gate.low & 0xFFFF : gate.gateOffset
    }

    /// The code segment behind a call gate. In long mode that is 64-bit code.
    private func readGateTarget(
        _ gate: Descriptor, selector: UInt16
    ) throws(GuestFault) -> (selector: UInt16, code: Descriptor) {
        if isLong && gate.high >> 40 & 0x1F != 0 { throw fault(.GP, selector: selector) }
        guard gate.isPresent else { throw fault(.NP, selector: selector) }
        let target = gate.gateSelector
        guard !Self.isNull(target) else { throw .generalProtection }
        let code = try readDescriptor(target)
        guard code.isCode, code.dpl <= cpu.pointee.cpl, !isLong || code.isLongCode && !code.isBig else {
            throw fault(.GP, selector: target)
        }
        return (target, code)
    }

    private func callThroughGate(_ gate: Descriptor, selector: UInt16) throws(GuestFault) {
        var (target, code) = try readGateTarget(gate, selector: selector)
        try checkCodeSegment(&code, selector: target)
        let width: UInt64 = isLong ? 8 : gate.type == SystemDescriptorType.callGate16 ? 2 : 4
        let entry = gateOffset(gate)
        let isInner = !code.isConforming && code.dpl < cpu.pointee.cpl
        let cpl = isInner ? code.dpl : cpu.pointee.cpl
        let segment = code.segment(selector: target & 0xFFFC | UInt16(truncatingIfNeeded: cpl))

        var stack: StagedStack
        if isInner {
            let old = currentStack()
            stack = try innerStack(cpl: cpl, interruptStack: 0)
            try push(UInt64(segments[Int(DAVIT_SS.rawValue)].selector), size: width, on: &stack)
            try push(gpr[GeneralRegister.RSP], size: width, on: &stack)
            if !isLong {
                // The last parameter pushed by the caller is copied last.
                var source = old
                var parameters = (gate.parameterCount, old.pointer)
                source.pointer = (old.pointer &+ UInt64(parameters.0) &* width) & old.mask
                while parameters.0 > 0 {
                    source.pointer = (source.pointer &- width) & source.mask
                    parameters.1 = source.pointer
                    let value = try pop(size: width, from: &source)
                    source.pointer = parameters.1
                    try push(value, size: width, on: &stack)
                    parameters.0 &-= 1
                }
            }
        } else {
            stack = currentStack()
        }
        try pushReturnAddress(width, on: &stack)
        try checkTarget(entry, in: segment)
        if isInner { segments[Int(DAVIT_SS.rawValue)] = stack.segment }
        commitPointer(stack)
        cpu.pointee.next_rip = entry
        setCodeSegment(segment, cpl: cpl)
    }

    /// The stack for a more privileged level, from the task state (SDM vol. 3, 5.8.5 and 6.14.4-5).
    /// `interruptStack` 1-7 chooses one of long mode's.
    func innerStack(cpl: UInt32, interruptStack: UInt64) throws(GuestFault) -> StagedStack {
        let task = segments[Int(DAVIT_TR.rawValue)]
        if isLong {
            let offset: UInt64 = interruptStack != 0 ? 28 &+ interruptStack &* 8 : 4 &+ UInt64(cpl) &* 8
            guard task.isPresent, offset &+ 7 <= UInt64(task.limit) else { throw fault(.TS, selector: task.selector) }
            let pointer = try systemLoad(linear: task.base &+ offset, size: 8)
            guard Self.isCanonical(pointer) else { throw fault(.SS) }
            return stack(Self.nullStackSegment(cpl: cpl), pointer: pointer, cpl: cpl, is64Bit: true)
        }
        let is32 = task.type & 8 != 0
        let offset: UInt64 = is32 ? 4 &+ UInt64(cpl) &* 8 : 2 &+ UInt64(cpl) &* 4
        let size: UInt64 = is32 ? 4 : 2
        guard task.isPresent, offset &+ size &+ 1 <= UInt64(task.limit) else {
            throw fault(.TS, selector: task.selector)
        }
        let pointer = try systemLoad(linear: systemAddress(task.base &+ offset), size: Int(size))
        let selector = UInt16(
            truncatingIfNeeded: try systemLoad(linear: systemAddress(task.base &+ offset &+ size), size: 2))
        let segment = try readStackSegment(selector, cpl: cpl, vector: .TS, for64Bit: false)
        return stack(segment, pointer: pointer, cpl: cpl, is64Bit: false, selector: selector)
    }

    /// `release`: bytes of parameters to drop.
    func farReturn(size: UInt8, release: UInt64) throws(GuestFault) {
        let width = UInt64(size)
        var stack = currentStack()
        let offset = truncated(try pop(size: width, from: &stack), size: size)
        let selector = UInt16(truncatingIfNeeded: try pop(size: width, from: &stack))
        stack.pointer = (stack.pointer &+ release) & stack.mask
        if !isProtected || isVirtual8086 {
            try enterRealCode(selector: selector, offset: offset)
            commitPointer(stack)
            return
        }
        let segment = try readReturnSegment(selector)
        let cpl = UInt32(selector & 3)
        if cpl == cpu.pointee.cpl {
            try checkTarget(offset, in: segment)
            commitPointer(stack)
            cpu.pointee.next_rip = offset
            setCodeSegment(segment, cpl: cpl)
            return
        }
        let pointer = try pop(size: width, from: &stack)
        let stackSelector = UInt16(truncatingIfNeeded: try pop(size: width, from: &stack))
        let isTo64Bit = isLong && segment.attributes & SegmentAttributes.long != 0
        let outer = try readStackSegment(stackSelector, cpl: cpl, vector: .GP, for64Bit: isTo64Bit)
        try checkTarget(offset, in: segment)
        returnOutward(to: segment, cpl: cpl, stack: outer, pointer: pointer, size: width, release: release)
        cpu.pointee.next_rip = offset
    }

    /// The code segment that RET and IRET go back to (SDM vol. 2, RET, IRET).
    func readReturnSegment(_ selector: UInt16) throws(GuestFault) -> davit_segment {
        guard !Self.isNull(selector) else { throw fault(.GP) }
        var descriptor = try readDescriptor(selector)
        let cpl = UInt32(selector & 3)
        guard descriptor.isCode, cpl >= cpu.pointee.cpl,
            descriptor.isConforming ? descriptor.dpl <= cpl : descriptor.dpl == cpl
        else { throw fault(.GP, selector: selector) }
        try checkCodeSegment(&descriptor, selector: selector)
        return descriptor.segment(selector: selector)
    }

    /// Commits a return to a less privileged level; nothing can fault any more.
    func returnOutward(
        to segment: davit_segment, cpl: UInt32, stack: davit_segment, pointer: UInt64, size: UInt64, release: UInt64
    ) {
        segments[Int(DAVIT_SS.rawValue)] = stack
        setCodeSegment(segment, cpl: cpl)
        let mask = stackMask
        let pointer = pointer &+ release
        if mask == 0xFFFF {
            gpr[GeneralRegister.RSP] =
                (size == 2 ? gpr[GeneralRegister.RSP] & ~0xFFFF : pointer & ~0xFFFF) | pointer & 0xFFFF
        } else {
            gpr[GeneralRegister.RSP] = pointer & mask
        }
        dropPrivilegedSegments()
    }
}
