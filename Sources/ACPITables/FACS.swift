/// Firmware ACPI Control Structure, version 2 (ACPI 6.5, 5.2.10): nothing sleeps deep enough to need it, but kernels ask for it.
enum FACS {
    static let size = 64
    /// In bytes.
    static let alignment = 64

    static func bytes() -> [UInt8] {
        var structure = FieldWriter()
        structure.append("FACS".utf8)
        structure.append(UInt32(size))
        structure.appendZeros(24)
        structure.append(UInt8(2))
        structure.appendZeros(31)
        return structure.bytes
    }
}
