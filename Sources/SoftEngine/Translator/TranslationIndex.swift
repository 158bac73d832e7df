import CDavit
import HostLinux

/// All translated units of one vCPU: found by where they are in the guest, and by where their code is in the host.
///
/// Code memory is used in segments, in turn; units, boundaries and links of one segment stand together, so that a segment is given
/// up as a whole when its turn comes again. Only the vCPU's own thread uses it.
struct TranslationIndex {
    private(set) var units: ReservedArray<TranslatedUnit>
    private(set) var boundaries: ReservedArray<InstructionBoundary>
    private var links: ReservedArray<TranslationLink>
    /// First unit of a bucket, plus one; 0 is none, so that fresh memory is an empty table.
    private var buckets: ReservedArray<Int32>
    /// First unit of a guest page of RAM, plus one.
    private var pages: ReservedArray<Int32>
    /// What each segment holds.
    private var segments: InlineArray<8, Fill> = InlineArray(repeating: Fill())
    /// The segment that is being filled.
    private(set) var current = 0

    /// How many of each a segment has.
    private struct Fill: BitwiseCopyable {
        var units: Int32 = 0
        var boundaries: Int32 = 0
        var links: Int32 = 0
    }

    static let segmentCount = 8
    private static let bucketCount = 1 << 16
    private static let unitsOfSegment: Int32 = 1 << 16
    private static let boundariesOfSegment: Int32 = 1 << 20
    private static let linksOfSegment: Int32 = 1 << 18

    /// `pageCount` pages of guest physical address space hold RAM.
    init(pageCount: Int) throws(SystemError) {
        units = try ReservedArray(capacity: Int(Self.unitsOfSegment) * Self.segmentCount)
        boundaries = try ReservedArray(capacity: Int(Self.boundariesOfSegment) * Self.segmentCount)
        links = try ReservedArray(capacity: Int(Self.linksOfSegment) * Self.segmentCount)
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

    /// The current segment has room for one more unit of `instructions` instructions.
    func hasRoom(instructions: Int) -> Bool {
        let fill = segments[current]
        return fill.units < Self.unitsOfSegment
            && Int(Self.boundariesOfSegment - fill.boundaries) >= instructions
            // A conditional jump or a window has one, and the unit's end.
            && Int(Self.linksOfSegment - fill.links) >= 3 * instructions + 2
    }

    /// The numbers that the next unit, and the first of its boundaries, will have.
    var nextUnit: Int32 { Int32(current) * Self.unitsOfSegment + segments[current].units }
    var nextBoundary: Int32 { Int32(current) * Self.boundariesOfSegment + segments[current].boundaries }

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
        let i = nextUnit
        segments[current].units += 1
        let place = units.base + Int(i)
        place.pointee = unit
        let bucket = buckets.base + Self.bucket(unit.physical, unit.rip, unit.mode)
        place.pointee.nextInBucket = bucket.pointee - 1
        bucket.pointee = i + 1
        let page = pages.base + Int(unit.physical >> 12)
        place.pointee.nextInPage = page.pointee - 1
        page.pointee = i + 1
        return i
    }

    mutating func add(_ boundary: InstructionBoundary) {
        boundaries.base[Int(nextBoundary)] = boundary
        segments[current].boundaries += 1
    }

    mutating func add(_ link: TranslationLink) -> Int32 {
        let number = Int32(current) * Self.linksOfSegment + segments[current].links
        links.base[Int(number)] = link
        segments[current].links += 1
        return number
    }

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
        var i = pages.base[Int(page)] - 1
        while i >= 0 {
            let unit = units.base + Int(i)
            let next = unit.pointee.nextInPage
            if CodeMap.chunks(at: unit.pointee.physical, size: UInt64(unit.pointee.byteCount)) & chunks != 0 {
                body(unit.pointee)
                forget(i)
            }
            i = next
        }
    }

    /// Goes on to the next segment and forgets what it held, after telling `body` of each unit.
    mutating func takeNextSegment(_ body: (TranslatedUnit) -> Void) {
        let next = (current + 1) % Self.segmentCount
        let first = Int32(next) * Self.unitsOfSegment
        for i in first..<first + segments[next].units where units.base[Int(i)].isLive {
            body(units.base[Int(i)])
            forget(i)
        }
        dropLinks(from: next)
        segments[next] = Fill()
        current = next
    }

    /// Takes the links of a segment's code out of the chains of the units that they lead to.
    private func dropLinks(from segment: Int) {
        let first = Int32(segment) * Self.linksOfSegment
        let leaving = first..<first + segments[segment].links
        for other in 0..<Self.segmentCount where other != segment {
            let start = Int(Self.unitsOfSegment) * other
            for i in start..<start + Int(segments[other].units) where units.base[i].isLive {
                var kept: Int32 = -1
                var link = units.base[i].firstIncoming
                while link >= 0 {
                    let next = links.base[Int(link)].nextIncoming
                    if !leaving.contains(link) {
                        links.base[Int(link)].nextIncoming = kept
                        kept = link
                    }
                    link = next
                }
                units.base[i].firstIncoming = kept
            }
        }
    }

    /// Takes a unit out of all chains; jumps that led to it lead to their stubs again.
    private func forget(_ i: Int32) {
        let unit = units.base + Int(i)
        unit.pointee.isLive = false
        var link = unit.pointee.firstIncoming
        while link >= 0 {
            let entry = links.base + Int(link)
            CodeEmitter.patch(entry.pointee.place, to: entry.pointee.stub)
            link = entry.pointee.nextIncoming
        }
        unit.pointee.firstIncoming = -1
        remove(
            i, from: buckets.base + Self.bucket(unit.pointee.physical, unit.pointee.rip, unit.pointee.mode),
            \.nextInBucket)
        remove(i, from: pages.base + Int(unit.pointee.physical >> 12), \.nextInPage)
    }

    private func remove(
        _ i: Int32, from head: UnsafeMutablePointer<Int32>, _ next: WritableKeyPath<TranslatedUnit, Int32>
    ) {
        let following = units.base[Int(i)][keyPath: next]
        if head.pointee - 1 == i {
            head.pointee = following + 1
            return
        }
        var before = head.pointee - 1
        while before >= 0 {
            if units.base[Int(before)][keyPath: next] == i {
                units.base[Int(before)][keyPath: next] = following
                return
            }
            before = units.base[Int(before)][keyPath: next]
        }
    }

    /// The unit of a segment whose code holds the host address, live or not.
    func unit(containing host: UnsafeMutablePointer<UInt8>, segment: Int) -> Int32? {
        // A segment is filled upwards, so its units are sorted by their place.
        let first = segment * Int(Self.unitsOfSegment)
        let end = first + Int(segments[segment].units)
        var low = first
        var high = end
        while low < high {
            let middle = (low + high) / 2
            if units.base[middle].end <= host { low = middle + 1 } else { high = middle }
        }
        return low < end && units.base[low].start <= host ? Int32(low) : nil
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

    /// Forgets all units.
    mutating func removeAll() {
        for segment in 0..<Self.segmentCount {
            let first = segment * Int(Self.unitsOfSegment)
            for i in first..<first + Int(segments[segment].units) { pages.base[Int(units.base[i].physical >> 12)] = 0 }
            segments[segment] = Fill()
        }
        buckets.base.update(repeating: 0, count: Self.bucketCount)
        current = 0
    }
}
