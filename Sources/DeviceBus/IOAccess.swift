import MachineModel

/// One access by the guest to something that is not RAM, as `--trace io` shows it.
public struct IOAccess: Equatable, Sendable, CustomStringConvertible {
    public var space: BusSpace
    public var isWrite: Bool
    public var address: UInt64
    public var width: AccessWidth
    /// What was written, or what the read gave.
    public var value: UInt64
    /// The device at the first byte, or nil where none answers.
    public var device: String?

    /// One line without its end, such as `io port write 0x3f8.1 = 0x41 com1`.
    public var description: String {
        let direction = isWrite ? "write" : "read"
        let place = "0x" + String(address, radix: 16)
        return
            "io \(space.rawValue) \(direction) \(place).\(width.rawValue) = 0x\(String(value, radix: 16)) \(device ?? "-")"
    }
}
