import GuestMemory

/// A range of guest physical memory and what stands there.
public struct Placement: Equatable, Sendable, CustomStringConvertible {
    public let name: String
    public let start: UInt64
    /// The first address past it.
    public let end: UInt64

    public var description: String { "\(GuestPhysicalAddress(start))-\(GuestPhysicalAddress(end &- 1)) \(name)" }
}

/// Where the parts of a boot go in guest RAM. Everything that a loader writes is claimed here first: claims outside RAM, in the BIOS's
/// areas or over one another are refused.
struct PlacementMap {
    enum Direction {
        case lowest
        case highest
    }

    /// In ascending order, none over another.
    private(set) var placements: [Placement] = []
    private let regions: [GuestMemory.Region]
    private let memorySize: UInt64

    init(_ memory: GuestMemory, reserved: [Placement]) {
        regions = memory.regions
        memorySize = memory.size
        for placement in reserved where placement.start < placement.end { insert(placement) }
    }

    /// Claims `size` bytes at `start`, all of them RAM below `limit`. Nothing is claimed for a size of zero.
    mutating func claim(
        _ name: String, at start: UInt64, size: UInt64, below limit: UInt64 = .max, for source: BootSource
    ) throws(BootError) {
        guard size > 0 else { return }
        let (end, wraps) = start.addingReportingOverflow(size)
        let place = "\(name) (\(size) bytes at \(GuestPhysicalAddress(start)))"
        guard !wraps else { throw source.malformed("\(place) wraps around the end of the address space") }
        guard end <= limit else {
            throw source.error(
                .doesNotFit, "\(place) reaches past \(GuestPhysicalAddress(limit))",
                mend: "link or build it for a lower address")
        }
        if let other = placements.first(where: { $0.start < end && start < $0.end }) {
            throw source.error(
                .doesNotFit, "\(place) would overwrite \(other.name) at \(GuestPhysicalAddress(other.start))",
                mend: "link it to stand elsewhere, mostly at 1 MiB or above")
        }
        guard regions.contains(where: { $0.start.rawValue <= start && end <= $0.end.rawValue }) else {
            throw source.error(
                .doesNotFit, "\(place) is not all RAM in a machine with \(megabytes)", mend: mend(for: end))
        }
        insert(Placement(name: name, start: start, end: end))
    }

    /// Finds and claims `size` bytes of free RAM in `range`, aligned to `alignment`, a power of two.
    mutating func allocate(
        _ name: String, size: UInt64, alignment: UInt64, in range: Range<UInt64>, _ direction: Direction,
        for source: BootSource
    ) throws(BootError) -> UInt64 {
        let size = max(size, 1)
        let gaps = freeRanges(in: range)
        for gap in direction == .lowest ? gaps : gaps.reversed() {
            guard size <= gap.upperBound - gap.lowerBound else { continue }
            let start: UInt64
            switch direction {
            case .lowest:
                let (raised, wraps) = gap.lowerBound.addingReportingOverflow(alignment - 1)
                guard !wraps else { continue }
                start = raised & ~(alignment - 1)
            case .highest:
                start = (gap.upperBound - size) & ~(alignment - 1)
            }
            guard start >= gap.lowerBound, start < gap.upperBound, size <= gap.upperBound - start else { continue }
            insert(Placement(name: name, start: start, end: start + size))
            return start
        }
        throw source.error(
            .doesNotFit, "there is no room for \(name) of \(size) bytes in a machine with \(megabytes)",
            mend: "give more with --memory")
    }

    /// RAM in `range` that nobody has claimed, in ascending order.
    private func freeRanges(in range: Range<UInt64>) -> [Range<UInt64>] {
        var free: [Range<UInt64>] = []
        for region in regions {
            var start = max(region.start.rawValue, range.lowerBound)
            let end = min(region.end.rawValue, range.upperBound)
            for taken in placements where taken.end > start && taken.start < end {
                if taken.start > start { free.append(start..<taken.start) }
                start = taken.end
            }
            if start < end { free.append(start..<end) }
        }
        return free
    }

    private mutating func insert(_ placement: Placement) {
        let index = placements.firstIndex { $0.start > placement.start } ?? placements.count
        placements.insert(placement, at: index)
    }

    private var megabytes: String { "\(memorySize >> 20) MiB" }

    /// More memory helps only if it would make RAM of the range.
    private func mend(for end: UInt64) -> String {
        end <= GuestMemory.holeStart
            ? "give at least --memory \((end + 0xF_FFFF) >> 20)M" : "link or build it for an address below 3 GiB"
    }
}
