import Synchronization

/// Which device answers at which address of one address space.
///
/// Lookups take no lock: vCPUs make them all the time, while devices come when the machine is built and move only when
/// a guest writes a BAR. A place, once given to a device, stays the device's until the map goes, with one size; only
/// its start changes. So however a lookup and a move interleave, the offset that comes out lies inside the device, at
/// its old place or its new one.
final class AddressMap<Device: Sendable>: Sendable {
    /// What a lookup needs of a device's place.
    private struct Place: ~Copyable {
        let device: Device
        /// The first address at which it answers.
        let start: Atomic<UInt64>
        /// In bytes; zero while it answers nowhere.
        let size: Atomic<UInt64>
    }

    /// What attaching needs of it.
    private struct Record {
        var name: String
        var size: UInt64
        /// Nil while it answers nowhere.
        var range: ClosedRange<UInt64>?
    }

    static var capacity: Int { 512 }
    private static var hintCount: Int { 1024 }

    let space: BusSpace
    /// The highest address there is.
    private let limit: UInt64
    /// Addresses that differ only in this many low bits share a hint.
    private let hintShift: UInt64

    /// `capacity` places, of which the first `count` are initialized.
    ///
    /// Unsafe: places below `count` are never changed but through their atomics, and live as long as this object.
    private nonisolated(unsafe) let places: UnsafeMutablePointer<Place>
    private let count = Atomic<Int>(0)
    /// Where an address was found last; only a guess, checked before it is believed.
    ///
    /// Unsafe: initialized whole in `init`, then changed only through the atomics.
    private nonisolated(unsafe) let hints: UnsafeMutablePointer<Atomic<UInt16>>
    /// Guards attaching and moving; parallel to `places`.
    private let records = Mutex<[Record]>([])

    init(space: BusSpace, limit: UInt64, hintShift: UInt64) {
        self.space = space
        self.limit = limit
        self.hintShift = hintShift
        places = .allocate(capacity: Self.capacity)
        hints = .allocate(capacity: Self.hintCount)
        for index in 0..<Self.hintCount { (hints + index).initialize(to: Atomic(0)) }
    }

    deinit {
        places.deinitialize(count: count.load(ordering: .acquiring))
        places.deallocate()
        hints.deinitialize(count: Self.hintCount)
        hints.deallocate()
    }

    /// The place of the device that answers at `address`, or nil.
    @inline(__always)
    func find(_ address: UInt64) -> Int? {
        let hint = hints + Int(truncatingIfNeeded: (address &>> hintShift) & UInt64(Self.hintCount &- 1))
        let guess = Int(hint.pointee.load(ordering: .relaxed))
        let count = count.load(ordering: .acquiring)
        if guess < count, remaining(guess, address) != nil { return guess }
        for index in 0..<count where remaining(index, address) != nil {
            hint.pointee.store(UInt16(truncatingIfNeeded: index), ordering: .relaxed)
            return index
        }
        return nil
    }

    /// How far `address` lies inside the place, and how many bytes there are from there to its end; nil outside.
    @inline(__always)
    func remaining(_ index: Int, _ address: UInt64) -> (offset: UInt64, count: UInt64)? {
        let size = places[index].size.load(ordering: .acquiring)
        let offset = address &- places[index].start.load(ordering: .relaxed)
        return offset < size ? (offset, size &- offset) : nil
    }

    @inline(__always)
    func device(_ index: Int) -> Device { places[index].device }

    /// For traces.
    func name(_ index: Int) -> String { records.withLock { $0[index].name } }

    /// Gives `device` a place of `size` bytes; with no `start` it answers nowhere until it is moved.
    func attach(_ device: Device, name: String, start: UInt64?, size: UInt64) throws(BusError) -> Int {
        try records.withLock { records throws(BusError) in
            let index = records.count
            guard index < Self.capacity else { throw .full(space: space, name: name, capacity: Self.capacity) }
            let range = try range(of: name, start: start, size: size, among: records, except: nil)
            (places + index).initialize(
                to: Place(device: device, start: Atomic(start ?? 0), size: Atomic(start == nil ? 0 : size)))
            records.append(Record(name: name, size: size, range: range))
            count.store(index &+ 1, ordering: .releasing)
            return index
        }
    }

    /// Lets the device answer from `start` on, or nowhere.
    func move(_ index: Int, to start: UInt64?) throws(BusError) {
        try records.withLock { records throws(BusError) in
            let record = records[index]
            let range = try range(of: record.name, start: start, size: record.size, among: records, except: index)
            places[index].size.store(0, ordering: .relaxed)
            if let start {
                places[index].start.store(start, ordering: .relaxed)
                places[index].size.store(record.size, ordering: .releasing)
            }
            records[index].range = range
        }
    }

    /// Every range that is claimed now, in ascending order.
    var claims: [(name: String, range: ClosedRange<UInt64>)] {
        let claims = records.withLock { records in
            records.compactMap { record in record.range.map { (name: record.name, range: $0) } }
        }
        return claims.sorted { $0.range.lowerBound < $1.range.lowerBound }
    }

    private func range(
        of name: String, start: UInt64?, size: UInt64, among records: [Record], except: Int?
    ) throws(BusError) -> ClosedRange<UInt64>? {
        guard size > 0, size &- 1 <= limit else {
            throw .invalidRange(space: space, name: name, start: start ?? 0, size: size)
        }
        guard let start else { return nil }
        guard start <= limit, size &- 1 <= limit &- start else {
            throw .invalidRange(space: space, name: name, start: start, size: size)
        }
        let range = start...start &+ (size &- 1)
        for (index, other) in records.enumerated() where index != except {
            guard let otherRange = other.range, otherRange.overlaps(range) else { continue }
            throw .overlap(space: space, name: name, range: range, other: other.name, otherRange: otherRange)
        }
        return range
    }
}
