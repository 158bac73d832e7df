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
        (segments[Int(segment)].base &+ offset) & 0xFFFF_FFFF
    }
}
