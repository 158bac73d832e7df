extension [UInt8] {
    /// A little-endian number; 0 where there are too few bytes.
    func number<Value: FixedWidthInteger & UnsignedInteger>(_ offset: Int, as type: Value.Type) -> Value {
        let size = MemoryLayout<Value>.size
        guard offset >= 0, offset <= count - size else { return 0 }
        return (0..<size).reduce(0) { $0 | Value(truncatingIfNeeded: self[offset + $1]) << ($1 * 8) }
    }

    /// A number whose halves stand apart.
    func number(low: Int, high: Int) -> UInt64 {
        UInt64(number(low, as: UInt32.self)) | UInt64(number(high, as: UInt32.self)) << 32
    }
}
