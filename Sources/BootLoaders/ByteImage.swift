/// A structure of little-endian fields as it lies in a file or in guest memory.
///
/// Fields are read and written at offsets that the specification fixes; whoever makes one has checked that it is long enough.
struct ByteImage {
    private(set) var bytes: [UInt8]

    init(size: Int) { bytes = [UInt8](repeating: 0, count: size) }
    init(_ bytes: [UInt8]) { self.bytes = bytes }

    func read<Value: FixedWidthInteger & UnsignedInteger>(_ type: Value.Type, at offset: Int) -> Value {
        var value: Value = 0
        for index in 0..<MemoryLayout<Value>.size { value |= Value(bytes[offset + index]) << (8 * index) }
        return value
    }

    mutating func write<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value, at offset: Int) {
        for index in 0..<MemoryLayout<Value>.size {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index))
        }
    }

    mutating func write(_ source: some Collection<UInt8>, at offset: Int) {
        bytes.replaceSubrange(offset..<offset + source.count, with: source)
    }

    mutating func append<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value) {
        for index in 0..<MemoryLayout<Value>.size { bytes.append(UInt8(truncatingIfNeeded: value >> (8 * index))) }
    }

    mutating func append(_ source: some Sequence<UInt8>) { bytes.append(contentsOf: source) }
}
