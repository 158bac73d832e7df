import GuestMemory

/// A table with the header that all but RSDP and FACS have (ACPI 6.5, 5.2.6).
public struct ACPITable: Sendable {
    /// Four letters.
    public let signature: String
    /// The whole table with its header and a right checksum.
    public let bytes: [UInt8]

    static let headerSize = 36
    private static let oemID = "DAVIT "
    private static let oemTableID = "DAVITPC "
    private static let creatorID = "DAVT"

    /// `body` is what follows the header.
    public init(signature: String, revision: UInt8, body: [UInt8]) {
        precondition(signature.utf8.count == 4, "an ACPI table's signature has four letters")
        var table = FieldWriter()
        table.append(signature.utf8)
        table.append(UInt32(Self.headerSize + body.count))
        table.append(revision)
        table.append(UInt8(0))
        table.append(Self.oemID.utf8)
        table.append(Self.oemTableID.utf8)
        table.append(UInt32(1))
        table.append(Self.creatorID.utf8)
        table.append(UInt32(1))
        table.append(body)
        table.setChecksum(at: 9, over: 0..<table.bytes.count)
        self.signature = signature
        bytes = table.bytes
    }
}

/// Where an address points to, and how it is reached (ACPI 6.5, 5.2.3.2, Generic Address Structure).
struct GenericAddress {
    enum Space: UInt8 {
        case memory = 0
        case io = 1
    }

    /// ACPI's codes for the width of one access.
    enum Access: UInt8 {
        case undefined = 0
        case byte = 1
        case word = 2
        case dword = 3
    }

    static let none = GenericAddress(space: .memory, bits: 0, access: .undefined, address: 0)

    var space: Space
    /// The register's width.
    var bits: UInt8
    var access: Access
    var address: UInt64

    static func port(_ port: UInt16, bits: UInt8, access: Access) -> GenericAddress {
        GenericAddress(space: .io, bits: bits, access: access, address: UInt64(port))
    }
}

/// Writes a structure field by field, little end first.
struct FieldWriter {
    private(set) var bytes: [UInt8] = []

    mutating func append<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value) {
        for index in 0..<MemoryLayout<Value>.size { bytes.append(UInt8(truncatingIfNeeded: value >> (8 * index))) }
    }

    mutating func append(_ source: some Sequence<UInt8>) { bytes.append(contentsOf: source) }

    mutating func append(_ address: GenericAddress) {
        append(address.space.rawValue)
        append(address.bits)
        append(UInt8(0))
        append(address.access.rawValue)
        append(address.address)
    }

    mutating func appendZeros(_ count: Int) { bytes.append(contentsOf: repeatElement(0, count: count)) }

    /// Makes the bytes of `range` sum up to zero by the one at `offset`.
    mutating func setChecksum(at offset: Int, over range: Range<Int>) {
        bytes[offset] = 0
        bytes[offset] = 0 &- bytes[range].reduce(0, &+)
    }
}
