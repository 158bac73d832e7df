import GuestMemory

/// The memory map that firmware tells a kernel, as INT 15h AX=E820h gives it (ACPI 6.5, section 15).
public struct MemoryMap: Equatable, Sendable {
    public enum Kind: UInt32, Sendable {
        case ram = 1
        case reserved = 2
    }

    public struct Entry: Equatable, Sendable {
        public let start: UInt64
        /// In bytes.
        public let size: UInt64
        public let kind: Kind
    }

    /// In ascending order.
    public private(set) var entries: [Entry] = []

    /// Where conventional memory ends and the extended BIOS data area begins.
    static let extendedBIOSDataArea: UInt64 = 0x9_FC00
    static let videoMemory: UInt64 = 0xA_0000
    /// The BIOS area, where the ACPI tables are.
    static let biosArea: UInt64 = 0xE_0000
    static let highMemory: UInt64 = 0x10_0000
    /// What 32-bit protocols and the first page tables reach.
    static let fourGiB: UInt64 = 1 << 32

    /// RAM as the regions have it, less the areas below 1 MiB that a PC keeps for itself.
    init(_ memory: GuestMemory) {
        for region in memory.regions {
            let start = region.start.rawValue
            let end = region.end.rawValue
            guard start < Self.highMemory else {
                append(start, end, .ram)
                continue
            }
            append(start, min(end, Self.extendedBIOSDataArea), .ram)
            append(Self.extendedBIOSDataArea, min(end, Self.videoMemory), .reserved)
            append(Self.biosArea, min(end, Self.highMemory), .reserved)
            append(Self.highMemory, end, .ram)
        }
    }

    private mutating func append(_ start: UInt64, _ end: UInt64, _ kind: Kind) {
        if start < end { entries.append(Entry(start: start, size: end - start, kind: kind)) }
    }

    /// What no loader may claim: page zero with the BIOS data area, and all from the extended BIOS data area to 1 MiB.
    static let reservedPlacements = [
        Placement(name: "the BIOS data area", start: 0, end: 0x1000),
        Placement(name: "the BIOS area", start: extendedBIOSDataArea, end: highMemory),
    ]
}
