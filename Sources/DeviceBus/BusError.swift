/// Which of the two address spaces a range belongs to.
public enum BusSpace: String, Equatable, Sendable {
    case port
    case mmio = "MMIO"
}

/// Why a device could not be attached to a bus, or moved on it. The bus is as it was before.
public enum BusError: Error, Equatable, Sendable, CustomStringConvertible {
    /// `name` would answer at addresses where `other` answers already.
    case overlap(
        space: BusSpace, name: String, range: ClosedRange<UInt64>, other: String, otherRange: ClosedRange<UInt64>)
    /// A range of no bytes, or one that reaches past the end of the address space; size in bytes.
    case invalidRange(space: BusSpace, name: String, start: UInt64, size: UInt64)
    /// The bus has no place for another device.
    case full(space: BusSpace, name: String, capacity: Int)

    public var description: String {
        switch self {
        case .overlap(let space, let name, let range, let other, let otherRange):
            "\(name) at \(space.rawValue) \(hexadecimal(range)) overlaps \(other) at \(hexadecimal(otherRange))"
        case .invalidRange(let space, let name, let start, let size):
            "\(name) cannot stand at \(space.rawValue) 0x\(String(start, radix: 16)) with \(size) bytes"
        case .full(let space, let name, let capacity):
            "no place for \(name): the \(space.rawValue) bus holds \(capacity) devices already"
        }
    }

    private func hexadecimal(_ range: ClosedRange<UInt64>) -> String {
        "0x\(String(range.lowerBound, radix: 16))-0x\(String(range.upperBound, radix: 16))"
    }
}
