import CDavit

/// Where the guest's general registers live while translated code runs.
///
/// The host's RSP points at `davit_cpu`, RCX and R11 are scratch; thirteen guest registers have a host register of their own,
/// those of implicit operands (RAX RDX RBX RSI RDI RBP) the same one. R11, R14 and R15 stay in `davit_cpu.gpr`.
enum GuestRegisters {
    /// RSP's number.
    static let stackPointer: UInt8 = 4

    /// The host register that holds a guest register, or `HostRegister.none`.
    @inline(__always)
    static func host(_ guest: UInt8) -> UInt8 {
        switch guest & 15 {
        case 1: HostRegister.R15
        case 4: HostRegister.R13
        case 13: HostRegister.R14
        case 11, 14, 15: HostRegister.none
        default: guest & 15
        }
    }

    /// Where `davit_cpu.gpr` has it.
    static func slot(_ guest: UInt8) -> HostOperand { .memory(HostRegister.RSP, Int32(guest & 15) * 8) }
}

/// `davit_cpu` as emitted code addresses it.
enum CPUField {
    static func at(_ offset: davit_offset, plus displacement: Int = 0) -> HostOperand {
        .memory(HostRegister.RSP, Int32(offset.rawValue) + Int32(displacement))
    }
    static func scratch(_ number: Int) -> HostOperand { at(DAVIT_OFFSET_SCRATCH, plus: 8 * number) }
    static func segmentBase(_ segment: UInt8) -> HostOperand {
        at(DAVIT_OFFSET_SEGMENT, plus: Int(segment) * MemoryLayout<davit_segment>.stride)
    }
}
