import CDavit
import X86

// IRET in every form (Intel SDM vol. 2, IRET).
extension Interpreter {
    func interruptReturn(size: UInt8) throws(GuestFault) {
        // NMIs are let in again by an IRET even if it faults.
        if system.pointee.nmiBlocked {
            system.pointee.nmiBlocked = false
            davit_cpu_request(cpu, DAVIT_EXIT_INTERRUPT.rawValue)
        }
        system.pointee.blockEnd = 0
        if !isProtected { return try returnInRealMode(size: UInt64(size)) }
        if isVirtual8086 {
            guard iopl == 3 else { throw .generalProtection }
            return try returnInRealMode(size: UInt64(size))
        }
        if cpu.pointee.rflags & RFLAGS.NT != 0 {
            guard !isLong else { throw .generalProtection }
            return try returnToPreviousTask()
        }
        try returnInProtectedMode(size: UInt64(size))
    }

    private func returnInRealMode(size: UInt64) throws(GuestFault) {
        var stack = currentStack()
        let offset = try pop(size: size, from: &stack)
        let selector = UInt16(truncatingIfNeeded: try pop(size: size, from: &stack))
        let flags = try pop(size: size, from: &stack)
        guard offset <= UInt64(segments[Int(DAVIT_CS.rawValue)].limit) else { throw .generalProtection }
        commitPointer(stack)
        var mask: UInt64 = RFLAGS.arithmetic | RFLAGS.TF | RFLAGS.IF | RFLAGS.DF | RFLAGS.NT
        if !isVirtual8086 { mask |= RFLAGS.IOPL }
        if size > 2 { mask |= RFLAGS.RF | RFLAGS.AC | RFLAGS.ID }
        var segment = segments[Int(DAVIT_CS.rawValue)]
        segment.selector = selector
        segment.base = UInt64(selector) << 4
        cpu.pointee.next_rip = offset
        setCodeSegment(segment, cpl: cpu.pointee.cpl)
        setFlags(cpu.pointee.rflags & ~mask | flags & mask)
    }

    /// Bits of RFLAGS that an IRET of `size` bytes may change at the current privilege level.
    private func returnFlagsMask(size: UInt64) -> UInt64 {
        var mask: UInt64 = RFLAGS.arithmetic | RFLAGS.TF | RFLAGS.DF | RFLAGS.NT
        if size > 2 { mask |= RFLAGS.RF | RFLAGS.AC | RFLAGS.ID }
        if cpu.pointee.cpl <= iopl { mask |= RFLAGS.IF }
        if cpu.pointee.cpl == 0 {
            mask |= RFLAGS.IOPL
            if size > 2 { mask |= RFLAGS.VIF | RFLAGS.VIP }
        }
        return mask
    }

    private func returnInProtectedMode(size: UInt64) throws(GuestFault) {
        var stack = currentStack()
        let offset = try pop(size: size, from: &stack)
        let selector = UInt16(truncatingIfNeeded: try pop(size: size, from: &stack))
        let flags = try pop(size: size, from: &stack)
        if size == 4 && flags & RFLAGS.VM != 0 && cpu.pointee.cpl == 0 && !isLong {
            return try returnToVirtual8086(offset: offset, selector: selector, flags: flags, from: &stack)
        }
        let segment = try readReturnSegment(selector)
        let cpl = UInt32(selector & 3)
        let mask = returnFlagsMask(size: size)
        let newFlags = cpu.pointee.rflags & ~mask | flags & mask
        let isOutward = cpl > cpu.pointee.cpl
        // In 64-bit mode SS:RSP is popped always.
        guard isOutward || is64Bit else {
            try checkTarget(offset, in: segment)
            commitPointer(stack)
            cpu.pointee.next_rip = offset
            setCodeSegment(segment, cpl: cpl)
            setFlags(newFlags)
            return
        }
        let pointer = try pop(size: size, from: &stack)
        let stackSelector = UInt16(truncatingIfNeeded: try pop(size: size, from: &stack))
        let isTo64Bit = isLong && segment.attributes & SegmentAttributes.long != 0
        let newStack = try readStackSegment(stackSelector, cpl: cpl, vector: .GP, for64Bit: isTo64Bit)
        try checkTarget(offset, in: segment)
        cpu.pointee.next_rip = offset
        if isOutward {
            returnOutward(to: segment, cpl: cpl, stack: newStack, pointer: pointer, size: size, release: 0)
        } else {
            segments[Int(DAVIT_SS.rawValue)] = newStack
            setCodeSegment(segment, cpl: cpl)
            let mask = stackMask
            gpr[GeneralRegister.RSP] =
                mask == 0xFFFF ? gpr[GeneralRegister.RSP] & ~0xFFFF | pointer & mask : pointer & mask
        }
        setFlags(newFlags)
    }

    private func returnToVirtual8086(
        offset: UInt64, selector: UInt16, flags: UInt64, from stack: inout StagedStack
    ) throws(GuestFault) {
        let pointer = try pop(size: 4, from: &stack)
        let stackSelector = UInt16(truncatingIfNeeded: try pop(size: 4, from: &stack))
        let es = UInt16(truncatingIfNeeded: try pop(size: 4, from: &stack))
        let ds = UInt16(truncatingIfNeeded: try pop(size: 4, from: &stack))
        let fs = UInt16(truncatingIfNeeded: try pop(size: 4, from: &stack))
        let gs = UInt16(truncatingIfNeeded: try pop(size: 4, from: &stack))
        // Only the low 16 bits of EIP count: the segment ends at 64 KiB.
        guard offset <= 0xFFFF else { throw .generalProtection }
        segments[Int(DAVIT_SS.rawValue)] = Self.virtual8086Segment(stackSelector)
        segments[Int(DAVIT_ES.rawValue)] = Self.virtual8086Segment(es)
        segments[Int(DAVIT_DS.rawValue)] = Self.virtual8086Segment(ds)
        segments[Int(DAVIT_FS.rawValue)] = Self.virtual8086Segment(fs)
        segments[Int(DAVIT_GS.rawValue)] = Self.virtual8086Segment(gs)
        gpr[GeneralRegister.RSP] = pointer
        cpu.pointee.next_rip = offset
        setCodeSegment(Self.virtual8086Segment(selector), cpl: 3)
        setFlags(flags & Self.writableFlags | RFLAGS.reserved1)
    }

    /// Bits of RFLAGS that can be set at all.
    static let writableFlags: UInt64 = 0x3F_7FD5
}
