import GuestMemory

/// A virtqueue from the device's side, split or packed.
///
/// Unsafe to share in so far as one thread at a time may be in a queue, of which there is one copy in use: `DeviceQueue` has a lock.
public struct VirtioQueue: @unchecked Sendable {
    /// Most entries of any queue (virtio 1.2, 2.7).
    public static let maximumSize: UInt16 = 1 << 15

    /// Entries.
    public let size: UInt16
    private let memory: GuestMemory
    private var ring: any Ring

    /// Throws if the driver has set up no ring that could be used.
    public init(_ setup: QueueSetup, features: VirtioFeatures, memory: GuestMemory) throws(VirtioError) {
        size = setup.size
        self.memory = memory
        ring =
            features.contains(.packedRing)
            ? try PackedRing(setup, features: features, memory: memory)
            : try SplitRing(setup, features: features, memory: memory)
    }

    /// Takes the next available chain, or returns false. When it throws the driver broke the rules: the queue is of no use until reset.
    public mutating func pop(into chain: inout DescriptorChain) throws(VirtioError) -> Bool {
        try ring.pop(into: &chain)
    }

    /// Gives a chain back, of whose writable bytes the device wrote the first `written`.
    public mutating func push(_ chain: DescriptorChain, written: Int) {
        var rest = UInt64(written)
        for (piece, address) in zip(chain.writable, chain.writableAddresses) where rest > 0 {
            let count = min(UInt64(piece.iov_len), rest)
            memory.didWrite(at: GuestPhysicalAddress(address), count: count)
            rest -= count
        }
        ring.push(chain, written: UInt32(truncatingIfNeeded: written))
    }

    /// Shows the driver what was pushed; true if it wants an interrupt for it.
    public mutating func publish() -> Bool { ring.publish() }

    /// Asks the driver to spare notifications while the device is at work anyway.
    public mutating func disableNotifications() { _ = ring.setNotifications(false) }

    /// Asks for notifications again. True if something came meanwhile: then the device goes on, as it would not be told.
    public mutating func enableNotifications() -> Bool { ring.setNotifications(true) }
}
