import COracle

/// The kind of code a case is: what user mode can be in on a 64-bit Linux.
public enum CodeMode: String, CaseIterable, Sendable {
    case long64
    /// Compatibility mode with flat segments.
    case flat32
    /// Compatibility mode with segments out of the LDT, which have bases and limits.
    case segmented32
    case segmented16

    /// As the decoder takes it.
    var codeSize: UInt32 {
        switch self {
        case .long64: 8
        case .flat32, .segmented32: 4
        case .segmented16: 2
        }
    }

    var isSegmented: Bool { self == .segmented32 || self == .segmented16 }

    static func selector(_ segment: oracle_segment) -> UInt16 { UInt16(segment.rawValue) << 3 | 7 }

    /// Selectors that a program may try to load: null, code and data of every kind, one past the LDT's end.
    static let selectors = StaticTable([
        0, 3, 0x2B, 0x2B, 0x33, 0x23, 0x28, 0x10, 0x1B, 0x0F, 0x17, 0x1F, 0x27, 0x2F, 0x37, 0x3F, 0x47, 0x4F, 0x26,
        0x57, 0xFFF7, 0x6B,
    ])

    /// Selectors of code.
    static let codeSelectors = StaticTable([0x33, 0x23, 0x07, 0x0F, 0x47, 0x4F, 0x0C, 0x2B])
}
