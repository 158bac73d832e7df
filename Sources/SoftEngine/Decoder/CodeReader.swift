/// Reads instruction bytes up to the end of what was fetched, or up to the 15 that an instruction may have.
/// Past that it yields zeroes and remembers it, so that the decoder checks once, at the end.
struct CodeReader {
    private let bytes: UnsafePointer<UInt8>
    private let limit: Int
    private(set) var position = 0
    private(set) var overran = false

    /// `bytes` must stay readable up to `available`.
    @inline(__always)
    init(_ bytes: UnsafePointer<UInt8>, available: Int) {
        self.bytes = bytes
        limit = min(available, Instruction.maximumLength)
    }

    @inline(__always)
    mutating func byte() -> UInt8 {
        guard position < limit else {
            overran = true
            return 0
        }
        defer { position &+= 1 }
        return bytes[position]
    }

    @inline(__always)
    mutating func little<Value: FixedWidthInteger & BitwiseCopyable>(_ type: Value.Type) -> Value {
        guard position &+ MemoryLayout<Value>.size <= limit else {
            overran = true
            return 0
        }
        defer { position &+= MemoryLayout<Value>.size }
        // Safe: within the limit, checked above.
        return UnsafeRawPointer(bytes + position).loadUnaligned(as: type)
    }

    /// The next byte, left where it is.
    @inline(__always)
    mutating func peek() -> UInt8 {
        guard position < limit else {
            overran = true
            return 0
        }
        return bytes[position]
    }
}
