import GuestMemory

/// A buffer of a chain, in guest physical addresses and bytes.
public struct GuestBuffer: Sendable {
    public var address: UInt64
    public var count: UInt32
    public var isWritable: Bool

    public init(_ address: UInt64, _ count: UInt32, isWritable: Bool = false) {
        self.address = address
        self.count = count
        self.isWritable = isWritable
    }
}

/// A virtqueue that a test serves by hand from the driver's side (virtio 1.2, 2.7 and 2.8): descriptors, rings and their indices stand
/// in guest memory, where the test may spoil them. Not for several threads at once.
public final class GuestQueue: @unchecked Sendable {
    public static let next: UInt16 = 1
    public static let write: UInt16 = 2
    public static let indirect: UInt16 = 4

    public let memory: GuestMemory
    public let size: UInt16
    public let isPacked: Bool
    /// Where the three areas stand.
    public let descriptorArea: UInt64
    public let driverArea: UInt64
    public let deviceArea: UInt64

    private var nextDescriptor: UInt16 = 0
    private var availableIndex: UInt16 = 0
    private var usedIndex: UInt16 = 0
    private var availableWrap = true
    private var usedWrap = true
    /// Descriptors of a packed chain, by its id.
    private var lengths: [UInt16: UInt16] = [:]

    /// A ring of `size` entries from `address` (page aligned) on, which takes `footprint` bytes.
    public init(_ memory: GuestMemory, at address: UInt64, size: UInt16, isPacked: Bool = false) {
        self.memory = memory
        self.size = size
        self.isPacked = isPacked
        descriptorArea = address
        driverArea = address + UInt64(size) * 16
        deviceArea = (driverArea + 6 + UInt64(size) * 2 + 3) & ~3
        for offset in 0..<Self.footprint(size: size) / 8 { store(UInt64(0), address + offset * 8) }
    }

    /// In bytes, whole pages.
    public static func footprint(size: UInt16) -> UInt64 { (UInt64(size) * 26 + 16 + 4095) & ~4095 }

    private func store<Value: BitwiseCopyable>(_ value: Value, _ address: UInt64) {
        try! memory.write(value, at: GuestPhysicalAddress(address))
    }

    private func load<Value: BitwiseCopyable>(_ type: Value.Type, _ address: UInt64) -> Value {
        try! memory.read(type, at: GuestPhysicalAddress(address))
    }

    // MARK: descriptors

    /// Writes a descriptor as it stands: in a split ring `first` is flags and `second` next, in a packed one id and flags.
    public func setDescriptor(_ index: UInt16, address: UInt64, count: UInt32, _ first: UInt16, _ second: UInt16) {
        setDescriptor(in: descriptorArea, index, address: address, count: count, first, second)
    }

    /// The same in an indirect table.
    public func setDescriptor(
        in table: UInt64, _ index: UInt16, address: UInt64, count: UInt32, _ first: UInt16, _ second: UInt16
    ) {
        let place = table + UInt64(index) * 16
        store(address, place)
        store(count, place + 8)
        store(first, place + 12)
        store(second, place + 14)
    }

    /// Makes a chain available; its id, by which it comes back.
    @discardableResult
    public func add(_ buffers: [GuestBuffer]) -> UInt16 { isPacked ? addPacked(buffers) : addSplit(buffers) }

    /// Makes a chain available whose descriptors stand in a table at `table`.
    @discardableResult
    public func addIndirect(_ buffers: [GuestBuffer], table: UInt64) -> UInt16 {
        for (index, buffer) in buffers.enumerated() {
            let isLast = index == buffers.count - 1
            let flags = (isLast || isPacked ? 0 : Self.next) | (buffer.isWritable ? Self.write : 0)
            setDescriptor(
                in: table, UInt16(index), address: buffer.address, count: buffer.count, isPacked ? 0 : flags,
                isPacked ? flags : UInt16(index + 1))
        }
        return addRaw(address: table, count: UInt32(buffers.count * 16), flags: Self.indirect)
    }

    /// Makes a chain of one descriptor available.
    @discardableResult
    public func addRaw(address: UInt64, count: UInt32, flags: UInt16, next: UInt16 = 0) -> UInt16 {
        if isPacked {
            let index = availableIndex
            putPacked(address: address, count: count, id: index, flags: flags)
            lengths[index] = 1
            return index
        }
        let head = takeDescriptor()
        setDescriptor(head, address: address, count: count, flags, next)
        makeAvailable(head)
        return head
    }

    private func takeDescriptor() -> UInt16 {
        defer { nextDescriptor = (nextDescriptor + 1) % size }
        return nextDescriptor
    }

    private func addSplit(_ buffers: [GuestBuffer]) -> UInt16 {
        let indices = buffers.map { _ in takeDescriptor() }
        for (place, buffer) in buffers.enumerated() {
            let isLast = place == buffers.count - 1
            setDescriptor(
                indices[place], address: buffer.address, count: buffer.count,
                (isLast ? 0 : Self.next) | (buffer.isWritable ? Self.write : 0), isLast ? 0 : indices[place + 1])
        }
        makeAvailable(indices[0])
        return indices[0]
    }

    /// Writes a head into the available ring of a split queue and moves its index.
    public func makeAvailable(_ head: UInt16) {
        store(head, driverArea + 4 + UInt64(availableIndex % size) * 2)
        setAvailableIndex(availableIndex &+ 1)
    }

    /// Of a split queue.
    public func setAvailableIndex(_ index: UInt16) {
        availableIndex = index
        store(index, driverArea + 2)
    }

    private func addPacked(_ buffers: [GuestBuffer]) -> UInt16 {
        let id = availableIndex
        lengths[id] = UInt16(buffers.count)
        // The first descriptor's flags go last.
        let (index, wrap) = (availableIndex, availableWrap)
        for (place, buffer) in buffers.enumerated() {
            let more = place == buffers.count - 1 ? 0 : Self.next
            let flags = more | (buffer.isWritable ? Self.write : 0)
            putPacked(
                address: buffer.address, count: buffer.count, id: id, flags: flags,
                isHidden: place == 0)
        }
        let first = (buffers.count > 1 ? Self.next : 0) | (buffers[0].isWritable ? Self.write : 0)
        store(first | (wrap ? 1 << 7 : 1 << 15), descriptorArea + UInt64(index) * 16 + 14)
        return id
    }

    private func putPacked(address: UInt64, count: UInt32, id: UInt16, flags: UInt16, isHidden: Bool = false) {
        let colour: UInt16 = availableWrap != isHidden ? 1 << 7 : 1 << 15
        setDescriptor(availableIndex, address: address, count: count, id, flags | colour)
        availableIndex += 1
        if availableIndex == size {
            availableIndex = 0
            availableWrap.toggle()
        }
    }

    // MARK: what comes back

    /// The next used chain; nil if there is none.
    public func takeUsed() -> (id: UInt16, written: UInt32)? {
        if isPacked {
            let place = descriptorArea + UInt64(usedIndex) * 16
            let flags = load(UInt16.self, place + 14)
            guard (flags >> 7 & 1 != 0) == usedWrap, (flags >> 15 != 0) == usedWrap else { return nil }
            let id = load(UInt16.self, place + 12)
            usedIndex += lengths[id] ?? 1
            if usedIndex >= size {
                usedIndex -= size
                usedWrap.toggle()
            }
            return (id, load(UInt32.self, place + 8))
        }
        guard load(UInt16.self, deviceArea + 2) != usedIndex else { return nil }
        let place = deviceArea + 4 + UInt64(usedIndex % size) * 8
        usedIndex &+= 1
        return (UInt16(truncatingIfNeeded: load(UInt32.self, place)), load(UInt32.self, place + 4))
    }
}
