import CDavit
import X86

// Loads of segment registers (Intel SDM vol. 3, 5.5-5.7; vol. 2, MOV, LDS, LLDT, LTR).
extension Interpreter {
    /// Loads ES, SS, DS, FS or GS as MOV, POP and LDS do.
    func loadSegment(_ register: UInt8, selector: UInt16) throws(GuestFault) {
        segments[Int(register)] = try readSegment(register, selector: selector)
    }

    /// What a load would leave in the register; with the descriptor's accessed bit set.
    func readSegment(_ register: UInt8, selector: UInt16) throws(GuestFault) -> davit_segment {
        if !isProtected {
            // The limit and size stay as they are: "unreal" mode.
            var segment = segments[Int(register)]
            segment.selector = selector
            segment.base = UInt64(selector) << 4
            segment.attributes = segment.attributes & ~0xFF | 0x93
            return segment
        }
        if isVirtual8086 { return Self.virtual8086Segment(selector) }
        let isStack = register == UInt8(DAVIT_SS.rawValue)
        return isStack
            ? try readStackSegment(selector, cpl: cpu.pointee.cpl, vector: .GP) : try readDataSegment(selector)
    }

    static func virtual8086Segment(_ selector: UInt16) -> davit_segment {
        davit_segment(base: UInt64(selector) << 4, limit: 0xFFFF, selector: selector, attributes: 0xF3)
    }

    private func readDataSegment(_ selector: UInt16) throws(GuestFault) -> davit_segment {
        if Self.isNull(selector) { return davit_segment(base: 0, limit: 0, selector: selector, attributes: 0) }
        var descriptor = try readDescriptor(selector)
        guard descriptor.isReadable else { throw fault(.GP, selector: selector) }
        if !descriptor.isConforming {
            guard descriptor.dpl >= max(cpu.pointee.cpl, UInt32(selector & 3)) else {
                throw fault(.GP, selector: selector)
            }
        }
        guard descriptor.isPresent else { throw fault(.NP, selector: selector) }
        try markAccessed(&descriptor)
        return descriptor.segment(selector: selector)
    }

    /// A stack segment for privilege level `cpl`; what is wrong with it raises `vector` (#GP, or #TS where it comes from a task state),
    /// absence #SS. A null selector is for 64-bit code below level 3 alone.
    func readStackSegment(
        _ selector: UInt16, cpl: UInt32, vector: ExceptionVector, for64Bit: Bool? = nil
    ) throws(GuestFault) -> davit_segment {
        if Self.isNull(selector) {
            guard for64Bit ?? is64Bit, cpl < 3, UInt32(selector & 3) == cpl else { throw fault(vector) }
            return Self.nullStackSegment(cpl: cpl)
        }
        var descriptor = try readDescriptor(selector, else: vector)
        guard UInt32(selector & 3) == cpl, descriptor.isWritableData, descriptor.dpl == cpl else {
            throw fault(vector, selector: selector)
        }
        guard descriptor.isPresent else { throw fault(.SS, selector: selector) }
        try markAccessed(&descriptor)
        return descriptor.segment(selector: selector)
    }

    /// SS as 64-bit code has it after a change of privilege.
    static func nullStackSegment(cpl: UInt32) -> davit_segment {
        davit_segment(
            base: 0, limit: 0, selector: UInt16(truncatingIfNeeded: cpl),
            attributes: UInt16(truncatingIfNeeded: cpl << 5))
    }

    /// After a return to a less privileged level: segments that it may not use become null (SDM vol. 3, 5.8.6).
    func dropPrivilegedSegments() {
        let cpl = cpu.pointee.cpl
        for register in 0..<6 where register != Int(DAVIT_CS.rawValue) && register != Int(DAVIT_SS.rawValue) {
            let segment = segments[register]
            let isConforming = segment.type & 0x1C == 0x1C
            if segment.isPresent && !isConforming && segment.dpl < cpl {
                // FS and GS bases stay: 64-bit code has set them by MSR.
                let base = isLong && register >= Int(DAVIT_FS.rawValue) ? segment.base : 0
                segments[register] = davit_segment(base: base, limit: 0, selector: 0, attributes: 0)
            }
        }
    }

    func loadLocalTable(_ selector: UInt16) throws(GuestFault) {
        segments[Int(DAVIT_LDTR.rawValue)] = try readLocalTable(selector, else: .GP)
    }

    func readLocalTable(_ selector: UInt16, else vector: ExceptionVector) throws(GuestFault) -> davit_segment {
        if Self.isNull(selector) { return davit_segment(base: 0, limit: 0, selector: selector, attributes: 0) }
        guard selector & 4 == 0 else { throw fault(vector, selector: selector) }
        let descriptor = try readDescriptor(selector, else: vector)
        guard descriptor.type == SystemDescriptorType.LDT, try isSound(descriptor) else {
            throw fault(vector, selector: selector)
        }
        guard descriptor.isPresent else { throw fault(vector == .TS ? .TS : .NP, selector: selector) }
        return descriptor.segment(selector: selector)
    }

    func loadTaskRegister(_ selector: UInt16) throws(GuestFault) {
        guard !Self.isNull(selector) else { throw fault(.GP) }
        guard selector & 4 == 0 else { throw fault(.GP, selector: selector) }
        var descriptor = try readDescriptor(selector)
        let is16 = descriptor.type == SystemDescriptorType.availableTSS16
        guard descriptor.type == SystemDescriptorType.availableTSS || is16 && !isLong, try isSound(descriptor) else {
            throw fault(.GP, selector: selector)
        }
        guard descriptor.isPresent else { throw fault(.NP, selector: selector) }
        try setBusy(true, descriptor: &descriptor)
        segments[Int(DAVIT_TR.rawValue)] = descriptor.segment(selector: selector)
    }

    /// In long mode a system descriptor has a canonical base and zeroes where its upper half would have a type.
    private func isSound(_ descriptor: Descriptor) throws(GuestFault) -> Bool {
        !isLong || Self.isCanonical(descriptor.base) && descriptor.high >> 40 & 0x1F == 0
    }
}
