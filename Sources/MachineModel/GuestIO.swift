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

/// Addresses at which the host's kernel takes the guest's writes, so that they do not end in `GuestIO`. Any thread may call.
public protocol DoorbellSpace: AnyObject, Sendable {
    /// From now on a write at `address`, of any width and value, adds one to the eventfd `descriptor`. Accesses that the kernel does not carry out
    /// itself still come to `GuestIO`. False if the kernel has no room for it, or something there already.
    func attach(_ descriptor: Int32, at address: GuestPhysicalAddress) -> Bool
    /// When it returns, the descriptor is written to no more.
    func detach(_ descriptor: Int32, from address: GuestPhysicalAddress)
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

/// Address space in which devices may be given places that move: what a BAR needs of the bus.
public protocol MMIOSpace: AnyObject, Sendable {
    /// A place of `size` bytes for `device`, which answers nowhere until it is moved; nil if the space holds no more devices.
    func makePlace(for device: any MMIODevice, name: String, size: UInt64) -> (any MMIOPlace)?
}

/// One device's place in an `MMIOSpace`. Any thread may call.
public protocol MMIOPlace: Sendable {
    /// Lets the device answer from `start` on, or nowhere. False if it may not stand there; then it answers where it did before.
    func move(to start: GuestPhysicalAddress?) -> Bool
}
