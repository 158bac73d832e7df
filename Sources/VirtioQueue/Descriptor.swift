import GuestMemory

/// A descriptor as it stands in a table (virtio 1.2, 2.7.5 for split rings, 2.8.13 for packed ones): copied once, then judged.
struct Descriptor {
    static let size = 16
    static let next: UInt16 = 1
    static let write: UInt16 = 2
    static let indirect: UInt16 = 4
    /// Packed rings only.
    static let available: UInt16 = 1 << 7
    static let used: UInt16 = 1 << 15

    var address: UInt64
    var count: UInt32
    /// Flags and next in a split ring, id and flags in a packed one.
    var words: (UInt16, UInt16)

    /// Safe: `place` has 16 bytes of guest RAM; any bytes are integers.
    init(_ place: UnsafeRawPointer) {
        address = place.loadUnaligned(as: UInt64.self)
        count = place.loadUnaligned(fromByteOffset: 8, as: UInt32.self)
        words = (
            place.loadUnaligned(fromByteOffset: 12, as: UInt16.self),
            place.loadUnaligned(fromByteOffset: 14, as: UInt16.self)
        )
    }
}

extension DescriptorChain {
    /// Checks a descriptor's buffer and takes it in.
    mutating func append(_ descriptor: Descriptor, flags: UInt16, in memory: GuestMemory) throws(VirtioError) {
        let address = GuestPhysicalAddress(descriptor.address)
        let count = UInt64(descriptor.count)
        guard let place = memory.pointer(at: address, count: count) else { throw .bufferAddress(descriptor.address) }
        append(
            place, count: Int(count), address: descriptor.address, isWritable: flags & Descriptor.write != 0)
    }
}

/// An indirect table, checked to be in RAM.
struct IndirectTable {
    let base: UnsafeRawPointer
    let count: Int

    /// `limit` is the queue's length, which no chain may exceed (2.7.5.3.1).
    init(_ descriptor: Descriptor, limit: Int, in memory: GuestMemory) throws(VirtioError) {
        let size = Int(descriptor.count)
        guard size > 0, size % Descriptor.size == 0, size / Descriptor.size <= limit else { throw .indirectTable }
        guard let place = memory.pointer(at: GuestPhysicalAddress(descriptor.address), count: UInt64(size)) else {
            throw .bufferAddress(descriptor.address)
        }
        base = UnsafeRawPointer(place)
        count = size / Descriptor.size
    }

    /// `index` is below `count`.
    subscript(_ index: Int) -> Descriptor { Descriptor(base + index * Descriptor.size) }
}
