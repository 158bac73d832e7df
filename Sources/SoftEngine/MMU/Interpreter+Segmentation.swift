import CDavit
import X86

extension Interpreter {
    /// The linear address of `offset` in a segment, checked as the mode asks: canonical form in 64-bit mode, else limit, type
    /// and presence (SDM vol. 3, 5.3 and 5.5). `offset` is already wrapped to the address size. Throws #GP(0), or #SS(0) for SS.
    @inline(__always)
    func linearAddress(segment: UInt8, offset: UInt64, size: UInt64, write: Bool) throws(GuestFault) -> UInt64 {
        if is64Bit {
            // FS and GS alone have a base there.
            let linear = segment >= 4 ? offset &+ segments[Int(segment)].base : offset
            if UInt64(bitPattern: Int64(bitPattern: linear << 16) >> 16) == linear { return linear }
            throw GuestFault(segment == 2 ? .SS : .GP, errorCode: 0)
        }
        return try legacyLinearAddress(segment: segment, offset: offset, size: size, write: write)
    }

    /// The address of ModRM.rm's memory operand as an offset in its segment, wrapped to the address size.
    @inline(__always)
    func effectiveOffset(_ instruction: borrowing Instruction) -> UInt64 {
        var offset = UInt64(bitPattern: instruction.displacement)
        let base = instruction.base
        if base < 16 {
            offset &+= gpr[Int(base)]
        } else if base == Instruction.ripRegister {
            offset &+= cpu.pointee.next_rip
        }
        if instruction.index < 16 { offset &+= gpr[Int(instruction.index)] << UInt64(instruction.scale & 3) }
        switch instruction.addressSize {
        case 8: return offset
        case 4: return offset & 0xFFFF_FFFF
        default: return offset & 0xFFFF
        }
    }

    /// The linear address of ModRM.rm's memory operand of `size` bytes.
    @inline(__always)
    func operandAddress(_ instruction: borrowing Instruction, size: UInt64, write: Bool) throws(GuestFault) -> UInt64 {
        try linearAddress(segment: instruction.segment, offset: effectiveOffset(instruction), size: size, write: write)
    }

    func legacyLinearAddress(segment: UInt8, offset: UInt64, size: UInt64, write: Bool) throws(GuestFault) -> UInt64 {
        let register = segments[Int(segment)]
        let attributes = register.attributes
        // In real and v8086 mode the type is not looked at.
        if cpu.pointee.cr0 & CR0.PE != 0 && cpu.pointee.rflags & RFLAGS.VM == 0 {
            let isCode = attributes & SegmentAttributes.code != 0
            let isAllowed =
                attributes & SegmentAttributes.present != 0
                && (write
                    ? !isCode && attributes & SegmentAttributes.writable != 0
                    : !isCode || attributes & SegmentAttributes.readable != 0)
            guard isAllowed else { throw GuestFault(segment == 2 ? .SS : .GP, errorCode: 0) }
        }
        guard register.contains(offset: offset, size: size) else {
            throw GuestFault(segment == 2 ? .SS : .GP, errorCode: 0)
        }
        return (register.base &+ offset) & 0xFFFF_FFFF
    }
}

/// Bits of `davit_segment.attributes` (Intel SDM vol. 3, 3.4.5).
enum SegmentAttributes {
    static let accessed: UInt16 = 1 << 0
    /// Of data segments.
    static let writable: UInt16 = 1 << 1
    /// Of code segments.
    static let readable: UInt16 = 1 << 1
    /// Of data segments: expand-down.
    static let expandDown: UInt16 = 1 << 2
    /// Of code segments.
    static let conforming: UInt16 = 1 << 2
    static let code: UInt16 = 1 << 3
    /// S: code or data, not a system segment.
    static let application: UInt16 = 1 << 4
    static let present: UInt16 = 1 << 7
    static let long: UInt16 = 1 << 13
    /// D or B.
    static let big: UInt16 = 1 << 14
    static let granular: UInt16 = 1 << 15
}

extension davit_segment {
    /// All `size` bytes at `offset` lie within the limit (SDM vol. 3, 5.3).
    @inline(__always)
    func contains(offset: UInt64, size: UInt64) -> Bool {
        let last = offset &+ (size &- 1)
        if attributes & (SegmentAttributes.code | SegmentAttributes.expandDown) == SegmentAttributes.expandDown {
            let top: UInt64 = attributes & SegmentAttributes.big != 0 ? 0xFFFF_FFFF : 0xFFFF
            return offset > UInt64(limit) && last <= top && last >= offset
        }
        // At the end of 4 GiB too: there CPUs may differ (SDM vol. 3, 5.3), and AMD's fault instead of wrapping.
        return last <= UInt64(limit) && last >= offset
    }

    @inline(__always) var dpl: UInt32 { UInt32(attributes >> 5 & 3) }
    /// Type and S: bits 0-4 of the attributes.
    @inline(__always) var type: UInt16 { attributes & 0x1F }
    @inline(__always) var isPresent: Bool { attributes & SegmentAttributes.present != 0 }
}
