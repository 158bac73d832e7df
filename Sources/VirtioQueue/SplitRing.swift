import CDavit
import GuestMemory

/// A split virtqueue from the device's side (virtio 1.2, 2.7).
///
/// Unsafe: `descriptors`, `available` and `used` were checked to be RAM in whole for a ring of `size` entries; indices are taken modulo
/// `size` or checked. RAM outlives the ring, which keeps `memory`.
struct SplitRing: Ring {
    private static let noNotify: UInt16 = 1
    private static let noInterrupt: UInt16 = 1

    private let memory: GuestMemory
    private let size: UInt16
    private let hasEventIndex: Bool
    private let hasIndirect: Bool
    private let descriptors: UnsafeMutableRawPointer
    private let available: UnsafeMutableRawPointer
    private let used: UnsafeMutableRawPointer
    private let usedAddress: UInt64
    /// The next entry of the available ring.
    private var nextAvailable: UInt16 = 0
    /// The next entry of the used ring.
    private var nextUsed: UInt16 = 0
    /// What the used index was when the driver was last shown it.
    private var publishedUsed: UInt16 = 0

    init(_ setup: QueueSetup, features: VirtioFeatures, memory: GuestMemory) throws(VirtioError) {
        let size = Int(setup.size)
        guard size > 0, size & (size - 1) == 0 else { throw .queueSize(setup.size) }
        self.memory = memory
        self.size = setup.size
        hasEventIndex = features.contains(.eventIndex)
        hasIndirect = features.contains(.indirectDescriptors)
        descriptors = try memory.ring(
            at: setup.descriptorArea, count: size * Descriptor.size, alignment: 16)
        // Flags, index, entries, and the event index behind them.
        available = try memory.ring(at: setup.driverArea, count: 6 + size * 2, alignment: 2)
        used = try memory.ring(at: setup.deviceArea, count: 6 + size * 8, alignment: 4)
        usedAddress = setup.deviceArea
    }

    private var availableIndex: UInt16 { davit_atomic_load16_acquire(available + 2) }

    mutating func pop(into chain: inout DescriptorChain) throws(VirtioError) -> Bool {
        let index = availableIndex
        let pending = index &- nextAvailable
        guard pending != 0 else { return false }
        guard pending <= size else { throw .availableIndex(index) }
        let head = (available + 4 + 2 * Int(nextAvailable % size)).load(as: UInt16.self)
        chain.removeAll()
        chain.id = head
        chain.length = 1
        try walk(from: head, into: &chain)
        nextAvailable &+= 1
        return true
    }

    private func walk(from head: UInt16, into chain: inout DescriptorChain) throws(VirtioError) {
        var index = head
        for _ in 0..<size {
            guard index < size else { throw .descriptorIndex(index) }
            let descriptor = Descriptor(descriptors + Int(index) * Descriptor.size)
            let (flags, next) = descriptor.words
            if flags & Descriptor.indirect != 0 {
                // It is the chain's last (2.7.5.3.1).
                guard hasIndirect, flags & Descriptor.next == 0 else { throw .indirectTable }
                return try walk(
                    IndirectTable(descriptor, limit: Int(size), in: memory), into: &chain)
            }
            try chain.append(descriptor, flags: flags, in: memory)
            guard flags & Descriptor.next != 0 else { return }
            index = next
        }
        throw .chainTooLong
    }

    private func walk(_ table: IndirectTable, into chain: inout DescriptorChain) throws(VirtioError) {
        var index = 0
        for _ in 0..<table.count {
            guard index < table.count else { throw .descriptorIndex(UInt16(truncatingIfNeeded: index)) }
            let descriptor = table[index]
            let (flags, next) = descriptor.words
            guard flags & Descriptor.indirect == 0 else { throw .indirectTable }
            try chain.append(descriptor, flags: flags, in: memory)
            guard flags & Descriptor.next != 0 else { return }
            index = Int(next)
        }
        throw .chainTooLong
    }

    mutating func push(_ chain: DescriptorChain, written: UInt32) {
        let entry = used + 4 + 8 * Int(nextUsed % size)
        entry.storeBytes(of: UInt32(chain.id), as: UInt32.self)
        entry.storeBytes(of: written, toByteOffset: 4, as: UInt32.self)
        nextUsed &+= 1
    }

    mutating func publish() -> Bool {
        guard nextUsed != publishedUsed else { return false }
        let old = publishedUsed
        publishedUsed = nextUsed
        davit_atomic_store16_release(used + 2, nextUsed)
        memory.didWrite(at: GuestPhysicalAddress(usedAddress), count: UInt64(6 + 8 * Int(size)))
        // The driver must see the index before we look whether it wants to hear of it.
        davit_atomic_fence()
        guard hasEventIndex else {
            return davit_atomic_load16_acquire(available) & Self.noInterrupt == 0
        }
        let event = davit_atomic_load16_acquire(available + 4 + 2 * Int(size))
        return isPassed(event: event, new: nextUsed, old: old)
    }

    mutating func setNotifications(_ areWanted: Bool) -> Bool {
        if hasEventIndex {
            // An index that the driver has passed already asks for nothing.
            if areWanted { davit_atomic_store16_release(used + 4 + 8 * Int(size), nextAvailable) }
        } else {
            davit_atomic_store16_release(used, areWanted ? 0 : Self.noNotify)
        }
        davit_atomic_fence()
        return availableIndex != nextAvailable
    }
}
