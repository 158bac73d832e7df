import CDavit
import X86

// Reading descriptors, and the faults that name them.
extension Interpreter {
    /// A fault whose error code is a selector; EXT is added while an event from outside the program is delivered.
    @inline(__always)
    func fault(_ vector: ExceptionVector, selector: UInt16) -> GuestFault {
        GuestFault(vector, errorCode: UInt32(selector & 0xFFFC) | system.pointee.externalEvent)
    }

    /// A fault with error code 0, but for EXT.
    @inline(__always)
    func fault(_ vector: ExceptionVector) -> GuestFault {
        GuestFault(vector, errorCode: system.pointee.externalEvent)
    }

    static func isNull(_ selector: UInt16) -> Bool { selector & 0xFFFC == 0 }

    /// The low 48 bits, sign-extended, are the whole address.
    @inline(__always)
    static func isCanonical(_ address: UInt64) -> Bool {
        UInt64(bitPattern: Int64(bitPattern: address << 16) >> 16) == address
    }

    /// Reads the descriptor that a selector names. Past the table's limit, or without a table: `vector` with the selector.
    /// In long mode system descriptors have 16 bytes.
    func readDescriptor(_ selector: UInt16, else vector: ExceptionVector = .GP) throws(GuestFault) -> Descriptor {
        let offset = UInt64(selector & 0xFFF8)
        let table: UInt64
        let limit: UInt64
        if selector & 4 != 0 {
            let local = segments[Int(DAVIT_LDTR.rawValue)]
            guard local.isPresent else { throw fault(vector, selector: selector) }
            table = local.base
            limit = UInt64(local.limit)
        } else {
            table = cpu.pointee.gdtr.base
            limit = UInt64(cpu.pointee.gdtr.limit)
        }
        guard offset &+ 7 <= limit else { throw fault(vector, selector: selector) }
        let address = systemAddress(table &+ offset)
        var descriptor = Descriptor(low: try systemLoad(linear: address, size: 8), address: address)
        if isLong && descriptor.type & 0x10 == 0 {
            guard offset &+ 15 <= limit else { throw fault(vector, selector: selector) }
            descriptor.high = try systemLoad(linear: address &+ 8, size: 8)
        }
        return descriptor
    }

    /// Table addresses wrap at 4 GiB outside long mode.
    @inline(__always)
    func systemAddress(_ linear: UInt64) -> UInt64 { isLong ? linear : linear & 0xFFFF_FFFF }

    /// Sets the accessed bit of a code or data descriptor that is being loaded.
    func markAccessed(_ descriptor: inout Descriptor) throws(GuestFault) {
        guard descriptor.low >> 40 & 1 == 0 else { return }
        descriptor.low |= 1 << 40
        try systemStore(descriptor.low >> 40 & 0xFF, linear: descriptor.address &+ 5, size: 1)
    }

    /// Marks a task state as busy, or as available.
    func setBusy(_ isBusy: Bool, descriptor: inout Descriptor) throws(GuestFault) {
        descriptor.low = isBusy ? descriptor.low | 2 << 40 : descriptor.low & ~(2 << 40)
        try systemStore(descriptor.low >> 40 & 0xFF, linear: descriptor.address &+ 5, size: 1)
    }

    /// Makes a code segment the current one, and `cpl` the current privilege level.
    func setCodeSegment(_ segment: davit_segment, cpl: UInt32) {
        segments[Int(DAVIT_CS.rawValue)] = segment
        cpu.pointee.cpl = cpl
        updateCodeSize()
        if cpl == 3 && system.pointee.standsIn && is64Bit { davit_cpu_request(cpu, DAVIT_EXIT_STOP.rawValue) }
        updateMode()
        system.pointee.blockEnd = 0
    }

    /// To be called when CS, CR0.PE or EFER.LMA has changed.
    func updateCodeSize() {
        let attributes = segments[Int(DAVIT_CS.rawValue)].attributes
        if isLong && attributes & SegmentAttributes.long != 0 {
            cpu.pointee.code_size = 8
        } else {
            cpu.pointee.code_size = attributes & SegmentAttributes.big != 0 ? 4 : 2
        }
    }

    /// The target of a transfer lies in its code segment: else #GP(0).
    func checkTarget(_ offset: UInt64, in segment: davit_segment) throws(GuestFault) {
        if isLong && segment.attributes & SegmentAttributes.long != 0 {
            guard Self.isCanonical(offset) else { throw fault(.GP) }
        } else {
            guard offset <= UInt64(segment.limit) else { throw fault(.GP) }
        }
    }

    /// Checks a code segment that is entered at privilege level `cpl` without a change of it (SDM vol. 3, 5.8.1), and loads it.
    func readCodeSegment(_ selector: UInt16, descriptor: Descriptor) throws(GuestFault) -> davit_segment {
        var descriptor = descriptor
        let cpl = cpu.pointee.cpl
        if descriptor.isConforming {
            guard descriptor.dpl <= cpl else { throw fault(.GP, selector: selector) }
        } else {
            guard UInt32(selector & 3) <= cpl, descriptor.dpl == cpl else { throw fault(.GP, selector: selector) }
        }
        try checkCodeSegment(&descriptor, selector: selector)
        return descriptor.segment(selector: selector & 0xFFFC | UInt16(truncatingIfNeeded: cpl))
    }

    /// Not both 64- and 32-bit, and present; sets the accessed bit.
    func checkCodeSegment(_ descriptor: inout Descriptor, selector: UInt16) throws(GuestFault) {
        if isLong && descriptor.isLongCode && descriptor.isBig { throw fault(.GP, selector: selector) }
        guard descriptor.isPresent else { throw fault(.NP, selector: selector) }
        try markAccessed(&descriptor)
    }
}
