/// Writes a device's configuration structure field by field, little end first.
struct ConfigurationWriter {
    private(set) var bytes: [UInt8] = []

    mutating func append<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value) {
        for index in 0..<MemoryLayout<Value>.size { bytes.append(UInt8(truncatingIfNeeded: value >> (8 * index))) }
    }
}
