import GuestMemory

/// How many bytes one access moves.
public enum AccessWidth: UInt8, Sendable {
    case one = 1
    case two = 2
    case four = 4
    case eight = 8

    /// In bytes.
    @inlinable
    public var bytes: Int { Int(rawValue) }

    /// Ones in the bits that an access of this width carries.
    @inlinable
    public var mask: UInt64 { UInt64.max >> (64 &- UInt64(rawValue) &* 8) }
}

/// Where an engine turns in mid-instruction for what is not RAM. Called on vCPU threads, several at once.
///
/// Nothing answers at an address: reads give all ones, writes are dropped, as on a PC.
public protocol GuestIO: AnyObject, Sendable {
    /// `width` is one, two or four.
    func readPort(_ port: UInt16, width: AccessWidth) -> UInt32
    func writePort(_ port: UInt16, width: AccessWidth, value: UInt32)
    func readMMIO(_ address: GuestPhysicalAddress, width: AccessWidth) -> UInt64
    func writeMMIO(_ address: GuestPhysicalAddress, width: AccessWidth, value: UInt64)
}

/// A device with ports. `offset` counts from the start of the range it was attached at and lies inside it;
/// a wide access that reaches over the range's end is split into bytes before it comes here.
public protocol PortDevice: AnyObject, Sendable {
    func readPort(offset: UInt16, width: AccessWidth) -> UInt32
    func writePort(offset: UInt16, width: AccessWidth, value: UInt32)
}

/// A device with memory-mapped registers. `offset` counts from the start of the range it was attached at.
public protocol MMIODevice: AnyObject, Sendable {
    func readMMIO(offset: UInt64, width: AccessWidth) -> UInt64
    func writeMMIO(offset: UInt64, width: AccessWidth, value: UInt64)
}
