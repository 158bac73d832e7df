import CDavit
import HostLinux

/// All translated units of one vCPU: found by where they are in the guest, and by where their code is in the host.
///
/// Only the vCPU's own thread uses it.
struct TranslationIndex {
    private(set) var units: ReservedArray<TranslatedUnit>
    private(set) var boundaries: ReservedArray<InstructionBoundary>
    private var links: ReservedArray<TranslationLink>
    /// First unit of a bucket, plus one; 0 is none, so that fresh memory is an empty table.
    private var buckets: ReservedArray<Int32>
    /// First unit of a guest page of RAM, plus one.
    private var pages: ReservedArray<Int32>

    static let bucketCount = 1 << 16
    static let unitCapacity = 1 << 20

    /// `pageCount` pages of guest physical address space hold RAM.
    init(pageCount: Int) throws(SystemError) {
        units = try ReservedArray(capacity: Self.unitCapacity)
        boundaries = try ReservedArray(capacity: Self.unitCapacity * 16)
        links = try ReservedArray(capacity: Self.unitCapacity * 4)
        buckets = try ReservedArray(capacity: Self.bucketCount)
        pages = try ReservedArray(capacity: pageCount)
    }

    func deallocate() {
        units.deallocate()
        boundaries.deallocate()
        links.deallocate()
        buckets.deallocate()
        pages.deallocate()
    }

    /// Room for one more unit of `instructions` instructions.
    func hasRoom(instructions: Int) -> Bool {
        units.room > 0 && boundaries.room >= instructions && links.room >= 2 * instructions + 2
    }

    @inline(__always)
    private static func bucket(_ physical: UInt64, _ rip: UInt64, _ mode: Int32) -> Int {
        var hash = physical ^ rip << 20 ^ UInt64(UInt32(bitPattern: mode)) << 13
        hash = (hash ^ hash >> 29) &* 0x9E37_79B9_7F4A_7C15
        return Int(truncatingIfNeeded: hash >> 48)
    }

    func find(physical: UInt64, rip: UInt64, mode: Int32) -> Int32? {
        var i = buckets.base[Self.bucket(physical, rip, mode)] - 1
        while i >= 0 {
            let unit = units.base + Int(i)
            if unit.pointee.physical == physical && unit.pointee.rip == rip && unit.pointee.mode == mode { return i }
            i = unit.pointee.nextInBucket
        }
        return nil
    }

    mutating func insert(_ unit: TranslatedUnit) -> Int32 {
        let i = units.append(unit)
        let place = units.base + Int(i)
        let bucket = buckets.base + Self.bucket(unit.physical, unit.rip, unit.mode)
        place.pointee.nextInBucket = bucket.pointee - 1
        bucket.pointee = i + 1
        let page = pages.base + Int(unit.physical >> 12)
        place.pointee.nextInPage = page.pointee - 1
        page.pointee = i + 1
        return i
    }

    mutating func add(_ boundary: InstructionBoundary) { boundaries.append(boundary) }
    mutating func add(_ link: TranslationLink) -> Int32 { links.append(link) }
    var linkCount: Int32 { Int32(truncatingIfNeeded: links.count) }

    /// Lets link number `link` jump straight to a unit.
    func connect(link: Int32, to unit: Int32) {
        let link = links.base + Int(link)
        let target = units.base + Int(unit)
        CodeEmitter.patch(link.pointee.place, to: target.pointee.start)
        link.pointee.nextIncoming = target.pointee.firstIncoming
        target.pointee.firstIncoming = Int32(truncatingIfNeeded: link - links.base)
    }

    /// Forgets the units of guest page `page` (guest physical address >> 12) that overlap any of the 64-byte `chunks`, after telling
    /// `body` of each.
    mutating func invalidate(page: UInt64, chunks: UInt64, _ body: (TranslatedUnit) -> Void) {
        let head = pages.base + Int(page)
        var previous: Int32 = -1
        var i = head.pointee - 1
        while i >= 0 {
            let unit = units.base + Int(i)
            let next = unit.pointee.nextInPage
            if CodeMap.chunks(at: unit.pointee.physical, size: UInt64(unit.pointee.byteCount)) & chunks != 0 {
                body(unit.pointee)
                if previous < 0 { head.pointee = next + 1 } else { units.base[Int(previous)].nextInPage = next }
                unlink(i)
            } else {
                previous = i
            }
            i = next
        }
    }

    private func unlink(_ i: Int32) {
        let unit = units.base + Int(i)
        unit.pointee.isLive = false
        var link = unit.pointee.firstIncoming
        while link >= 0 {
            let entry = links.base + Int(link)
            CodeEmitter.patch(entry.pointee.place, to: entry.pointee.stub)
            link = entry.pointee.nextIncoming
        }
        unit.pointee.firstIncoming = -1
        // Out of its bucket.
        let bucket = buckets.base + Self.bucket(unit.pointee.physical, unit.pointee.rip, unit.pointee.mode)
        if bucket.pointee - 1 == i {
            bucket.pointee = unit.pointee.nextInBucket + 1
        } else {
            var before = bucket.pointee - 1
            while before >= 0 {
                let place = units.base + Int(before)
                if place.pointee.nextInBucket == i {
                    place.pointee.nextInBucket = unit.pointee.nextInBucket
                    break
                }
                before = place.pointee.nextInBucket
            }
        }
    }

    /// The unit whose code holds the host address, live or not.
    func unit(containing host: UnsafeMutablePointer<UInt8>) -> Int32? {
        // Code memory is filled upwards, so units are sorted by their place.
        var low = 0
        var high = units.count
        while low < high {
            let middle = (low + high) / 2
            if units.base[middle].end <= host { low = middle + 1 } else { high = middle }
        }
        return low < units.count && units.base[low].start <= host ? Int32(low) : nil
    }

    /// Index of the instruction of a unit whose code holds, or is followed by, the host address.
    func boundary(of unit: Int32, containing host: UnsafeMutablePointer<UInt8>) -> Int32 {
        let unit = units.base + Int(unit)
        let offset = UInt32(truncatingIfNeeded: host - unit.pointee.start)
        var low = Int(unit.pointee.firstBoundary)
        var high = low + Int(unit.pointee.boundaryCount)
        while high - low > 1 {
            let middle = (low + high) / 2
            if boundaries.base[middle].host <= offset { low = middle } else { high = middle }
        }
        return Int32(low)
    }

    mutating func removeAll() {
        for i in 0..<units.count { pages.base[Int(units.base[i].physical >> 12)] = 0 }
        buckets.base.update(repeating: 0, count: Self.bucketCount)
        units.removeAll()
        boundaries.removeAll()
        links.removeAll()
    }
}
