import CDavit
import X86

// LGDT, LIDT, SGDT, SIDT, LLDT, LTR, SLDT, STR, LAR, LSL, VERR, VERW, ARPL (Intel SDM vol. 2).
extension Interpreter {
    func loadTableRegister(_ instruction: borrowing Instruction) throws(GuestFault) {
        try requireSupervisor()
        let width: UInt64 = is64Bit ? 8 : 4
        let start = effectiveOffset(instruction)
        let segment = instruction.segment
        let limit = try load(
            linear: try linearAddress(segment: segment, offset: start, size: 2 &+ width, write: false), size: 2)
        let place = wrapped(start &+ 2, addressSize: instruction.addressSize)
        var base = try load(
            linear: try linearAddress(segment: segment, offset: place, size: width, write: false), size: UInt8(width))
        let size = instruction.operandSize
        if !is64Bit && size == 2 { base &= 0xFF_FFFF }
        guard Self.isCanonical(base) else { throw .generalProtection }
        let register = davit_table_register(base: base, limit: UInt16(truncatingIfNeeded: limit))
        if instruction.operation == .lgdt { cpu.pointee.gdtr = register } else { cpu.pointee.idtr = register }
    }

    func storeTableRegister(_ instruction: borrowing Instruction) throws(GuestFault) {
        if cpu.pointee.cr4 & CR4.UMIP != 0 { try requireSupervisor() }
        let register = instruction.operation == .sgdt ? cpu.pointee.gdtr : cpu.pointee.idtr
        let width: UInt64 = is64Bit ? 8 : 4
        let start = effectiveOffset(instruction)
        let segment = instruction.segment
        let first = try linearAddress(segment: segment, offset: start, size: 2 &+ width, write: true)
        let place = wrapped(start &+ 2, addressSize: instruction.addressSize)
        let second = try linearAddress(segment: segment, offset: place, size: width, write: true)
        // The limit is written only if the base can be.
        _ = try hostPointerForWrite(linear: second, size: Int(width))
        try store(UInt64(register.limit), linear: first, size: 2)
        try store(register.base, linear: second, size: UInt8(width))
    }

    /// These instructions are undefined in real and v8086 mode.
    private func requireProtectedMode() throws(GuestFault) {
        guard isProtected, !isVirtual8086 else { throw .invalidOpcode }
    }

    func loadSystemSegment(_ instruction: borrowing Instruction) throws(GuestFault) {
        try requireProtectedMode()
        try requireSupervisor()
        let selector = UInt16(truncatingIfNeeded: try loadWord(instruction))
        if instruction.operation == .lldt { try loadLocalTable(selector) } else { try loadTaskRegister(selector) }
    }

    func storeSystemSegment(_ instruction: borrowing Instruction) throws(GuestFault) {
        try requireProtectedMode()
        let register = instruction.operation == .sldt ? DAVIT_LDTR : DAVIT_TR
        try storeWord(instruction, UInt64(segments[Int(register.rawValue)].selector))
    }

    /// LAR, LSL, VERR and VERW: ZF says whether the segment may be used so.
    func inspectSegment(_ instruction: borrowing Instruction) throws(GuestFault) {
        try requireProtectedMode()
        let selector = UInt16(truncatingIfNeeded: try loadWord(instruction))
        guard let descriptor = try visibleDescriptor(selector, for: instruction.operation) else {
            cpu.pointee.rflags &= ~RFLAGS.ZF
            return
        }
        cpu.pointee.rflags |= RFLAGS.ZF
        if instruction.operation == .lar {
            let rights = descriptor.low >> 32 & 0xFF_FF00
            writeRegister(instruction.reg, size: instruction.operandSize, rex: true, rights)
        } else if instruction.operation == .lsl {
            writeRegister(instruction.reg, size: instruction.operandSize, rex: true, UInt64(descriptor.limit))
        }
    }

    /// The descriptor, if the instruction accepts its type and the current privilege level may see it.
    private func visibleDescriptor(_ selector: UInt16, for operation: Operation) throws(GuestFault) -> Descriptor? {
        guard !Self.isNull(selector) else { return nil }
        let descriptor: Descriptor
        do throws(GuestFault) {
            descriptor = try readDescriptor(selector)
        } catch {
            // Past the table's limit; a page fault while reading it is the guest's to see.
            if error.vector == ExceptionVector.GP.rawValue { return nil }
            throw error
        }
        let isSystem = descriptor.type & 0x10 == 0
        let accepted: Bool =
            switch operation {
            case .verr: descriptor.isReadable
            case .verw: descriptor.isWritableData
            default: !isSystem || Self.isInspectable(descriptor.type, operation, isLong: isLong)
            }
        guard accepted else { return nil }
        if descriptor.isConforming { return descriptor }
        return descriptor.dpl >= max(cpu.pointee.cpl, UInt32(selector & 3)) ? descriptor : nil
    }

    /// System types that LAR and LSL accept (SDM vol. 2, tables 3-53 and 3-56).
    private static func isInspectable(_ type: UInt16, _ operation: Operation, isLong: Bool) -> Bool {
        switch type {
        case SystemDescriptorType.LDT, SystemDescriptorType.availableTSS, SystemDescriptorType.busyTSS: true
        case SystemDescriptorType.availableTSS16, SystemDescriptorType.busyTSS16: !isLong
        case SystemDescriptorType.callGate: operation == .lar
        case SystemDescriptorType.callGate16, SystemDescriptorType.taskGate: operation == .lar && !isLong
        default: false
        }
    }

    /// ARPL: raises the RPL of ModRM.rm to that of ModRM.reg.
    func adjustPrivilege(_ instruction: borrowing Instruction) throws(GuestFault) {
        try requireProtectedMode()
        let source = gpr[Int(instruction.reg & 15)] & 3
        guard instruction.isMemory else {
            let value = gpr[Int(instruction.rm & 15)] & 0xFFFF
            if value & 3 < source { writeRegister(instruction.rm, size: 2, rex: true, value & ~3 | source) }
            setZero(value & 3 < source)
            return
        }
        // The host asks for write access only where there is something to write.
        let value = try load(linear: try operandAddress(instruction, size: 2, write: false), size: 2)
        if value & 3 < source {
            let linear = try operandAddress(instruction, size: 2, write: true)
            try store(value & ~3 | source, linear: linear, size: 2)
        }
        setZero(value & 3 < source)
    }

    private func setZero(_ isSet: Bool) {
        cpu.pointee.rflags = isSet ? cpu.pointee.rflags | RFLAGS.ZF : cpu.pointee.rflags & ~RFLAGS.ZF
    }
}
