import CDavit

/// A segment or gate descriptor as it stands in a table (Intel SDM vol. 3, 3.4.5, 5.8.3, 6.14.1).
struct Descriptor: BitwiseCopyable {
    /// The first eight bytes.
    var low: UInt64
    /// Bytes 8-15 of system descriptors in long mode, else 0.
    var high: UInt64 = 0
    /// Linear address in the table.
    var address: UInt64 = 0

    @inline(__always) var attributes: UInt16 { UInt16(truncatingIfNeeded: low >> 40) & 0xF0FF }
    /// Type and S: bits 40-44.
    @inline(__always) var type: UInt16 { UInt16(truncatingIfNeeded: low >> 40) & 0x1F }
    @inline(__always) var dpl: UInt32 { UInt32(truncatingIfNeeded: low >> 45 & 3) }
    @inline(__always) var isPresent: Bool { low >> 47 & 1 != 0 }
    @inline(__always) var isCode: Bool { type & 0x18 == 0x18 }
    @inline(__always) var isConforming: Bool { type & 0x1C == 0x1C }
    @inline(__always) var isWritableData: Bool { type & 0x1A == 0x12 }
    /// Data, or code that may be read.
    @inline(__always) var isReadable: Bool { type & 0x18 == 0x10 || type & 0x1A == 0x1A }
    @inline(__always) var isLongCode: Bool { low >> 53 & 1 != 0 }
    @inline(__always) var isBig: Bool { low >> 54 & 1 != 0 }

    var base: UInt64 { low >> 16 & 0xFF_FFFF | low >> 32 & 0xFF00_0000 | high << 32 }
    /// In bytes, granularity applied.
    var limit: UInt32 {
        let raw = UInt32(truncatingIfNeeded: low & 0xFFFF | low >> 32 & 0xF_0000)
        return low >> 55 & 1 != 0 ? raw << 12 | 0xFFF : raw
    }

    // Of gates.
    var gateSelector: UInt16 { UInt16(truncatingIfNeeded: low >> 16) }
    var gateOffset: UInt64 { low & 0xFFFF | low >> 32 & 0xFFFF_0000 | high << 32 }
    /// Parameters that a call gate copies.
    var parameterCount: Int { Int(low >> 32 & 31) }
    var interruptStack: UInt64 { low >> 32 & 7 }

    /// The register that a load of `selector` leaves.
    func segment(selector: UInt16) -> davit_segment {
        davit_segment(base: base, limit: limit, selector: selector, attributes: attributes)
    }
}

/// Types of system descriptors (SDM vol. 3, table 3-2); those of long mode have the numbers of the 32-bit ones.
enum SystemDescriptorType {
    static let availableTSS16: UInt16 = 1
    static let LDT: UInt16 = 2
    static let busyTSS16: UInt16 = 3
    static let callGate16: UInt16 = 4
    static let taskGate: UInt16 = 5
    static let interruptGate16: UInt16 = 6
    static let trapGate16: UInt16 = 7
    static let availableTSS: UInt16 = 9
    static let busyTSS: UInt16 = 11
    static let callGate: UInt16 = 12
    static let interruptGate: UInt16 = 14
    static let trapGate: UInt16 = 15
}
