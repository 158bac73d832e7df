import MachineModel

/// The 4 KiB of one function's configuration space: what each byte holds and which of its bits a guest may change.
struct ConfigurationSpace: Sendable {
    static let size = 4096
    /// Capabilities stand from here to the end of the first 256 bytes.
    private static let firstCapability = 0x40

    private var bytes = [UInt8](repeating: 0, count: size)
    private var writable = [UInt8](repeating: 0, count: size)
    /// Bits that a one clears.
    private var clearable = [UInt8](repeating: 0, count: size)
    private var capabilitiesEnd = firstCapability
    /// Where the offset of the next capability is to be written.
    private var lastLink = ConfigurationRegister.capabilitiesPointer

    // MARK: for the guest

    /// All ones unless the access is aligned and inside.
    func read(_ offset: Int, _ width: AccessWidth) -> UInt32 {
        guard Self.isGood(offset, width) else { return UInt32.max }
        return (0..<width.bytes).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32($1 * 8) }
    }

    /// Changes what may be changed; false, and nothing, unless the access is aligned and inside.
    mutating func write(_ offset: Int, _ width: AccessWidth, _ value: UInt32) -> Bool {
        guard Self.isGood(offset, width) else { return false }
        for index in 0..<width.bytes {
            let byte = UInt8(truncatingIfNeeded: value >> UInt32(index * 8))
            let place = offset + index
            bytes[place] = (bytes[place] & ~writable[place] | byte & writable[place]) & ~(byte & clearable[place])
        }
        return true
    }

    private static func isGood(_ offset: Int, _ width: AccessWidth) -> Bool {
        width.bytes <= 4 && offset >= 0 && offset <= size - width.bytes && offset & (width.bytes - 1) == 0
    }

    // MARK: for the function

    subscript<Value: FixedWidthInteger & UnsignedInteger>(_ offset: Int, _: Value.Type) -> Value {
        get {
            (0..<MemoryLayout<Value>.size).reduce(0) { $0 | Value(truncatingIfNeeded: bytes[offset + $1]) << ($1 * 8) }
        }
        set { Self.store(newValue, in: &bytes, at: offset) }
    }

    /// Sets a register's value and the bits that a guest may write.
    mutating func set<Value: FixedWidthInteger & UnsignedInteger>(
        _ offset: Int, _ value: Value, writable mask: Value = 0, clearable ones: Value = 0
    ) {
        Self.store(value, in: &bytes, at: offset)
        Self.store(mask, in: &writable, at: offset)
        Self.store(ones, in: &clearable, at: offset)
    }

    /// Appends a capability of `size` bytes, header included; its offset. There is room for what a function of ours has.
    mutating func addCapability(_ id: UInt8, size: Int) -> Int {
        let offset = capabilitiesEnd
        precondition(offset + size <= 256, "too many capabilities")
        bytes[offset] = id
        bytes[lastLink] = UInt8(offset)
        lastLink = offset + 1
        capabilitiesEnd = (offset + size + 3) & ~3
        self[ConfigurationRegister.status, UInt16.self] |= Status.capabilitiesList
        return offset
    }

    private static func store<Value: FixedWidthInteger>(_ value: Value, in bytes: inout [UInt8], at offset: Int) {
        for index in 0..<MemoryLayout<Value>.size {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (index * 8))
        }
    }
}
