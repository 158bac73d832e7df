import GuestMemory

/// Root System Description Pointer, revision 2 (ACPI 6.5, 5.2.5.3).
enum RSDP {
    static let size = 36
    /// Revision 0's part, with a checksum of its own.
    private static let oldSize = 20

    static func bytes(rsdt: GuestPhysicalAddress, xsdt: GuestPhysicalAddress) -> [UInt8] {
        var pointer = FieldWriter()
        pointer.append("RSD PTR ".utf8)
        pointer.append(UInt8(0))
        pointer.append("DAVIT ".utf8)
        pointer.append(UInt8(2))
        pointer.append(UInt32(rsdt.rawValue))
        pointer.append(UInt32(size))
        pointer.append(xsdt.rawValue)
        pointer.append(UInt8(0))
        pointer.appendZeros(3)
        pointer.setChecksum(at: 8, over: 0..<oldSize)
        pointer.setChecksum(at: 32, over: 0..<size)
        return pointer.bytes
    }
}
