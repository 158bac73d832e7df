import GuestMemory

/// Where a driver has put a queue's parts, and how it wants it served.
public struct QueueSetup: Equatable, Sendable {
    /// Entries.
    public var size: UInt16
    /// The descriptor table, or the packed ring.
    public var descriptorArea: UInt64
    /// The available ring, or the packed ring's driver event suppression.
    public var driverArea: UInt64
    /// The used ring, or the packed ring's device event suppression.
    public var deviceArea: UInt64

    public init(size: UInt16, descriptorArea: UInt64 = 0, driverArea: UInt64 = 0, deviceArea: UInt64 = 0) {
        self.size = size
        self.descriptorArea = descriptorArea
        self.driverArea = driverArea
        self.deviceArea = deviceArea
    }
}

/// What both kinds of ring do. The caller makes sure that one thread at a time is in a ring.
protocol Ring {
    /// Takes the next available chain, or returns false. When it throws the ring is of no use any more.
    mutating func pop(into chain: inout DescriptorChain) throws(VirtioError) -> Bool
    /// Gives a chain back, of which the device wrote `written` bytes.
    mutating func push(_ chain: DescriptorChain, written: UInt32)
    /// Shows the driver what was pushed; true if it wants an interrupt for it.
    mutating func publish() -> Bool
    /// Asks the driver for notifications, or asks it to spare them. True if there is something to pop.
    mutating func setNotifications(_ areWanted: Bool) -> Bool
}

extension GuestMemory {
    /// `count` bytes of a ring at an address of the given alignment.
    func ring(at address: UInt64, count: Int, alignment: UInt64) throws(VirtioError) -> UnsafeMutableRawPointer {
        guard address % alignment == 0,
            let place = pointer(at: GuestPhysicalAddress(address), count: UInt64(count))
        else { throw .ringAddress(address) }
        return place
    }
}

/// Whether an event index lies among the entries from `old` to before `new` (virtio 1.2, 2.7.7.1).
func isPassed(event: UInt16, new: UInt16, old: UInt16) -> Bool { new &- event &- 1 < new &- old }
