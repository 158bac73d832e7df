/// What libFuzzer has thought of, taken byte by byte; zeros when it is used up.
struct FuzzInput {
    private var rest: ArraySlice<UInt8>

    init(_ bytes: [UInt8]) { rest = bytes[...] }

    var isEmpty: Bool { rest.isEmpty }

    mutating func byte() -> UInt8 { rest.popFirst() ?? 0 }

    mutating func number<Value: FixedWidthInteger & UnsignedInteger>(_ type: Value.Type) -> Value {
        (0..<MemoryLayout<Value>.size).reduce(0) { value, i in value | Value(byte()) << (8 * i) }
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        defer { rest = rest.dropFirst(count) }
        return Array(rest.prefix(count))
    }

    mutating func all() -> [UInt8] { bytes(rest.count) }
}
