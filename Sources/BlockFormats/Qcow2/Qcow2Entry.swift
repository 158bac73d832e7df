/// What an L2 table says of one cluster (qcow2.rst, "L2 table entry" and "Extended L2 Entries").
///
/// A cluster is looked at in parts that are allocated on their own: 32 subclusters with extended entries, else one.
struct Qcow2Entry: Equatable {
    /// Where the cluster lies in the file, in bytes; 0 if it has no place.
    var host: UInt64 = 0
    /// Nobody else refers to the cluster: it may be written in place.
    var isCopied = false
    /// Place and length of compressed data, as the entry has them; nil if the cluster is not compressed.
    var compressed: UInt64?
    /// Subclusters, from bit 0 on, whose data lie in the cluster.
    var allocated: UInt32 = 0
    /// Subclusters that read as zeros whatever is underneath.
    var zero: UInt32 = 0

    static let copiedFlag: UInt64 = 1 << 63
    static let compressedFlag: UInt64 = 1 << 62
    static let zeroFlag: UInt64 = 1
    static let offsetMask: UInt64 = 0x00FF_FFFF_FFFF_FE00
}

/// How an image is cut into clusters and tables.
struct Qcow2Geometry: Sendable {
    let clusterBits: UInt64
    let isExtended: Bool
    let hasZeroFlag: Bool

    init(_ header: Qcow2Header) {
        clusterBits = UInt64(header.clusterBits)
        isExtended = header.hasExtendedL2
        hasZeroFlag = header.version >= 3
    }

    var clusterSize: UInt64 { 1 << clusterBits }
    var clusterMask: UInt64 { clusterSize &- 1 }
    /// Entries in an L2 table, as a power of two.
    var l2Bits: UInt64 { isExtended ? clusterBits - 4 : clusterBits - 3 }
    var l2Entries: Int { 1 << l2Bits }
    var subclusterBits: UInt64 { isExtended ? clusterBits - 5 : clusterBits }
    /// What one L2 table maps.
    var bytesPerL2: UInt64 { 1 << (clusterBits + l2Bits) }
    /// All subclusters of a cluster.
    var allSubclusters: UInt32 { isExtended ? .max : 1 }

    func l1Index(_ offset: UInt64) -> Int { Int(offset >> (clusterBits + l2Bits)) }
    func l2Index(_ offset: UInt64) -> Int { Int(offset >> clusterBits) & (l2Entries - 1) }
    func subcluster(_ offset: UInt64) -> UInt32 { UInt32((offset & clusterMask) >> subclusterBits) }

    /// The subclusters that a range within one cluster touches.
    func subclusters(_ range: Range<UInt64>) -> UInt32 {
        guard isExtended else { return 1 }
        let first = range.lowerBound >> subclusterBits
        let last = (range.upperBound - 1) >> subclusterBits
        return (UInt32.max >> (31 - UInt32(last))) & (UInt32.max << UInt32(first))
    }

    /// Place and length in bytes of a compressed cluster (qcow2.rst, "Compressed Clusters Descriptor").
    func compressedPlace(_ word: UInt64) -> (offset: UInt64, count: Int) {
        let offsetBits = 62 - (clusterBits - 8)
        let offset = word & (1 << offsetBits - 1)
        let sectors = (word & (Qcow2Entry.compressedFlag - 1)) >> offsetBits
        return (offset, Int((sectors + 1) * 512 - offset % 512))
    }

    /// Nil if the entry contradicts itself.
    func decode(_ word: UInt64, _ bitmap: UInt64) -> Qcow2Entry? {
        var entry = Qcow2Entry()
        if word & Qcow2Entry.compressedFlag != 0 {
            guard word & Qcow2Entry.copiedFlag == 0, bitmap == 0 else { return nil }
            entry.compressed = word
            return entry
        }
        entry.host = word & Qcow2Entry.offsetMask
        entry.isCopied = word & Qcow2Entry.copiedFlag != 0
        guard entry.host & clusterMask == 0 else { return nil }
        if isExtended {
            entry.allocated = UInt32(truncatingIfNeeded: bitmap)
            entry.zero = UInt32(truncatingIfNeeded: bitmap >> 32)
            guard entry.allocated & entry.zero == 0, entry.host != 0 || entry.allocated == 0 else { return nil }
        } else if word & Qcow2Entry.zeroFlag != 0 {
            guard hasZeroFlag else { return nil }
            entry.zero = 1
        } else {
            entry.allocated = entry.host == 0 ? 0 : 1
        }
        return entry
    }

    func encode(_ entry: Qcow2Entry) -> (word: UInt64, bitmap: UInt64) {
        if let compressed = entry.compressed { return (compressed, 0) }
        let word = entry.host | (entry.isCopied && entry.host != 0 ? Qcow2Entry.copiedFlag : 0)
        if isExtended { return (word, UInt64(entry.zero) << 32 | UInt64(entry.allocated)) }
        return (word | (entry.zero != 0 ? Qcow2Entry.zeroFlag : 0), 0)
    }
}
