import CDavit
import GuestMemory

/// A packed virtqueue from the device's side (virtio 1.2, 2.8).
///
/// Unsafe: as for `SplitRing`.
struct PackedRing: Ring {
    /// Values of an event suppression structure's flags (2.8.10).
    private enum Events {
        static let enable: UInt16 = 0
        static let disable: UInt16 = 1
        static let descriptor: UInt16 = 2
    }

    /// Most entries (2.8.10.1).
    static let maximumSize: UInt16 = 1 << 15

    private let memory: GuestMemory
    private let size: UInt16
    private let hasEventIndex: Bool
    private let hasIndirect: Bool
    private let descriptors: UnsafeMutableRawPointer
    private let descriptorsAddress: UInt64
    private let driverEvents: UnsafeMutableRawPointer
    private let deviceEvents: UnsafeMutableRawPointer

    /// A place in the ring, and which of its two colours marks news there.
    private struct Position {
        var index: UInt16 = 0
        var wrap = true

        /// Wraps around; true if it did.
        mutating func advance(by count: UInt16, size: UInt16) -> Bool {
            let sum = UInt32(index) + UInt32(count)
            let wraps = sum >= UInt32(size)
            index = UInt16(truncatingIfNeeded: wraps ? sum - UInt32(size) : sum)
            if wraps { wrap.toggle() }
            return wraps
        }

        var offsetAndWrap: UInt16 { index | (wrap ? 1 << 15 : 0) }
    }

    private var nextAvailable = Position()
    private var nextUsed = Position()
    /// Where `nextUsed` was when the driver was last interrupted; nil if the ring has wrapped since.
    private var published: UInt16? = 0
    private var hasNews = false

    init(_ setup: QueueSetup, features: VirtioFeatures, memory: GuestMemory) throws(VirtioError) {
        guard (1...Self.maximumSize).contains(setup.size) else { throw .queueSize(setup.size) }
        self.memory = memory
        size = setup.size
        hasEventIndex = features.contains(.eventIndex)
        hasIndirect = features.contains(.indirectDescriptors)
        descriptors = try memory.ring(at: setup.descriptorArea, count: Int(size) * Descriptor.size, alignment: 16)
        descriptorsAddress = setup.descriptorArea
        driverEvents = try memory.ring(at: setup.driverArea, count: 4, alignment: 4)
        deviceEvents = try memory.ring(at: setup.deviceArea, count: 4, alignment: 4)
    }

    private func flags(at index: UInt16) -> UInt16 {
        davit_atomic_load16_acquire(descriptors + Int(index) * Descriptor.size + 14)
    }

    /// The descriptor at the available position is the driver's news.
    private var isAvailable: Bool {
        let flags = flags(at: nextAvailable.index)
        return (flags & Descriptor.available != 0) == nextAvailable.wrap
            && (flags & Descriptor.used != 0) != nextAvailable.wrap
    }

    mutating func pop(into chain: inout DescriptorChain) throws(VirtioError) -> Bool {
        guard isAvailable else { return false }
        chain.removeAll()
        var index = nextAvailable.index
        var length: UInt16 = 0
        while true {
            guard length < size else { throw .chainTooLong }
            let descriptor = Descriptor(descriptors + Int(index) * Descriptor.size)
            let (id, flags) = descriptor.words
            length &+= 1
            index = index &+ 1 == size ? 0 : index &+ 1
            if flags & Descriptor.indirect != 0 {
                guard hasIndirect, flags & Descriptor.next == 0 else { throw .indirectTable }
                let table = try IndirectTable(descriptor, limit: Int(size), in: memory)
                for entry in 0..<table.count {
                    let inner = table[entry]
                    guard inner.words.1 & Descriptor.indirect == 0 else { throw .indirectTable }
                    try chain.append(inner, flags: inner.words.1, in: memory)
                }
            } else {
                try chain.append(descriptor, flags: flags, in: memory)
            }
            if flags & Descriptor.next == 0 {
                // The last descriptor has the buffer's id (2.8.6).
                chain.id = id
                break
            }
        }
        chain.length = length
        _ = nextAvailable.advance(by: length, size: size)
        return true
    }

    mutating func push(_ chain: DescriptorChain, written: UInt32) {
        let entry = descriptors + Int(nextUsed.index) * Descriptor.size
        entry.storeBytes(of: written, toByteOffset: 8, as: UInt32.self)
        entry.storeBytes(of: chain.id, toByteOffset: 12, as: UInt16.self)
        var flags: UInt16 = nextUsed.wrap ? Descriptor.available | Descriptor.used : 0
        if written > 0 { flags |= Descriptor.write }
        davit_atomic_store16_release(entry + 14, flags)
        if nextUsed.advance(by: chain.length, size: size) { published = nil }
        hasNews = true
    }

    mutating func publish() -> Bool {
        guard hasNews else { return false }
        hasNews = false
        let old = published
        published = nextUsed.index
        memory.didWrite(
            at: GuestPhysicalAddress(descriptorsAddress), count: UInt64(Int(size) * Descriptor.size))
        davit_atomic_fence()
        let place = davit_atomic_load16_acquire(driverEvents)
        let flags = davit_atomic_load16_acquire(driverEvents + 2) & 3
        guard hasEventIndex, flags == Events.descriptor else { return flags != Events.disable }
        guard let old else { return true }
        var event = place & 0x7FFF
        if (place >> 15 != 0) != nextUsed.wrap { event &-= size }
        return isPassed(event: event, new: nextUsed.index, old: old)
    }

    mutating func setNotifications(_ areWanted: Bool) -> Bool {
        if !areWanted {
            davit_atomic_store16_release(deviceEvents + 2, Events.disable)
        } else if hasEventIndex {
            davit_atomic_store16_release(deviceEvents, nextAvailable.offsetAndWrap)
            davit_atomic_store16_release(deviceEvents + 2, Events.descriptor)
        } else {
            davit_atomic_store16_release(deviceEvents + 2, Events.enable)
        }
        davit_atomic_fence()
        return isAvailable
    }
}
