/// Numbers as they lie in a file.
///
/// Whoever reads them has checked that the bytes are there.
extension [UInt8] {
    func bigEndian<Value: FixedWidthInteger & UnsignedInteger>(_ type: Value.Type, at offset: Int) -> Value {
        var value: Value = 0
        for byte in self[offset..<offset + MemoryLayout<Value>.size] { value = value << 8 | Value(byte) }
        return value
    }

    func littleEndian<Value: FixedWidthInteger & UnsignedInteger>(_ type: Value.Type, at offset: Int) -> Value {
        var value: Value = 0
        for byte in self[offset..<offset + MemoryLayout<Value>.size].reversed() { value = value << 8 | Value(byte) }
        return value
    }

    mutating func appendBigEndian(_ value: some FixedWidthInteger & UnsignedInteger) {
        for shift in stride(from: value.bitWidth - 8, through: 0, by: -8) {
            append(UInt8(truncatingIfNeeded: value >> shift))
        }
    }
}
